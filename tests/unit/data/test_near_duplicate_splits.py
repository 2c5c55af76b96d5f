"""Near duplicates: the platform keeps them in one split and one fold wherever that is possible."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from transfer_platform.data.catalog import ImageRecord, sort_by_content
from transfer_platform.data.dataset import open_dataset
from transfer_platform.data.group_split import assign_group_folds, split_by_group
from transfer_platform.data.hash_split import assign_folds, split_by_hash
from transfer_platform.data.splits import Splits
from transfer_platform.inspection.preflight import preflight, require_valid
from transfer_platform.recipe.schema import DatasetConfig, FoldsConfig, SplitsConfig

BOTH = {"test": 0.2, "validation": 0.2}
SEEDS = st.integers(0, 1000)
SETS = st.lists(st.lists(st.integers(1, 6), min_size=3, max_size=12), min_size=2, max_size=4)
"""Sizes of the sets of near duplicates of each class."""


def make(sets: Sequence[Sequence[int]], prefix: str = "") -> tuple[list[ImageRecord], list[list[str]]]:
    """Returns the images of classes with so many near duplicates in each set, and the digests of the sets."""
    images, similar = [], []
    for label, sizes in enumerate(sets):
        for number, size in enumerate(sizes):
            names = [f"{prefix}{label} {number} {each}" for each in range(size)]
            own = [ImageRecord(f"/{name}", str(label), hashlib.sha256(name.encode()).hexdigest()) for name in names]
            images += own
            similar += [[image.sha256 for image in own]] if size > 1 else []
    return images, similar


def places(division: dict[str, tuple[ImageRecord, ...]]) -> dict[str, str]:
    return {image.sha256: split for split, images in division.items() for image in images}


@given(SETS, SEEDS, st.randoms())
def test_near_duplicates_stay_together_in_splits_and_folds(sets, seed, draw) -> None:
    images, similar = make(sets)
    place = places(split_by_hash(images, BOTH, seed, similar))
    assert all(len({place[digest] for digest in digests}) == 1 for digests in similar)
    assert {(image.label, place[image.sha256]) for image in images} == {
        (str(label), split) for label in range(len(sets)) for split in ("train", "test", "validation")
    }
    train = sort_by_content(images)
    fold = dict(zip((image.sha256 for image in train), assign_folds(train, 3, seed, similar), strict=True))
    totals = Counter(image.label for image in images)
    label_of = {image.sha256: image.label for image in images}
    whole = [own for own in similar if 3 * len(own) <= 2 * totals[label_of[own[0]]]]
    assert all(len({fold[digest] for digest in digests}) == 1 for digests in whole)
    assert all(
        len({fold[image.sha256] for image in images if image.label == str(label)}) > 1 for label in range(len(sets))
    )
    shuffled = [replace(image, file=f"/else/{number}") for number, image in enumerate(images)]
    draw.shuffle(shuffled)
    draw.shuffle(similar)
    assert places(split_by_hash(shuffled, BOTH, seed, similar)) == place


@given(SETS, SEEDS)
def test_without_near_duplicates_nothing_changes(sets, seed) -> None:
    images, _ = make(sets)
    others = [["0" * 64, "1" * 64], [images[0].sha256]]
    assert split_by_hash(images, BOTH, seed, others) == split_by_hash(images, BOTH, seed)
    train = sort_by_content(images)
    assert assign_folds(train, 3, seed, others) == assign_folds(train, 3, seed)


def test_series_of_frames_do_not_fill_the_test_split() -> None:
    """The smallest hash of 20 frames is almost always below the fraction."""
    images, similar = make([[20] * 25, [5] * 100])
    for seed in range(5):
        division = split_by_hash(images, BOTH, seed, similar)
        for label in ("0", "1"):
            shares = {split: sum(each.label == label for each in own) / 500 for split, own in division.items()}
            assert shares == pytest.approx({"test": 0.2, "validation": 0.16, "train": 0.64}, abs=0.04)


def test_a_large_set_is_in_train_and_the_other_images_are_divided() -> None:
    images, similar = make([[90, *[1] * 30], [1] * 50])
    place = places(split_by_hash(images, BOTH, 0, similar))
    assert place[similar[0][0]] == "train"
    alone = Counter(place[image.sha256] for image in images[90:])
    assert alone == Counter(places(split_by_hash(images[90:], BOTH, 0)).values())


@given(st.integers(2, 40), SEEDS, st.floats(0.01, 0.99))
def test_a_class_of_near_duplicates_only_is_divided(count, seed, fraction) -> None:
    images, similar = make([[count], [1] * 9])
    for fractions in ({"test": fraction}, {"validation": fraction}):
        place = places(split_by_hash(images, fractions, seed, similar))
        assert len({place[digest] for digest in similar[0]}) == 2
    assert len(set(assign_folds(sort_by_content(images), 2, seed, similar)[:count])) == 2


@pytest.mark.parametrize("others", [0, 1, 5, 40])
@pytest.mark.parametrize("grouped", [False, True])
def test_a_class_of_near_duplicates_and_few_others_is_divided(others: int, grouped: bool) -> None:
    images, similar = make([[400, *[1] * others], [1] * 400])
    images = [replace(image, group=f"P{number}") for number, image in enumerate(images)] if grouped else images
    split, folds_of = (split_by_group, assign_group_folds) if grouped else (split_by_hash, assign_folds)
    for fractions in (BOTH, {"validation": 0.2}):
        division = split(images, fractions, 0, similar)
        for part in fractions:
            count = sum(image.label == "0" for image in division[part])
            assert 0.1 * (400 + others) < count < 0.3 * (400 + others)
    train = sort_by_content(images)
    folds = Counter(
        fold for image, fold in zip(train, folds_of(train, 5, 0, similar), strict=True) if image.label == "0"
    )
    assert max(folds.values()) < 0.3 * (400 + others)


def test_near_duplicates_that_would_leave_a_class_out_are_divided() -> None:
    """Three classes of two images, each like one of the next class: three units, an odd circle."""
    images, _ = make([[1, 1]] * 3)
    one = {(image.label, image.file[-3]): image.sha256 for image in images}
    similar = [[one[str(each), "1"], one[str((each + 1) % 3), "0"]] for each in range(3)]
    division = split_by_hash(images, {"test": 0.5}, 0, similar)
    assert all({image.label for image in own} == {"0", "1", "2"} for own in division.values())


@given(st.lists(st.booleans(), min_size=10, max_size=40), SEEDS)
def test_a_test_image_stays_in_test_when_near_duplicates_are_added(doubled, seed) -> None:
    """Pairs fit into the fraction of a large class."""
    images, _ = make([[1] * 200, [1] * 200])
    before = places(split_by_hash(images, {"test": 0.2}, seed))
    chosen = [image for image, is_doubled in zip(images, doubled, strict=False) if is_doubled]
    copies = [replace(image, sha256=hashlib.sha256(image.sha256.encode()).hexdigest()) for image in chosen]
    similar = [[image.sha256, copy.sha256] for image, copy in zip(chosen, copies, strict=True)]
    after = places(split_by_hash([*images, *copies], {"test": 0.2}, seed, similar))
    moved = [digest for digest, split in before.items() if split == "test" and after[digest] != "test"]
    joined = {digest for digests in similar for digest in digests}
    assert set(moved) <= joined
    assert len(moved) <= len(joined) / 4


@given(SEEDS)
def test_groups_that_contain_near_duplicates_stay_together(seed) -> None:
    images, _ = make([[1] * 60, [1] * 60])
    images = [replace(image, group=f"P{number % 30}") for number, image in enumerate(images)]
    pairs = [(images[0], images[1]), (images[2], images[3]), (images[3], images[4])]
    similar = [[one.sha256, other.sha256] for one, other in pairs]
    group = {image.group: split for split, own in split_by_group(images, BOTH, seed, similar).items() for image in own}
    assert all(group[one.group] == group[other.group] for one, other in pairs)
    train = sort_by_content(images)
    fold = {image.group: own for image, own in zip(train, assign_group_folds(train, 3, seed, similar), strict=True)}
    assert all(fold[one.group] == fold[other.group] for one, other in pairs)


@pytest.fixture
def photos(isolated: Path) -> Path:
    """Two classes of 30 scenes, each as a PNG and as a smaller JPEG."""
    generator = np.random.default_rng(0)
    for label in ("ant", "bee"):
        (isolated / "photos" / label).mkdir(parents=True)
        for number in range(30):
            scene = Image.fromarray(generator.integers(0, 256, (8, 8, 3)).astype(np.uint8)).resize((96, 96))
            scene.save(isolated / "photos" / label / f"{number}.png")
            scene.resize((64, 64)).save(isolated / "photos" / label / f"{number} small.jpg", quality=85)
    return isolated / "photos"


def opened(folder: Path, **options: object) -> tuple[Splits, Counter[str]]:
    found, splits = preflight(open_dataset(DatasetConfig(source=str(folder), **options), Path()))
    return require_valid(found, splits), Counter(finding.kind for finding in found.findings)


def test_the_platform_does_not_divide_near_duplicates(photos) -> None:
    splits, found = opened(photos)
    assert found["near duplicate"] == 60
    assert "near duplicate across splits" not in found
    assert 15 < len(splits.test) < 35


def test_a_recipe_can_divide_near_duplicates(photos) -> None:
    _, found = opened(photos, group_near_duplicates=False)
    assert found["near duplicate across splits"] > 10


def test_near_duplicates_are_in_one_fold_and_part_of_the_fingerprint(photos) -> None:
    folds = SplitsConfig(validation=FoldsConfig(folds=3), test=0.2)
    splits, _ = opened(photos, splits=folds)
    fold_of: dict[str, set[int]] = {}
    for image, fold in zip(splits.train, splits.folds, strict=True):
        fold_of.setdefault(image.label + image.path.stem.split()[0], set()).add(fold)
    assert all(map(len, fold_of.values()))
    assert max(map(len, fold_of.values())) == 1
    assert replace(splits, folds=splits.folds[::-1]).fingerprint != splits.fingerprint


def test_near_duplicates_in_folders_of_the_user_are_a_warning(photos) -> None:
    for label in ("ant", "bee"):
        for split, pattern in (("test", "* small.jpg"), ("train", "*.png")):
            (photos / split / label).mkdir(parents=True)
            for file in (photos / label).glob(pattern):
                file.rename(photos / split / label / file.name)
        (photos / label).rmdir()
    splits, found = opened(photos)
    assert found["near duplicate across splits"] == 60
    assert len(splits.test) == 60


def test_near_duplicates_in_a_manifest_are_kept_together_unless_it_divides_them(photos) -> None:
    rows = [f"{file.relative_to(photos)},{file.parent.name}" for file in sorted(photos.rglob("*.*"))]
    manifest = photos / "photos.csv"
    manifest.write_text("\n".join(["path,label", *rows]))
    splits, found = opened(manifest)
    assert "near duplicate across splits" not in found
    assert splits.fingerprint == opened(photos, exclude=("photos.csv",))[0].fingerprint
    manifest.write_text(
        "\n".join(["path,label,split", *(f"{row},{'test' if 'small' in row else 'train'}" for row in rows)])
    )
    assert opened(manifest)[1]["near duplicate across splits"] == 60
