"""Store of tensor rows, each computed by the first process that requests it."""

import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import Timeout
from torch import Tensor

from transfer_platform.tensor_store import eviction
from transfer_platform.tensor_store.errors import StoreError, translate_write_errors
from transfer_platform.tensor_store.rows import RowLocation, Rows, open_rows
from transfer_platform.tensor_store.segment import ByteRows, RowSpec, SegmentWriter, to_bytes
from transfer_platform.tensor_store.segment_folder import SegmentFolder

Compute = Callable[[Sequence[int]], Iterator[Tensor]]
"""Takes the positions of missing rows in ascending order. Yields the rows in this order, as batches (b, *shape)."""

KEY_BYTES = 128
"""Approximate disk space for the key and the checksum of one row, in bytes."""


class Store:
    """Stores rows, keyed by (address, key), in files shared between processes.

    Args:
        folder: Folder of the store, which must contain nothing else; it need not exist.
        limit: Maximum total size of all files, in bytes.
        segment_bytes: Target segment size. Larger segments need fewer file descriptors, but a crash loses more rows.
        segment_seconds: Age in seconds after which a segment is finished even if it is smaller than `segment_bytes`.
        in_memory_bytes: Maximum total size of rows that one request reads into memory; larger sets are memory-mapped.
        resident_bytes: Number of bytes to read from memory-mapped files before their mapped pages are dropped.
        free_bytes: Function that returns how many bytes may be written to the disk that contains a given folder.
    """

    def __init__(
        self,
        folder: Path,
        limit: int,
        *,
        segment_bytes: int = 64 << 20,
        segment_seconds: float = 60.0,
        in_memory_bytes: int = 64 << 20,
        resident_bytes: int = 256 << 20,
        free_bytes: Callable[[Path], int] = eviction.free_bytes,
    ) -> None:
        self._folder, self._limit, self._free_bytes = folder, limit, free_bytes
        self._segment_bytes, self._segment_seconds = segment_bytes, segment_seconds
        self._in_memory_bytes, self._resident_bytes = in_memory_bytes, resident_bytes

    def fits(self, spec: RowSpec, count: int) -> bool:
        """Returns whether `count` rows would fit within the limit and on the disk if all other rows were evicted."""
        available = self._free_bytes(self._folder) + eviction.total_bytes(self._folder)
        return _disk_bytes(spec, count) <= min(self._limit, available)

    def get_or_compute(
        self,
        address: str,
        spec: RowSpec,
        keys: Sequence[str],
        compute: Compute,
        on_wait: Callable[[], None] = lambda: None,
    ) -> Rows:
        """Returns the rows for N keys. Each distinct row that is missing is computed once and stored.

        Args:
            address: Digest that, together with a key, determines the content of a row; used as a folder name.
            spec: Shape and dtype of each row.
            keys: N keys, such as image digests; may contain duplicates.
            compute: Computes missing rows, given their positions in `keys`. Its exceptions are propagated.
            on_wait: Called once if another process is computing rows for this address.

        Raises:
            StoreFullError: There is not enough space; rows in finished segments remain stored.
            StoreUnwritableError: Rows are missing and the folder is not writable.
            ValueError: The number, shape or dtype of the computed rows is wrong.
        """
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,128}", address):
            raise ValueError(f"an address must be a digest, not {address!r}")
        segments = SegmentFolder(self._folder / address, spec)
        locations = segments.locate(keys) if keys else {}
        if not locations.keys() >= set(keys):
            with self._lock(address, on_wait):
                locations |= segments.locate(set(keys) - locations.keys())
                self._compute_missing(segments, spec, keys, locations, compute)
        requested = {key: locations[key] for key in keys}
        return open_rows(spec, keys, requested, self._in_memory_bytes, self._resident_bytes)

    def _compute_missing(
        self,
        segments: SegmentFolder,
        spec: RowSpec,
        keys: Sequence[str],
        locations: dict[str, RowLocation],
        compute: Compute,
    ) -> None:
        """Adds the missing rows to the store and to `locations`. The caller must hold the address lock."""
        missing: dict[str, int] = {}
        for position, key in enumerate(keys):
            if key not in locations:
                missing.setdefault(key, position)
        if not missing:
            return
        address = segments.folder.name
        with translate_write_errors(self._folder):
            segments.remove_corrupt()
        eviction.remove_unfinished(self._folder, address)

        def evict(rows: int) -> None:
            keep = frozenset(segment.path for segment, _ in locations.values())
            size = _disk_bytes(spec, rows)
            eviction.evict(self._folder, self._limit, size, address=address, keep=keep, free_bytes=self._free_bytes)

        evict(len(missing))
        writer = _RowWriter(
            segments, spec, locations, evict, self._segment_bytes // spec.row_bytes, self._segment_seconds
        )
        writer.write_all([*missing], compute([*missing.values()]))

    @contextmanager
    def _lock(self, address: str, on_wait: Callable[[], None]) -> Iterator[None]:
        with translate_write_errors(self._folder):
            (self._folder / ".locks").mkdir(parents=True, exist_ok=True)
            lock = eviction.address_lock(self._folder, address)
            try:
                lock.acquire(timeout=0)
            except Timeout:
                on_wait()
                lock.acquire()
        try:
            with translate_write_errors(self._folder):
                # After locking: the previous holder may have removed the folder.
                (self._folder / address).mkdir(exist_ok=True)
            yield
        finally:
            lock.release()


class _RowWriter:
    """Writes rows to consecutive segments and adds them to `locations`. The caller must hold the address lock.

    `evict(count)` is called to free space for `count` rows.
    """

    def __init__(
        self,
        segments: SegmentFolder,
        spec: RowSpec,
        locations: dict[str, RowLocation],
        evict: Callable[[int], None],
        segment_rows: int,
        segment_seconds: float,
    ) -> None:
        self._segments, self._spec, self._locations, self._evict = segments, spec, locations, evict
        self._segment_rows, self._segment_seconds = max(1, segment_rows), segment_seconds
        self._writer: SegmentWriter | None = None
        self._created = 0.0

    def write_all(self, keys: Sequence[str], batches: Iterator[Tensor]) -> None:
        """Writes one row for each key.

        Raises:
            StoreError: A segment cannot be written; finished segments remain in the store.
            ValueError: The number, shape or dtype of the rows is wrong.
        """
        done = 0
        try:
            for batch in batches:
                rows = to_bytes(batch, self._spec)
                if done + len(rows) > len(keys):
                    raise ValueError(f"expected {len(keys)} rows, but more were computed")
                self._write(keys[done : done + len(rows)], rows, len(keys) - done)
                done += len(rows)
            if done < len(keys):
                raise ValueError(f"expected {len(keys)} rows, but {done} were computed")
        except StoreError:
            self._discard()
            raise
        except BaseException:
            # Rows computed before an interrupt or an unreadable image are valid.
            with suppress(StoreError):
                self._finish()
            raise
        self._finish()

    def _write(self, keys: Sequence[str], rows: ByteRows, remaining: int) -> None:
        while len(rows):
            writer = self._create(remaining) if self._writer is None else self._writer
            count = min(len(rows), self._segment_rows - len(writer))
            with translate_write_errors(self._segments.folder.parent):
                writer.append(keys[:count], rows[:count])
            keys, rows, remaining = keys[count:], rows[count:], remaining - count
            if len(writer) == self._segment_rows or time.monotonic() - self._created > self._segment_seconds:
                self._finish()

    def _create(self, remaining: int) -> SegmentWriter:
        # Before every segment, because other processes write to the same store.
        self._evict(min(remaining, self._segment_rows))
        with translate_write_errors(self._segments.folder.parent):
            self._writer = SegmentWriter(self._segments.next_path(), self._spec)
        self._created = time.monotonic()
        return self._writer

    def _finish(self) -> None:
        if self._writer is None:
            return
        try:
            with translate_write_errors(self._segments.folder.parent):
                segment = self._writer.finish()
        except BaseException:
            self._discard()
            raise
        self._writer = None
        self._locations |= {key: (segment, index) for index, key in enumerate(segment.keys)}

    def _discard(self) -> None:
        if self._writer is not None:
            with suppress(OSError):
                self._writer.discard()
            self._writer = None


def _disk_bytes(spec: RowSpec, count: int) -> int:
    return count * (spec.row_bytes + KEY_BYTES)
