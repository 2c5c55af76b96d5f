"""Shipped recipes of published systems, run to their end on fewer images."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

import pytest

from .conftest import REPOSITORY

PER_CLASS = {"train": 200, "test": 50}


@pytest.fixture(scope="module")
def few_cifar10_images(test_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """2,000 training and 500 test images of CIFAR-10, in train/ and test/."""
    archive = test_data / "cifar10_images.zip"
    if not archive.is_file():
        pytest.skip(f"the CIFAR-10 images are missing: {archive} (set PLATFORM_TEST_DATA)")
    folder = tmp_path_factory.mktemp("cifar10")
    with zipfile.ZipFile(archive) as images:
        for name in images.namelist():
            _, split, _, file = name.split("/")
            if int(Path(file).stem) < PER_CLASS[split]:
                images.extract(name, folder)
    return folder / "cifar10"


def test_alexnet_learns_from_2000_images_of_cifar10(workplaces, few_cifar10_images: Path) -> None:
    recipe = REPOSITORY / "recipes" / "cifar10_alexnet.yaml"
    # Steps as short as possible: 2,000 images in batches of 64 are too few for 6 epochs.
    changes = (f"dataset.source={few_cifar10_images}", "training.epochs=6", "training.batch_size=16")
    options = [word for change in (*changes, "training.learning_rate=5e-4") for word in ("-o", change)]
    out, err = workplaces("alexnet").run("platform", "run", recipe, *options)
    assert "1900 train, 100 validation, 500 test; classes: 10" in err
    accuracy = float(re.search(r"test/accuracy (0\.\d+)", out)[1])
    assert accuracy >= 0.22  # 0.10 by chance
