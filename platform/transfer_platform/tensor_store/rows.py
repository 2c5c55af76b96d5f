"""Rows that are stored, ready to be taken: small ones from memory, many from mapped files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from transfer_platform.tensor_store.layout import RowSpec, empty
from transfer_platform.tensor_store.segment import Segment

IN_MEMORY_BYTES = 64 << 20
"""Rows that are not more than this together are held in one tensor."""
RESIDENT_BYTES = 256 << 20
"""Bytes that are read from mapped files before their memory is given back."""
FAULT_BYTES = 128 << 10
"""What the system may map around a row besides the row itself: 64 KiB on either side."""

Place = tuple[Segment, int]
"""Where a row stands: in which segment, and which one of it."""


class Rows(Protocol):
    """Stored rows, one for every key that was asked for, in that order.

    They are in this process's hands: evicting or clearing the store takes nothing away from them.
    """

    @property
    def layout(self) -> RowSpec:
        """Shape and type of each row."""

    def __len__(self) -> int: ...

    def take(self, indices: Sequence[int] | Tensor) -> Tensor:
        """Copies of some rows, which may be written to.

        Args:
            indices: Of the rows (B,), each 0 to N - 1; they may repeat.

        Returns:
            (B, *shape), on the CPU.

        Raises:
            IndexError: There is no such row.
        """


class InMemoryRows:
    """A few rows in one tensor.

    Args:
        layout: Of each row.
        values: (D, *shape), each distinct row once.
        order: For each of the N keys its row in `values`; `None`: they are the same.
    """

    def __init__(self, layout: RowSpec, values: Tensor, order: Tensor | None) -> None:
        self._layout, self._values, self._order = layout, values, order

    @property
    def layout(self) -> RowSpec:
        """Shape and type of each row."""
        return self._layout

    def __len__(self) -> int:
        return len(self._values if self._order is None else self._order)

    def take(self, indices: Sequence[int] | Tensor) -> Tensor:
        """Copies of some rows (B, *shape), see `Rows.take`."""
        chosen = torch.as_tensor(indices, dtype=torch.int64, device="cpu")
        if self._order is not None:
            chosen = self._order.index_select(0, chosen)
        return self._values.index_select(0, chosen)


class MappedRows:
    """Rows that stay in their files, and are read when they are taken.

    Args:
        layout: Of each row.
        places: Of the N rows.
    """

    def __init__(self, layout: RowSpec, places: Sequence[Place]) -> None:
        self._layout = layout
        self._segments = list({id(segment): segment for segment, _ in places}.values())
        number = {id(segment): position for position, segment in enumerate(self._segments)}
        self._numbers = np.array([number[id(segment)] for segment, _ in places], np.int32)
        self._offsets = np.array([offset for _, offset in places], np.int64)
        self._taken = 0

    @property
    def layout(self) -> RowSpec:
        """Shape and type of each row."""
        return self._layout

    def __len__(self) -> int:
        return len(self._offsets)

    def take(self, indices: Sequence[int] | Tensor) -> Tensor:
        """Copies of some rows (B, *shape), see `Rows.take`."""
        chosen = np.asarray(indices, np.int64)
        if len(chosen) and chosen.min() < 0:
            raise IndexError(f"there is no row {chosen.min()}")
        numbers, offsets = self._numbers[chosen].tolist(), self._offsets[chosen].tolist()
        rows, memory = empty(len(chosen), self._layout)
        for target, number, offset in zip(memory, numbers, offsets, strict=True):
            target[:] = self._segments[number].rows[offset]
        self._count(len(chosen))
        return rows

    def _count(self, rows: int) -> None:
        """Keeps the memory flat: mapped pages count as this process's until it lets go of them."""
        self._taken += rows * (self._layout.row_bytes + FAULT_BYTES)
        if self._taken > RESIDENT_BYTES:
            self._taken = 0
            for segment in self._segments:
                segment.release()


def open_rows(layout: RowSpec, keys: Sequence[str], places: Mapping[str, Place]) -> Rows:
    """The rows of some keys, held in memory where they are small enough.

    Args:
        layout: Of each row.
        keys: N of them; they may repeat.
        places: Of every distinct key.
    """
    if len(places) * layout.row_bytes > IN_MEMORY_BYTES:
        return MappedRows(layout, [places[key] for key in keys])
    values, memory = empty(len(places), layout)
    for target, (segment, offset) in zip(memory, places.values(), strict=True):
        target[:] = segment.rows[offset]
    number = {key: position for position, key in enumerate(places)}
    order = torch.tensor([number[key] for key in keys], dtype=torch.int64)
    plain = torch.equal(order, torch.arange(len(values)))
    return InMemoryRows(layout, values, None if plain else order)
