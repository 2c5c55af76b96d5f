"""Batches that repeat to the bit, whoever decodes them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from transfer_model.preprocessing import Preprocessing
from transfer_platform.data.augmentation import augmentation
from transfer_platform.data.catalog import scan
from transfer_platform.data.dataset import PictureDataset, batches, class_weights, loader

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PREPROCESSING = Preprocessing(32, 0.875, "bicubic", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
POLICIES = ("none", "light", "medium", "trivial", "rand")
every_policy = pytest.mark.parametrize("policy", POLICIES)


@pytest.fixture
def dataset(isolated: Path, write_picture: Callable[[Path, str], None]) -> PictureDataset:
    for label, count in (("ant", 5), ("bee", 4)):
        for number in range(count):
            write_picture(isolated / "set" / label / f"{number}.png", f"{label}{number}")
    catalog = scan(isolated / "set")
    return PictureDataset(catalog.pictures, catalog.classes, PREPROCESSING)


def with_policy(dataset: PictureDataset, policy: str) -> PictureDataset:
    return PictureDataset(
        dataset.pictures, dataset.classes, PREPROCESSING, augmentation(policy, PREPROCESSING)
    )


def epoch_of(dataset: PictureDataset, **settings: int) -> tuple[torch.Tensor, torch.Tensor]:
    images, labels = zip(*loader(dataset, 4, shuffle=True, **settings), strict=True)
    return torch.cat(images), torch.cat(labels)


def test_items_are_tensors_and_classes(dataset: PictureDataset) -> None:
    image, label = dataset[8]
    assert (image.shape, image.dtype, label) == ((3, 32, 32), torch.float32, 1)
    assert dataset.labels == [0] * 5 + [1] * 4 == [label for _, label in dataset]


def test_without_augmentation_training_sees_what_serving_sees(dataset: PictureDataset) -> None:
    with Image.open(dataset.pictures[0].path) as image:
        served = PREPROCESSING(image.convert("RGB"))
    assert torch.equal(dataset[0][0], served)
    assert torch.equal(with_policy(dataset, "none")[0][0], served)


@every_policy
@pytest.mark.parametrize("size", [(50, 37), (20, 300), (8, 8), (32, 32)])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos", "nearest"])
def test_every_policy_ends_in_the_square(policy: str, size: tuple[int, int], interpolation: str) -> None:
    preprocessing = Preprocessing(32, 0.9, interpolation, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    vary = augmentation(policy, preprocessing)
    for seed in range(10):
        torch.manual_seed(seed)
        assert vary(Image.new("RGB", size, "red")).size == (32, 32)


def test_an_unknown_policy_is_an_error() -> None:
    with pytest.raises(ValueError, match="one of none, light, medium, trivial, rand, but got 'heavy'"):
        augmentation("heavy", PREPROCESSING)


@every_policy
def test_augmentation_depends_on_seed_epoch_and_index_alone(dataset: PictureDataset, policy: str) -> None:
    varied = with_policy(dataset, policy)
    first = epoch_of(varied, seed=3, epoch=2)
    torch.rand(17)
    again = epoch_of(varied, seed=3, epoch=2)
    assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))
    alone = PictureDataset(
        varied.pictures, varied.classes, PREPROCESSING, varied.augmentation, seed=3, epoch=2
    )
    order = [index for batch in batches(9, 4, shuffle=True, seed=3, epoch=2) for index in batch]
    assert torch.equal(first[0][5], alone[order[5]][0])


def test_workers_change_nothing(dataset: PictureDataset) -> None:
    varied = with_policy(dataset, "trivial")
    here, there = epoch_of(varied, seed=1, workers=0), epoch_of(varied, seed=1, workers=2)
    assert all(torch.equal(one, other) for one, other in zip(here, there, strict=True))


def test_epochs_and_seeds_differ(dataset: PictureDataset) -> None:
    varied = with_policy(dataset, "light")
    sums = {
        epoch_of(varied, seed=seed, epoch=epoch)[0].sum().item() for seed in range(3) for epoch in range(3)
    }
    assert len(sums) == 9


def test_loading_leaves_the_global_generator_alone(dataset: PictureDataset) -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    epoch_of(with_policy(dataset, "rand"), seed=1)
    assert torch.equal(torch.rand(3), expected)


@given(st.integers(1, 200), st.integers(1, 40), st.booleans(), st.integers(0, 100))
def test_every_image_is_in_one_batch(count: int, size: int, shuffle: bool, epoch: int) -> None:
    cut = batches(count, size, shuffle=shuffle, seed=5, epoch=epoch)
    assert sorted(index for batch in cut for index in batch) == list(range(count))
    assert all(len(batch) <= size + 1 for batch in cut)
    if shuffle and size > 1 and count > 1:
        assert min(map(len, cut)) > 1
    if not shuffle:
        assert [index for batch in cut for index in batch] == list(range(count))


def test_balanced_weights_are_scikit_learns() -> None:
    weights = class_weights([0, 0, 0, 1, 2, 2], 3)
    assert weights.tolist() == pytest.approx([6 / 9, 2.0, 1.0])
