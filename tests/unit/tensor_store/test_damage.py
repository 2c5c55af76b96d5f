"""Damaged rows are computed again, and never returned."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from transfer_platform.tensor_store.segment import RowSpec
from transfer_platform.tensor_store.store import Store

ADDRESS = "a0" * 32
ROW = 24
START = 64

pytestmark = pytest.mark.parametrize("store_options", [{"segment_bytes": 3 * ROW}], ids=["small segments"])


def flip(position: int) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        content = bytearray(path.read_bytes())
        content[position] ^= 1
        path.write_bytes(content)

    return damage


def truncate(size: int) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        path.write_bytes(path.read_bytes()[:size])

    return damage


def check_again(store: Store, source) -> list[int]:
    """Requests all rows, which must be right; returns those that were computed, in one call at most."""
    source.requested.clear()
    for _ in range(2):
        rows = store.get_or_compute(ADDRESS, source.spec, source.keys, source)
        assert torch.equal(rows.take(range(len(rows))), source.values)
    assert len(source.requested) <= 1
    return source.requested[0] if source.requested else []


@pytest.fixture
def second(store: Store, source, folder: Path) -> Path:
    """The second of four files: rows 3, 4 and 5."""
    assert check_again(store, source) == list(range(10))
    return folder / ADDRESS / "000002.rows"


def test_one_row(second: Path, store: Store, source) -> None:
    flip(START + ROW + 5)(second)
    assert check_again(store, source) == [4]


@pytest.mark.parametrize(
    "damage",
    [flip(0), flip(START + 3 * ROW + 4), flip(-30), flip(-24), flip(-10), flip(-1)]
    + [truncate(size) for size in (0, 10, START, START + ROW, -1)]
    + [lambda path: path.write_bytes(bytes(path.stat().st_size))],
)
def test_the_whole_file(second: Path, store: Store, source, damage: Callable[[Path], None]) -> None:
    damage(second)
    assert check_again(store, source) == [3, 4, 5]


def test_a_flipped_bit_is_noticed_wherever_it_is(second: Path, store: Store, source) -> None:
    whole = second.read_bytes()
    for position in range(0, len(whole), 7):
        flip(position)(second)
        rows = store.get_or_compute(ADDRESS, source.spec, source.keys, source)
        assert torch.equal(rows.take(range(10)), source.values)
        for later in second.parent.glob("*.rows"):
            if later.stem > "000004":
                later.unlink()
        second.write_bytes(whole)


def test_a_removed_file(second: Path, store: Store, source) -> None:
    second.unlink()
    assert check_again(store, source) == [3, 4, 5]


def test_a_half_written_file_of_a_dead_writer_is_removed(second: Path, store: Store, source) -> None:
    part = second.with_name("000002.rows.part")
    second.rename(part)
    other = second.parents[1] / "bb" / "000001.rows.part"
    other.parent.mkdir()
    other.write_bytes(b"half")
    assert check_again(store, source) == [3, 4, 5]
    assert not part.exists()
    assert not other.exists()


def test_foreign_files_are_left_alone(second: Path, store: Store, source) -> None:
    foreign = second.with_name("notes.rows")
    foreign.write_text("mine")
    second.unlink()
    check_again(store, source)
    assert foreign.read_text() == "mine"


def test_another_spec_counts_as_damage(second: Path, store: Store, source) -> None:
    values = source.values.reshape(10, 6)
    rows = store.get_or_compute(
        ADDRESS, RowSpec((6,), "float32"), source.keys, lambda missing: iter([values[list(missing)]])
    )
    assert torch.equal(rows.take(range(10)), values)
    assert check_again(store, source) == list(range(10))
