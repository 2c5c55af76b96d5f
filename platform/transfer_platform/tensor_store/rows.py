"""Random access to stored rows, held in memory or in memory-mapped files."""

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from transfer_platform.tensor_store.segment import RowSpec, Segment, empty_rows

FAULT_BYTES = 128 << 10
"""Extra memory that the operating system may map around a row: 64 KiB on either side."""

RowLocation = tuple[Segment, int]
"""A segment and the index of a row within it."""


class Rows(Protocol):
    """Rows in the order of the requested keys. They remain readable after the store evicts or clears its files."""

    @property
    def spec(self) -> RowSpec:
        """Shape and dtype of each row."""

    def __len__(self) -> int: ...

    def take(self, indices: Sequence[int] | Tensor) -> Tensor:
        """Returns copies of the selected rows (B, *shape) on the CPU; `indices` (B,) may contain duplicates.

        Raises:
            IndexError: An index is not between 0 and N - 1.
        """


class InMemoryRows:
    """Distinct rows held in one tensor (D, *shape).

    The row for key i is `values[order[i]]`; `order` (N,) is None if the rows are already in key order.
    """

    def __init__(self, spec: RowSpec, values: Tensor, order: Tensor | None) -> None:
        self.spec, self._values, self._order = spec, values, order

    def __len__(self) -> int:
        return len(self._values if self._order is None else self._order)

    def take(self, indices: Sequence[int] | Tensor) -> Tensor:
        """Returns copies of the selected rows (B, *shape); see `Rows.take`."""
        selected = torch.as_tensor(indices, dtype=torch.int64, device="cpu")
        if self._order is not None:
            selected = self._order.index_select(0, selected)
        return self._values.index_select(0, selected)


class MappedRows:
    """Rows in memory-mapped files. Mapped pages are dropped after every `resident_bytes` bytes that are read."""

    def __init__(self, spec: RowSpec, locations: Sequence[RowLocation], resident_bytes: int) -> None:
        self.spec, self._resident_bytes = spec, resident_bytes
        self._segments = list({id(segment): segment for segment, _ in locations}.values())
        number = {id(segment): position for position, segment in enumerate(self._segments)}
        self._numbers = np.array([number[id(segment)] for segment, _ in locations], np.int32)
        self._offsets = np.array([offset for _, offset in locations], np.int64)
        self._bytes_read = 0

    def __len__(self) -> int:
        return len(self._offsets)

    def take(self, indices: Sequence[int] | Tensor) -> Tensor:
        """Returns copies of the selected rows (B, *shape); see `Rows.take`."""
        selected = np.asarray(indices, np.int64)
        if len(selected) and selected.min() < 0:
            raise IndexError(f"row index {selected.min()} is negative")
        numbers, offsets = self._numbers[selected].tolist(), self._offsets[selected].tolist()
        rows, memory = empty_rows(len(selected), self.spec)
        for target, number, offset in zip(memory, numbers, offsets, strict=True):
            target[:] = self._segments[number].rows[offset]
        self._limit_resident_memory(len(selected))
        return rows

    def _limit_resident_memory(self, rows_read: int) -> None:
        """Drops mapped pages, which count as process memory, once `resident_bytes` bytes have been read."""
        self._bytes_read += rows_read * (self.spec.row_bytes + FAULT_BYTES)
        if self._bytes_read > self._resident_bytes:
            self._bytes_read = 0
            for segment in self._segments:
                segment.release()


def open_rows(
    spec: RowSpec, keys: Sequence[str], locations: Mapping[str, RowLocation], in_memory_bytes: int, resident_bytes: int
) -> Rows:
    """Opens the rows for N keys, which may contain duplicates; see `MappedRows` for `resident_bytes`.

    If the distinct rows take at most `in_memory_bytes`, they are read into memory; otherwise, they are memory-mapped.
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
