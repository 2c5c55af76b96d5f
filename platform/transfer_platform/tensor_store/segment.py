"""Segments: immutable, memory-mapped files of rows, with one checksum per row.

    bytes 0 to 63     magic, padded
    rows              consecutive, `row_bytes` each
    footer            JSON: shape, dtype, keys and the CRC-32 of every row
    last 24 bytes     footer length (8), footer CRC-32 (8), magic (8); little-endian

The metadata comes after the rows so that rows can be written as they are computed. `docs/architecture.md` explains
why safetensors is not used.
"""

import json
import math
import mmap
import os
import struct
import sys
import zlib
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from transfer_platform.tensor_store.errors import CorruptFileError
from transfer_platform.tensor_store.eviction import PART

MAGIC = b"TFROWS01"
START = 64
"""Offset of the first row, in bytes; the size of a cache line, so that rows that fill whole cache lines are aligned."""
TRAILER = struct.Struct("<QQ8s")
_MMAP_OPTIONS: dict[str, Any] = {"trackfd": False} if sys.version_info >= (3, 13) else {}
"""Options that avoid keeping a file descriptor open for each mapping; available since Python 3.13."""

ByteRows = npt.NDArray[np.uint8]
"""Rows as bytes (B, row_bytes)."""


@dataclass(frozen=True)
class RowSpec:
    """Shape and dtype of every row at one address. A scalar has the shape `()`.

    >>> RowSpec((3, 224, 224), "uint8").row_bytes
    150528
    """

    shape: tuple[int, ...]
    dtype: str

    def __post_init__(self) -> None:
        if not isinstance(getattr(torch, self.dtype, None), torch.dtype):
            raise ValueError(f"{self.dtype!r} is not the name of a torch dtype; valid names include float32 and uint8")
        if any(size < 1 for size in self.shape):
            raise ValueError(f"a row must have at least one element, but its shape is {self.shape}")

    @property
    def torch_dtype(self) -> torch.dtype:
        """The dtype as a `torch.dtype`."""
        dtype: torch.dtype = getattr(torch, self.dtype)
        return dtype

    @property
    def row_bytes(self) -> int:
        """Size of one row in bytes."""
        return math.prod(self.shape) * self.torch_dtype.itemsize


def to_bytes(rows: Tensor, spec: RowSpec) -> ByteRows:
    """Returns the bytes (B, row_bytes) of rows (B, *shape).

    Raises:
        ValueError: The rows have a different shape or dtype.
    """
    if tuple(rows.shape[1:]) != spec.shape or rows.dtype != spec.torch_dtype:
        raise ValueError(f"rows with shape {tuple(rows.shape[1:])} and dtype {rows.dtype} do not match {spec}")
    # Viewed as bytes because NumPy has no bfloat16; flattened because such a view needs at least one dimension.
    flat = rows.detach().cpu().reshape(-1).contiguous().view(torch.uint8)
    byte_rows: ByteRows = flat.reshape(len(rows), spec.row_bytes).numpy()
    return byte_rows


def empty_rows(count: int, spec: RowSpec) -> tuple[Tensor, ByteRows]:
    """Allocates uninitialized rows (count, *shape); returns them and a view of their bytes (count, row_bytes)."""
    memory = torch.empty((count, spec.row_bytes), dtype=torch.uint8)
    return memory.reshape(-1).view(spec.torch_dtype).reshape(count, *spec.shape), memory.numpy()


@dataclass(frozen=True)
class Segment:
    """A memory-mapped file of rows, with their keys and CRC-32 checksums in the same order.

    It remains readable after the file is removed. `rows` (N, row_bytes) is a read-only view of `mapping`.
    """

    path: Path
    keys: Sequence[str]
    checksums: Sequence[int]
    rows: ByteRows
    mapping: mmap.mmap

    def intact(self, indices: Iterable[int]) -> list[int]:
        """Returns the subset of the given indices whose rows match their checksums."""
        matching = [index for index in indices if zlib.crc32(self.rows[index]) == self.checksums[index]]
        self.release()
        return matching

    def release(self) -> None:
        """Drops the resident pages of the mapping; they are reloaded on demand."""
        if hasattr(mmap, "MADV_DONTNEED"):
            self.mapping.madvise(mmap.MADV_DONTNEED)


def open_segment(path: Path, spec: RowSpec) -> Segment:
    """Memory-maps a segment file without verifying its rows; see `Segment.intact`.

    Raises:
        CorruptFileError: The file is not a segment, is truncated, or has rows of an unexpected shape or dtype.
        OSError: The file cannot be read, or another process has removed it.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size < START + TRAILER.size:
            raise CorruptFileError(f"{path} is too short")
        mapping = mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ, **_MMAP_OPTIONS)
    keys, checksums = _read_footer(mapping, path, spec)
    rows = np.frombuffer(mapping, np.uint8, len(keys) * spec.row_bytes, START)
    return Segment(path, keys, checksums, rows.reshape(len(keys), spec.row_bytes), mapping)


def _read_footer(mapping: mmap.mmap, path: Path, spec: RowSpec) -> tuple[list[str], list[int]]:
    end = len(mapping) - TRAILER.size
    length, checksum, magic = TRAILER.unpack(mapping[end:])
    if magic != MAGIC or mapping[: len(MAGIC)] != MAGIC or length > end - START:
        raise CorruptFileError(f"{path} is incomplete")
    text = mapping[end - length : end]
    if zlib.crc32(text) != checksum:
        raise CorruptFileError(f"the footer of {path} does not match its checksum")
    footer = json.loads(text)
    keys, checksums = footer["keys"], footer["checksums"]
    if RowSpec(tuple(footer["shape"]), footer["dtype"]) != spec:
        raise CorruptFileError(f"the rows in {path} have an unexpected shape or dtype")
    if START + len(keys) * spec.row_bytes + length != end or len(keys) != len(checksums):
        raise CorruptFileError(f"the number of rows in {path} does not match its footer")
    return keys, checksums


class SegmentWriter:
    """Writes one segment to a `.part` file, which `finish` renames to its final path."""

    def __init__(self, path: Path, spec: RowSpec) -> None:
        self._path, self._spec = path, spec
        self._part = path.with_name(path.name + PART)
        self._keys: list[str] = []
        self._checksums: list[int] = []
        self._file = self._part.open("wb")
        self._file.write(MAGIC.ljust(START, b"\0"))

    def __len__(self) -> int:
        return len(self._keys)

    def append(self, keys: Sequence[str], rows: ByteRows) -> None:
        """Appends rows (B, row_bytes) and their B keys."""
        self._file.write(rows.data)
        self._keys.extend(keys)
        self._checksums.extend(zlib.crc32(row) for row in rows)

    def finish(self) -> Segment:
        """Flushes the file to disk, renames it to its final path and opens it."""
        self._file.write(self._footer())
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._part.replace(self._path)
        return open_segment(self._path, self._spec)

    def discard(self) -> None:
        """Removes the unfinished file; a finished file is left in place."""
        with suppress(OSError):  # buffered rows that cannot be flushed
            self._file.close()
        self._part.unlink(missing_ok=True)

    def _footer(self) -> bytes:
        footer = {**asdict(self._spec), "keys": self._keys, "checksums": self._checksums}
        text = json.dumps(footer, separators=(",", ":")).encode()
        return text + TRAILER.pack(len(text), zlib.crc32(text), MAGIC)
