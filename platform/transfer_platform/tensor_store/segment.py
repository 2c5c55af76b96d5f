"""One file of rows: written whole under a temporary name, then renamed; checked before it is used.

    bytes 0 to 63     magic, padded
    rows              one after the other, `row_bytes` each
    footer            JSON: shape, dtype, keys, and a CRC-32 of every row
    last 24 bytes     length of the footer (8), its CRC-32 (8), magic (8); little endian

What describes the rows stands behind them, so that they are written as they are computed; none waits in
memory.
"""

from __future__ import annotations

import json
import mmap
import os
import struct
import sys
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from transfer_platform.tensor_store.errors import CorruptFileError
from transfer_platform.tensor_store.layout import Bytes, RowSpec

MAGIC = b"TFROWS01"
START = 64
"""Offset of the first row: a cache line, so that rows of whole cache lines stay aligned."""
TAIL = struct.Struct("<QQ8s")
SUFFIX = ".rows"
PART = ".part"
"""Ends the name of a file that is still being written."""
_NO_DESCRIPTOR: dict[str, Any] = {"trackfd": False} if sys.version_info >= (3, 13) else {}
"""Older Pythons keep a file descriptor for each mapping."""


@dataclass(frozen=True)
class Segment:
    """A file of rows, mapped into memory. It keeps working when the file is removed.

    Attributes:
        path: Where it stood when it was opened.
        keys: Of its rows, in order.
        checksums: CRC-32 of its rows, in order.
        rows: Their bytes (N, row_bytes), read-only.
        mapping: What `rows` looks into.
    """

    path: Path
    keys: Sequence[str]
    checksums: Sequence[int]
    rows: Bytes
    mapping: mmap.mmap

    def intact(self, places: Iterable[int]) -> list[int]:
        """Those of the places whose rows are what was once written."""
        good = [place for place in places if zlib.crc32(self.rows[place]) == self.checksums[place]]
        self.release()
        return good

    def release(self) -> None:
        """Gives back the memory of the pages that were read; reading them again is harmless."""
        if hasattr(mmap, "MADV_DONTNEED"):
            self.mapping.madvise(mmap.MADV_DONTNEED)


def open_segment(path: Path, layout: RowSpec) -> Segment:
    """Maps a file; its rows are not checked yet, see `Segment.intact`.

    Raises:
        DamagedError: It is not a file of rows, not whole, or of another layout.
        OSError: It cannot be read, or another process has removed it.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size < START + TAIL.size:
            raise CorruptFileError(f"{path} is too short")
        mapping = mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ, **_NO_DESCRIPTOR)
    keys, checksums = _footer(mapping, path, layout)
    rows = np.frombuffer(mapping, np.uint8, len(keys) * layout.row_bytes, START)
    return Segment(path, keys, checksums, rows.reshape(len(keys), layout.row_bytes), mapping)


def _footer(mapping: mmap.mmap, path: Path, layout: RowSpec) -> tuple[list[str], list[int]]:
    end = len(mapping) - TAIL.size
    length, checksum, magic = TAIL.unpack(mapping[end:])
    if magic != MAGIC or mapping[: len(MAGIC)] != MAGIC or length > end - START:
        raise CorruptFileError(f"{path} is not whole")
    text = mapping[end - length : end]
    if zlib.crc32(text) != checksum:
        raise CorruptFileError(f"the description of the rows in {path} has changed")
    footer = json.loads(text)
    keys, checksums = footer["keys"], footer["checksums"]
    if RowSpec(tuple(footer["shape"]), footer["dtype"]) != layout:
        raise CorruptFileError(f"the rows in {path} are of another layout")
    if START + len(keys) * layout.row_bytes + length != end or len(keys) != len(checksums):
        raise CorruptFileError(f"{path} has not as many rows as it says")
    return keys, checksums


class SegmentWriter:
    """Writes one segment; nobody sees it before `finish`.

    Args:
        path: Where it will stand; until then `.part` is added to its name.
        layout: Of its rows.
    """

    def __init__(self, path: Path, layout: RowSpec) -> None:
        self._path, self._layout = path, layout
        self._part = path.with_name(path.name + PART)
        self._keys: list[str] = []
        self._checksums: list[int] = []
        self._file = self._part.open("wb")
        self._file.write(MAGIC.ljust(START, b"\0"))

    def __len__(self) -> int:
        return len(self._keys)

    def append(self, keys: Sequence[str], rows: Bytes) -> None:
        """Adds rows (B, row_bytes) under B keys."""
        self._file.write(rows.data)
        self._keys.extend(keys)
        self._checksums.extend(zlib.crc32(row) for row in rows)

    def finish(self) -> Segment:
        """Puts the file in its place, whole and on the disk."""
        self._file.write(self._footer())
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._part.replace(self._path)
        return open_segment(self._path, self._layout)

    def discard(self) -> None:
        """Removes what was written so far; does nothing to a finished file."""
        try:
            self._file.close()
        except OSError:
            pass  # what could not be flushed is not wanted any more
        finally:
            self._part.unlink(missing_ok=True)

    def _footer(self) -> bytes:
        description = {
            "shape": self._layout.shape,
            "dtype": self._layout.dtype,
            "keys": self._keys,
            "checksums": self._checksums,
        }
        text = json.dumps(description, separators=(",", ":")).encode()
        return text + TAIL.pack(len(text), zlib.crc32(text), MAGIC)
