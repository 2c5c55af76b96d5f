"""Splits of single images: what they depend on, and what they do not."""

from __future__ import annotations

import hashlib
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from transfer_platform.data.catalog import ImageRecord
from transfer_platform.data.hash_split import assign_folds, split_by_hash
from transfer_platform.data.splits import Splits, fingerprint
from transfer_platform.errors import SplitError

WriteImage = Callable[[Path, str], None]
CLASSES = ("ant", "bee", "cat")


def images(per_class: int, start: int = 0, folder: str = "a") -> list[ImageRecord]:
    return [
        ImageRecord(f"/{folder}/{label}/{number}", label, hashlib.sha256(f"{label}{number}".encode()).hexdigest())
        for label in CLASSES
        for number in range(start, start + per_class)
    ]


def content(division: dict[str, tuple[ImageRecord, ...]]) -> dict[str, list[tuple[str, str]]]:
    return {role: [(each.label, each.sha256) for each in side] for role, side in division.items()}


def make_images(**counts: int) -> tuple[ImageRecord, ...]:
    """Returns images of each label in the order of `Splits`."""
    made = [
        ImageRecord(f"/a/{label}/{number}", label, hashlib.sha256(f"{label}{number}".encode()).hexdigest())
        for label, count in counts.items()
        for number in range(count)
    ]
    return tuple(sorted(made, key=lambda each: (each.label, each.sha256)))


@given(st.permutations(images(12)), st.integers(0, 1000))
def test_order_and_names_do_not_matter(shuffled: list[ImageRecord], seed: int) -> None:
    renamed = [ImageRecord(f"/b/{i}", each.label, each.sha256) for i, each in enumerate(shuffled)]
    fractions = {"validation": 0.25}
    assert content(split_by_hash(images(12), fractions, seed)) == content(split_by_hash(renamed, fractions, seed))


@given(st.integers(1, 60), st.integers(0, 1000))
def test_once_test_stays_test_when_the_folder_grows(growth: int, seed: int) -> None:
    fractions = {"test": 0.5, "validation": 0.2}
    before = split_by_hash(images(40), fractions, seed)
    after = split_by_hash(images(40 + growth), fractions, seed)
    old = {each.sha256 for side in before.values() for each in side}
    assert {each.sha256 for each in after["test"]} & old == {each.sha256 for each in before["test"]}


@given(st.integers(4, 60), st.floats(0.02, 0.7), st.integers(0, 1000))
def test_validation_has_exactly_its_share_of_every_class(count: int, fraction: float, seed: int) -> None:
    division = split_by_hash(images(count), {"validation": fraction}, seed)
    for label in CLASSES:
        taken = sum(each.label == label for each in division["validation"])
        assert taken == max(1, round(fraction * count))
    assert len(division["train"]) + len(division["validation"]) == 3 * count


@given(st.data(), st.integers(0, 1000))
def test_identical_bytes_stay_together(data: st.DataObject, seed: int) -> None:
    originals = images(20)
    copied = data.draw(st.lists(st.sampled_from(originals), max_size=20))
    labels = data.draw(st.lists(st.sampled_from(CLASSES), min_size=len(copied), max_size=len(copied)))
    copies = [
        ImageRecord(f"/c/{i}", label, each.sha256) for i, (each, label) in enumerate(zip(copied, labels, strict=True))
    ]
    division = split_by_hash([*originals, *copies], {"test": 0.4, "validation": 0.2}, seed)
    sides = [{each.sha256 for each in side} for side in division.values()]
    assert sum(map(len, sides)) == len(set.union(*sides)) == 60
    assert sum(map(len, division.values())) == 60 + len(copies)


def test_the_rule_for_test_is_the_documented_one() -> None:
    division = split_by_hash(images(50), {"test": 0.3}, 7)
    for role, side in division.items():
        for each in side:
            draw = int(hashlib.sha256(f"7:{each.sha256}".encode()).hexdigest(), 16) / 2**256
            assert (draw < 0.3) == (role == "test")


def test_splits_never_change_between_versions_of_this_code() -> None:
    division = split_by_hash(images(30), {"test": 0.3, "validation": 0.2}, 0)
    splits = Splits(CLASSES, **division)
    assert {role: len(side) for role, side in splits.by_name.items()} == {"train": 50, "validation": 12, "test": 28}
    assert splits.fingerprint == "3c539aea60ee66914e889c76cd43b8f1a7a7c898c564deaac0384256862c84b9"


def test_seeds_change_the_split() -> None:
    divisions = {fingerprint(split_by_hash(images(30), {"validation": 0.3}, seed)["train"]) for seed in range(5)}
    assert len(divisions) == 5


def test_a_class_that_only_repeats_another_is_an_error() -> None:
    twins = [ImageRecord("/x", "dog", each.sha256) for each in images(4) if each.label == "ant"]
    with pytest.raises(SplitError, match="every image of 'dog' is an exact duplicate of an image in another class"):
        split_by_hash([*images(4), *twins], {"validation": 0.3}, 0)


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.5, 20.0])
def test_a_fraction_has_bounds(fraction: float) -> None:
    with pytest.raises(SplitError, match="a fraction must be strictly between 0 and 1"):
        split_by_hash(images(4), {"test": fraction}, 0)


def test_fingerprints_tell_content_and_label_and_count_but_not_path() -> None:
    here, there = images(3), images(3, folder="elsewhere")
    assert fingerprint(here) == fingerprint(reversed(there))
    relabeled = [ImageRecord(here[0].file, "bee", here[0].sha256), *here[1:]]
    assert len({fingerprint(each) for each in (here, here[1:], [*here, here[0]], relabeled)}) == 4
    known = hashlib.sha256(f"ant\0{'0' * 64}\nbee\0{'1' * 64}\n".encode()).hexdigest()
    assert fingerprint([ImageRecord("", "bee", "1" * 64), ImageRecord("", "ant", "0" * 64)]) == known


def test_the_whole_fingerprint_depends_on_the_split_of_an_image() -> None:
    first, second, third = images(1), images(1, 1), images(1, 2)
    one = Splits(CLASSES, tuple(first), tuple(second), tuple(third))
    other = Splits(CLASSES, tuple(first), tuple(third), tuple(second))
    assert one.fingerprint != other.fingerprint
    assert one.fingerprints["validation"] == other.fingerprints["test"]


@pytest.fixture
def root(isolated: Path, write_image: WriteImage) -> Path:
    for split, first in (("train", 0), ("val", 10)):
        for label in ("ant", "bee"):
            for number in range(first, first + 6):
                write_image(isolated / "set" / split / label / f"{number}.png", f"{label}{number}")
    return isolated / "set"


def test_folders_and_fractions_combine(root: Path, splits_of) -> None:
    splits = splits_of(root, "train", 0.34, "val")
    assert [len(side) for side in splits.by_name.values()] == [8, 4, 12]
    splits = splits_of(root, "train", "val", 0.6)
    assert len(splits.validation) == 12
    assert len(splits.train) + len(splits.test) == 12
    splits = splits_of(root / "train", ".", 0.34, 0.5)
    assert sum(len(side) for side in splits.by_name.values()) == 12


def test_moved_and_renamed_sources_give_the_same_splits(root: Path, splits_of) -> None:
    before = splits_of(root, "train", 0.34, "val")
    for number, path in enumerate(sorted(root.rglob("*.png"), reverse=True)):
        path.rename(path.with_name(f"renamed{number}.jpg"))
    moved = root.rename(root.with_name("moved"))
    after = splits_of(moved, "train", 0.34, "val")
    assert after.fingerprint == before.fingerprint
    assert [each.sha256 for each in after.train] == [each.sha256 for each in before.train]


def test_a_class_that_a_split_lacks_or_has_in_excess_is_named(root: Path, splits_of) -> None:
    (root / "val" / "bee").rename(root / "val" / "bees")
    with pytest.raises(SplitError) as raised:
        splits_of(root, "train", 0.34, "val")
    assert "test is missing the class 'bee'" in str(raised.value)
    assert "test has the class 'bees', which is not in train; did you mean 'bee'?" in str(raised.value)


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        ("trian", "val", "did you mean 'train'"),
        ("train", "set/val", "but .* has no such folder"),
        ("..", "val", "must be a folder inside the source"),
        ("/tmp", "val", "must be a folder inside the source"),
        (".", "val", "each split needs its own folder"),
        ("train", "train", "each split needs its own folder"),
    ],
)
def test_folders_that_cannot_be_splits(root: Path, train: str, test: str, message: str, splits_of) -> None:
    with pytest.raises(SplitError, match=message):
        splits_of(root, train, 0.34, test)


def test_a_folder_one_level_too_high_is_suggested(root: Path, splits_of) -> None:
    with pytest.raises(SplitError, match="did you mean 'set/train'"):
        splits_of(root.parent, "train", 0.34, "val")


@pytest.mark.parametrize(("count", "end"), [(20, ""), (25, "  ... and 5 more\n")])
def test_the_first_images_that_two_folders_share_are_listed(root: Path, splits_of, count: int, end: str) -> None:
    """As many as of all other problems of files."""
    for number in range(count):
        path = root / "train" / "ant" / f"shared {number}.png"
        Image.new("RGB", (8, 8), (number, 7, 7)).save(path)
        shutil.copy(path, root / "val" / "ant" / path.name)
    with pytest.raises(SplitError, match=f"{count} images are in more than one split") as caught:
        splits_of(root, "train", "val", 0.6)
    assert str(caught.value).count("train: ") == 20
    assert end in str(caught.value)
    assert ("more\n" in str(caught.value)) is bool(end)


def test_images_that_two_folders_share_are_named(root: Path, splits_of) -> None:
    twin = root / "val" / "ant" / "twin.png"
    original = root / "train" / "ant" / "0.png"
    twin.write_bytes(original.read_bytes())
    with pytest.raises(SplitError, match="1 image is in more than one split") as caught:
        splits_of(root, "train", "val", 0.6)
    assert f"train: {original}, validation: {twin}" in str(caught.value)
    assert splits_of(root, "train", "val", 0.6, exclude=["val/ant/twin.png"])


def test_folds_hold_every_training_image_out_once_and_classes_evenly() -> None:
    train = make_images(ants=23, bees=11)
    folds = assign_folds(train, 5, split_seed=0)
    for label, count in (("ants", 23), ("bees", 11)):
        sizes = Counter(fold for image, fold in zip(train, folds, strict=True) if image.label == label)
        assert sorted(sizes) == [0, 1, 2, 3, 4]
        assert max(sizes.values()) - min(sizes.values()) <= 1
        assert sizes.total() == count
    assert max(Counter(folds).values()) - min(Counter(folds).values()) <= 1


def test_folds_do_not_depend_on_names_and_duplicates_stay_together() -> None:
    train = make_images(ants=12, bees=12)
    folds = dict(zip((p.sha256 for p in train), assign_folds(train, 3, 7), strict=True))
    renamed = tuple(replace(p, file=f"elsewhere/{p.path.name[::-1]}") for p in train)
    doubled = tuple(sorted((*renamed, *renamed), key=lambda p: (p.label, p.sha256)))
    again = assign_folds(doubled, 3, 7)
    assert all(folds[p.sha256] == fold for p, fold in zip(doubled, again, strict=True))
    assert list(folds.values()) != list(assign_folds(train, 3, 8))
