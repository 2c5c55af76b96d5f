"""Rows come back as they were computed, and are computed once."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from transfer_platform.tensor_store import Rows, RowSpec, Store, StoreUnwritableError
from transfer_platform.tensor_store.rows import InMemoryRows, MappedRows

ADDRESS = "a0" * 32


def obtain(store: Store, source, keys: Sequence[str] | None = None) -> Rows:
    return store.get_or_compute(ADDRESS, source.layout, source.keys if keys is None else keys, source)


@pytest.fixture(params=["held", "mapped"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> type:
    """Both ways in which rows are kept at hand."""
    if request.param == "mapped":
        monkeypatch.setattr("transfer_platform.tensor_store.rows.IN_MEMORY_BYTES", 0)
        return MappedRows
    return InMemoryRows


@pytest.mark.usefixtures("three_a_file")
class TestRows:
    def test_they_are_what_was_computed_then_and_later(self, store: Store, source, kind: type) -> None:
        for _ in range(2):
            rows = obtain(store, source)
            assert isinstance(rows, kind)
            assert len(rows) == 10
            assert torch.equal(rows.take(range(10)), source.values)
        assert source.asked == [list(range(10))]

    def test_only_what_is_missing_is_computed(self, store: Store, source) -> None:
        obtain(store, source, source.keys[:4])
        changed = [*source.keys[:2], "new", *source.keys[3:5]]
        rows = obtain(store, source, changed)
        assert source.asked == [[0, 1, 2, 3], [2, 4]]
        assert torch.equal(rows.take(range(5)), source.values[:5])

    def test_a_repeated_key_is_computed_once(self, store: Store, source, kind: type) -> None:
        keys = ["x", "y", "x", "z", "y"]
        rows = obtain(store, source, keys)
        assert source.asked == [[0, 1, 3]]
        assert isinstance(rows, kind)
        assert torch.equal(rows.take(range(5)), source.values[[0, 1, 0, 3, 1]])
        assert torch.equal(obtain(store, source, keys[::-1]).take([0, 1, 4]), source.values[[1, 3, 0]])

    @pytest.mark.parametrize("indices", [[3, 3, 9], torch.tensor([3, 3, 9]), (3, 3, 9)])
    def test_any_sequence_of_indices(self, store: Store, source, kind: type, indices: Sequence[int]) -> None:
        assert torch.equal(obtain(store, source).take(indices), source.values[[3, 3, 9]])

    def test_none_are_taken(self, store: Store, source, kind: type) -> None:
        taken = obtain(store, source).take([])
        assert taken.shape == (0, 2, 3)
        assert taken.dtype == torch.float32

    @pytest.mark.parametrize("index", [10, -1])
    def test_there_is_no_such_row(self, store: Store, source, kind: type, index: int) -> None:
        with pytest.raises(IndexError):
            obtain(store, source).take([0, index])

    def test_writing_to_what_was_taken_changes_nothing(self, store: Store, source, kind: type) -> None:
        rows = obtain(store, source)
        rows.take(range(10)).zero_()
        assert torch.equal(rows.take(range(10)), source.values)
        assert torch.equal(obtain(store, source).take(range(10)), source.values)

    def test_giving_memory_back_changes_nothing(
        self, store: Store, source, kind: type, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("transfer_platform.tensor_store.rows.RESIDENT_BYTES", 0)
        rows = obtain(store, source)
        for _ in range(3):
            assert torch.equal(rows.take([7, 2]), source.values[[7, 2]])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "uint8"])
@pytest.mark.parametrize("shape", [(), (5,), (2, 3, 1)])
@pytest.mark.usefixtures("kind")
def test_every_layout(store: Store, dtype: str, shape: tuple[int, ...]) -> None:
    layout = RowSpec(shape, dtype)
    values = (torch.rand((4, *shape)) * 200).to(layout.torch_dtype)
    rows = store.get_or_compute(ADDRESS, layout, list("abcd"), lambda missing: iter([values[list(missing)]]))
    taken = rows.take([2, 0])
    assert taken.dtype == layout.torch_dtype
    assert torch.equal(taken, values[[2, 0]])
    assert rows.layout == layout


def test_no_keys_touch_no_disk(store: Store, source, folder: Path) -> None:
    rows = obtain(store, source, [])
    assert len(rows) == 0
    assert rows.take([]).shape == (0, 2, 3)
    assert source.asked == []
    assert not folder.exists()


def test_another_address_has_rows_of_its_own(store: Store, source) -> None:
    obtain(store, source)
    store.get_or_compute("b1", source.layout, source.keys, source)
    assert len(source.asked) == 2


def test_a_strided_batch_on_a_graph_is_stored(store: Store) -> None:
    values = torch.randn(4, 3, 2, requires_grad=True).transpose(1, 2)
    rows = store.get_or_compute(ADDRESS, RowSpec((2, 3), "float32"), list("abcd"), lambda _: iter([values]))
    assert torch.equal(rows.take(range(4)), values.detach())


@pytest.mark.usefixtures("three_a_file")
class TestWrongComputation:
    @pytest.mark.parametrize("size", [9, 11])
    def test_too_few_or_too_many(self, store: Store, source, size: int) -> None:
        with pytest.raises(ValueError, match=r"10 rows were asked for, but (9|more) were computed"):
            store.get_or_compute(
                ADDRESS, source.layout, source.keys, lambda _: iter([torch.zeros(size, 2, 3)])
            )

    @pytest.mark.parametrize("batch", [torch.zeros(10, 3, 2), torch.zeros(10, 2, 3, dtype=torch.float64)])
    def test_another_layout(self, store: Store, source, batch: Tensor) -> None:
        with pytest.raises(ValueError, match="do not fit"):
            store.get_or_compute(ADDRESS, source.layout, source.keys, lambda _: iter([batch]))

    def test_what_was_computed_before_an_error_stays(self, store: Store, source, folder: Path) -> None:
        def interrupted(missing: Sequence[int]) -> Iterator[Tensor]:
            yield source.values[:4]
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            store.get_or_compute(ADDRESS, source.layout, source.keys, interrupted)
        assert torch.equal(obtain(store, source).take(range(10)), source.values)
        assert source.asked == [[4, 5, 6, 7, 8, 9]]
        assert not list(folder.rglob("*.part"))

    def test_its_own_errors_of_the_disk_are_not_the_stores(self, store: Store, source) -> None:
        def unreadable(missing: Sequence[int]) -> Iterator[Tensor]:
            raise FileNotFoundError("ants/1.jpg")
            yield

        with pytest.raises(FileNotFoundError, match=r"ants/1\.jpg"):
            store.get_or_compute(ADDRESS, source.layout, source.keys, unreadable)


def test_an_address_cannot_leave_the_folder(store: Store, source) -> None:
    with pytest.raises(ValueError, match="an address is a digest"):
        store.get_or_compute("../x", source.layout, source.keys, source)


def test_a_slow_computation_finishes_a_file_now_and_then(
    store: Store, source, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transfer_platform.tensor_store.store.SEGMENT_SECONDS", -1.0)
    obtain(store, source)
    assert len(list(folder.rglob("*.rows"))) == 4  # batches of three


class TestFolderThatTakesNoFiles:
    def test_it_says_so(self, tmp_path: Path, source) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(StoreUnwritableError, match=r"cannot be written to.*PLATFORM_CACHE"):
            obtain(Store(tmp_path / "file" / "features", 1 << 20), source)

    def test_what_is_stored_can_be_read(self, store: Store, source, monkeypatch: pytest.MonkeyPatch) -> None:
        obtain(store, source)

        def refuse(*_: object, **__: object) -> None:
            raise PermissionError(13, "Permission denied")

        # Root may write anywhere, so that permissions of the folder would not be a test.
        monkeypatch.setattr(os, "utime", refuse)
        monkeypatch.setattr(Path, "mkdir", refuse)
        assert torch.equal(obtain(store, source).take(range(10)), source.values)
        with pytest.raises(StoreUnwritableError):
            obtain(store, source, [*source.keys, "new"])


def test_too_many_open_files_are_not_taken_for_missing_rows(
    store: Store, source, monkeypatch: pytest.MonkeyPatch
) -> None:
    obtain(store, source)

    def refuse(*_: object, **__: object) -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(Exception, match="ulimit -n"):
        obtain(store, source)


@pytest.mark.parametrize(("shape", "dtype"), [((0, 3), "float32"), ((3,), "float33"), ((3,), "nn")])
def test_layouts_that_are_none(shape: tuple[int, ...], dtype: str) -> None:
    with pytest.raises(ValueError):
        RowSpec(shape, dtype)
