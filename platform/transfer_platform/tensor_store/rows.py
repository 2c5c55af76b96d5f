"""Random access to stored rows: small sets in memory, large ones in mapped files."""

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from transfer_platform.tensor_store.segment import RowSpec, Segment, empty_rows

FAULT_BYTES = 128 << 10
"""Memory that the system may map around a row in addition to the row: 64 KiB on either side."""

RowLocation = tuple[Segment, int]
"""A segment and the index of a row in it."""


class Rows(Protocol):
    """Rows in the order of the requested keys.

    They remain readable when the store evicts or clears its files.
    """

    @property
    def spec(self) -> RowSpec:
        """Shape and dtype of each row."""

    def __len__(self) -> int: ...

    def take(self, indices: Sequence[int] | Tensor) -> Tensor:
        """Returns copies of rows.

        Args:
            indices: Row indices (B,), each 0 to N - 1; may repeat.

        Returns:
            (B, *shape), on the CPU.

        Raises:
            IndexError: An index is out of range.
        """


class InMemoryRows:
    """Rows in one tensor.

    Args:
        spec: Shape and dtype of each row.
        values: Distinct rows (D, *shape).
        order: For each of the N keys the index of its row in `values` (N,); `None` for the order of `values`.
    """

    def __init__(self, spec: RowSpec, values: Tensor, order: Tensor | None) -> None:
        self._spec, self._values, self._order = spec, values, order

    @property
    def spec(self) -> RowSpec:
        """Shape and dtype of each row."""
        return self._spec

    def __len__(self) -> int:
        return len(self._values if self._order is None else self._order)

    def take(self, indices: Sequence[int] | Tensor) -> Tensor:
        """Returns copies of rows (B, *shape), see `Rows.take`."""
        selected = torch.as_tensor(indices, dtype=torch.int64, device="cpu")
        if self._order is not None:
            selected = self._order.index_select(0, selected)
        return self._values.index_select(0, selected)


class MappedRows:
    """Rows that stay in memory-mapped files.

    Args:
        spec: Shape and dtype of each row.
        locations: Locations of the N rows.
        resident_bytes: Bytes that are read before the mapped pages are dropped.
    """

    def __init__(self, spec: RowSpec, locations: Sequence[RowLocation], resident_bytes: int) -> None:
        self._spec, self._resident_bytes = spec, resident_bytes
        self._segments = list({id(segment): segment for segment, _ in locations}.values())
        number = {id(segment): position for position, segment in enumerate(self._segments)}
        self._numbers = np.array([number[id(segment)] for segment, _ in locations], np.int32)
        self._offsets = np.array([offset for _, offset in locations], np.int64)
        self._bytes_read = 0

    @property
    def spec(self) -> RowSpec:
        """Shape and dtype of each row."""
        return self._spec

    def __len__(self) -> int:
        return len(self._offsets)

    def take(self, indices: Sequence[int] | Tensor) -> Tensor:
        """Returns copies of rows (B, *shape), see `Rows.take`."""
        selected = np.asarray(indices, np.int64)
        if len(selected) and selected.min() < 0:
            raise IndexError(f"row index {selected.min()} is negative")
        numbers, offsets = self._numbers[selected].tolist(), self._offsets[selected].tolist()
        rows, memory = empty_rows(len(selected), self._spec)
        for target, number, offset in zip(memory, numbers, offsets, strict=True):
            target[:] = self._segments[number].rows[offset]
        self._limit_resident_memory(len(selected))
        return rows

    def _limit_resident_memory(self, rows_read: int) -> None:
        """Drops the mapped pages, which count as memory of this process, once enough rows were read."""
        self._bytes_read += rows_read * (self._spec.row_bytes + FAULT_BYTES)
        if self._bytes_read > self._resident_bytes:
            self._bytes_read = 0
            for segment in self._segments:
                segment.release()


def open_rows(
    spec: RowSpec, keys: Sequence[str], locations: Mapping[str, RowLocation], in_memory_bytes: int, resident_bytes: int
) -> Rows:
    """Opens the rows of N keys, in memory if the distinct rows are at most `in_memory_bytes`.

    Args:
        spec: Shape and dtype of each row.
        keys: N keys; may repeat.
        locations: Location of the row of every distinct key.
        in_memory_bytes: Maximum size of rows that are read into memory.
        resident_bytes: See `MappedRows`.
    """
    if len(locations) * spec.row_bytes > in_memory_bytes:
        return MappedRows(spec, [locations[key] for key in keys], resident_bytes)
    values, memory = empty_rows(len(locations), spec)
    for target, (segment, offset) in zip(memory, locations.values(), strict=True):
        target[:] = segment.rows[offset]
    index = {key: position for position, key in enumerate(locations)}
    order = torch.tensor([index[key] for key in keys], dtype=torch.int64)
    unchanged = torch.equal(order, torch.arange(len(values)))
    return InMemoryRows(spec, values, None if unchanged else order)
