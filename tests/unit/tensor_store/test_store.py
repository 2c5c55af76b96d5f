"""Rows are returned as they were computed, and are computed once."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from transfer_platform.tensor_store.errors import StoreUnwritableError
from transfer_platform.tensor_store.rows import InMemoryRows, MappedRows, Rows
from transfer_platform.tensor_store.segment import RowSpec
from transfer_platform.tensor_store.store import Store

ADDRESS = "a0" * 32
SMALL_SEGMENTS = {"segment_bytes": 3 * 24}
"""Three rows of `source` in a segment."""
MAPPED = {"in_memory_bytes": 0}


def rows_of(store: Store, source, keys: Sequence[str] | None = None) -> Rows:
    return store.get_or_compute(ADDRESS, source.spec, source.keys if keys is None else keys, source)


@pytest.fixture
def kind(store_options: dict[str, Any]) -> type:
    return MappedRows if "in_memory_bytes" in store_options else InMemoryRows


@pytest.mark.parametrize("store_options", [SMALL_SEGMENTS, SMALL_SEGMENTS | MAPPED], ids=["in memory", "mapped"])
class TestRows:
    def test_rows_equal_the_computed_ones_now_and_later(self, store: Store, source, kind: type) -> None:
        for _ in range(2):
            rows = rows_of(store, source)
            assert isinstance(rows, kind)
            assert len(rows) == 10
            assert torch.equal(rows.take(range(10)), source.values)
        assert source.requested == [list(range(10))]

    def test_only_what_is_missing_is_computed(self, store: Store, source) -> None:
        rows_of(store, source, source.keys[:4])
        changed = [*source.keys[:2], "new", *source.keys[3:5]]
        rows = rows_of(store, source, changed)
        assert source.requested == [[0, 1, 2, 3], [2, 4]]
        assert torch.equal(rows.take(range(5)), source.values[:5])

    def test_a_repeated_key_is_computed_once(self, store: Store, source, kind: type) -> None:
        keys = ["x", "y", "x", "z", "y"]
        rows = rows_of(store, source, keys)
        assert source.requested == [[0, 1, 3]]
        assert isinstance(rows, kind)
        assert torch.equal(rows.take(range(5)), source.values[[0, 1, 0, 3, 1]])
        assert torch.equal(rows_of(store, source, keys[::-1]).take([0, 1, 4]), source.values[[1, 3, 0]])

    @pytest.mark.parametrize("indices", [[3, 3, 9], torch.tensor([3, 3, 9]), (3, 3, 9)])
    def test_any_sequence_of_indices(self, store: Store, source, indices: Sequence[int]) -> None:
        assert torch.equal(rows_of(store, source).take(indices), source.values[[3, 3, 9]])

    def test_no_rows_are_taken(self, store: Store, source) -> None:
        taken = rows_of(store, source).take([])
        assert taken.shape == (0, 2, 3)
        assert taken.dtype == torch.float32

    @pytest.mark.parametrize("index", [10, -1])
    def test_an_index_out_of_range(self, store: Store, source, index: int) -> None:
        with pytest.raises(IndexError):
            rows_of(store, source).take([0, index])

    def test_rows_are_copies(self, store: Store, source) -> None:
        rows = rows_of(store, source)
        rows.take(range(10)).zero_()
        assert torch.equal(rows.take(range(10)), source.values)
        assert torch.equal(rows_of(store, source).take(range(10)), source.values)

    def test_dropping_mapped_pages_changes_nothing(self, folder: Path, store_options: dict[str, Any], source) -> None:
        rows = rows_of(Store(folder, 100 << 20, resident_bytes=0, **store_options), source)
        for _ in range(3):
            assert torch.equal(rows.take([7, 2]), source.values[[7, 2]])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "uint8"])
@pytest.mark.parametrize("shape", [(), (5,), (2, 3, 1)])
@pytest.mark.parametrize("store_options", [{}, MAPPED], ids=["in memory", "mapped"])
def test_every_spec(store: Store, dtype: str, shape: tuple[int, ...]) -> None:
    spec = RowSpec(shape, dtype)
    values = (torch.rand((4, *shape)) * 200).to(spec.torch_dtype)
    rows = store.get_or_compute(ADDRESS, spec, list("abcd"), lambda missing: iter([values[list(missing)]]))
    taken = rows.take([2, 0])
    assert taken.dtype == spec.torch_dtype
    assert torch.equal(taken, values[[2, 0]])
    assert rows.spec == spec


def test_no_keys_touch_no_disk(store: Store, source, folder: Path) -> None:
    rows = rows_of(store, source, [])
    assert len(rows) == 0
    assert rows.take([]).shape == (0, 2, 3)
    assert source.requested == []
    assert not folder.exists()


def test_another_address_has_rows_of_its_own(store: Store, source) -> None:
    rows_of(store, source)
    store.get_or_compute("b1", source.spec, source.keys, source)
    assert len(source.requested) == 2


def test_a_strided_batch_on_a_graph_is_stored(store: Store) -> None:
    values = torch.randn(4, 3, 2, requires_grad=True).transpose(1, 2)
    rows = store.get_or_compute(ADDRESS, RowSpec((2, 3), "float32"), list("abcd"), lambda _: iter([values]))
    assert torch.equal(rows.take(range(4)), values.detach())


@pytest.mark.parametrize("store_options", [SMALL_SEGMENTS], ids=["small segments"])
class TestWrongComputation:
    @pytest.mark.parametrize("size", [9, 11])
    def test_too_few_or_too_many(self, store: Store, source, size: int) -> None:
        with pytest.raises(ValueError, match=r"expected 10 rows, but (9|more) were computed"):
            store.get_or_compute(ADDRESS, source.spec, source.keys, lambda _: iter([torch.zeros(size, 2, 3)]))

    @pytest.mark.parametrize("batch", [torch.zeros(10, 3, 2), torch.zeros(10, 2, 3, dtype=torch.float64)])
    def test_another_spec(self, store: Store, source, batch: Tensor) -> None:
        with pytest.raises(ValueError, match="do not match"):
            store.get_or_compute(ADDRESS, source.spec, source.keys, lambda _: iter([batch]))

    def test_rows_computed_before_an_error_remain_stored(self, store: Store, source, folder: Path) -> None:
        def interrupted(missing: Sequence[int]) -> Iterator[Tensor]:
            yield source.values[:4]
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            store.get_or_compute(ADDRESS, source.spec, source.keys, interrupted)
        assert torch.equal(rows_of(store, source).take(range(10)), source.values)
        assert source.requested == [[4, 5, 6, 7, 8, 9]]
        assert not list(folder.rglob("*.part"))

    def test_its_own_disk_errors_propagate(self, store: Store, source) -> None:
        def unreadable(missing: Sequence[int]) -> Iterator[Tensor]:
            raise FileNotFoundError("ants/1.jpg")
            yield

        with pytest.raises(FileNotFoundError, match=r"ants/1\.jpg"):
            store.get_or_compute(ADDRESS, source.spec, source.keys, unreadable)


def test_an_address_cannot_leave_the_folder(store: Store, source) -> None:
    with pytest.raises(ValueError, match="an address must be a digest"):
        store.get_or_compute("../x", source.spec, source.keys, source)


@pytest.mark.parametrize("store_options", [{"segment_seconds": -1.0}])
def test_a_slow_computation_finishes_small_segments(store: Store, source, folder: Path) -> None:
    rows_of(store, source)
    assert len(list(folder.rglob("*.rows"))) == 4  # batches of three


class TestUnwritableFolder:
    def test_the_error_names_the_remedy(self, tmp_path: Path, source) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(StoreUnwritableError, match=r"cannot write to the cache.*PLATFORM_CACHE"):
            rows_of(Store(tmp_path / "file" / "features", 1 << 20), source)

    def test_stored_rows_can_be_read(self, store: Store, source, monkeypatch: pytest.MonkeyPatch) -> None:
        rows_of(store, source)

        def refuse(*_: object, **__: object) -> None:
            raise PermissionError(13, "Permission denied")

        # Root may write anywhere, so that permissions of the folder would not be a test.
        monkeypatch.setattr(os, "utime", refuse)
        monkeypatch.setattr(Path, "mkdir", refuse)
        assert torch.equal(rows_of(store, source).take(range(10)), source.values)
        with pytest.raises(StoreUnwritableError):
            rows_of(store, source, [*source.keys, "new"])


def test_too_many_open_files_are_not_missing_rows(store: Store, source, monkeypatch: pytest.MonkeyPatch) -> None:
    rows_of(store, source)

    def refuse(*_: object, **__: object) -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(Exception, match="ulimit -n"):
        rows_of(store, source)


@pytest.mark.parametrize(("shape", "dtype"), [((0, 3), "float32"), ((3,), "float33"), ((3,), "nn")])
def test_invalid_specs(shape: tuple[int, ...], dtype: str) -> None:
    with pytest.raises(ValueError):
        RowSpec(shape, dtype)
