"""The share of pixels that the network does not see, for each image and for all images together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from transfer_model.preprocessing import Preprocessing
from transfer_platform.commands._open import open_recipe
from transfer_platform.data.image_stats import HEADER_DTYPE
from transfer_platform.inspection.center_crop import share_left_out, total_left_out
from transfer_platform.inspection.inspection import Inspection

ROTATED = 6
"""EXIF orientation of a photo that is shown rotated by 90 degrees."""


def inspected(
    folder: Path, sizes: list[tuple[int, int]], backbone: str = "efficientnet_lite0", **options
) -> Inspection:
    """Inspects random images of the given sizes, in two classes."""
    generator = np.random.default_rng(0)
    for number, (width, height) in enumerate(sizes):
        (folder / "set" / "ab"[number % 2]).mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(generator.integers(0, 255, (height, width, 3), np.uint8))
        image.save(folder / "set" / "ab"[number % 2] / f"{number}.jpg", **options)
    recipe = folder / "recipe.yaml"
    recipe.write_text(f"name: x\ndataset: {{source: set, splits: {{test: 0.4}}}}\nbackbone: {{name: {backbone}}}\n")
    return open_recipe(recipe).inspection


def headers(*sizes: tuple[int, int]) -> np.ndarray:
    made = np.zeros(len(sizes), HEADER_DTYPE)
    made["width"], made["height"] = np.array(sizes).T
    return made


def test_elongated_images_are_warnings_that_name_the_share_left_out(isolated: Path) -> None:
    """Lite0's center crop is 0.875 of the shorter side: 70 x 70 of 400 x 80 pixels."""
    found = inspected(isolated, [(400, 80), (80, 400)] + [(100, 80)] * 20)
    details = sorted(each.detail for each in found.by_kind("elongated"))
    assert details == [
        f"{size} pixels; the center crop leaves out 85% of the pixels" for size in ("400 x 80", "80 x 400")
    ]
    seen = 22 * (0.875 * 80) ** 2
    assert found.left_out == pytest.approx(1 - seen / (2 * 400 * 80 + 20 * 100 * 80))


def test_a_rotated_photo_is_measured_as_it_is_shown(isolated: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = ROTATED
    found = inspected(isolated, [(300, 100)] * 20, exif=exif)
    assert {each.detail.partition(" pixels")[0] for each in found.by_kind("elongated")} == {"100 x 300"}


def test_the_smallest_crop_of_the_searched_backbones_counts(isolated: Path) -> None:
    """Of timm's networks, resnet18 crops 0.95 of the side, and vit_tiny_patch16_224 0.9."""
    found = inspected(
        isolated, [(80, 80)] * 20, "{choices: [timm/resnet18, timm/vit_tiny_patch16_224]}}\nsearch: {trials: 2"
    )
    assert found.left_out == pytest.approx(1 - 0.9**2)


@given(st.tuples(st.integers(1, 3000), st.integers(1, 3000)), st.floats(0.1, 1))
def test_the_share_is_that_of_the_box_that_preprocessing_reads(size: tuple[int, int], crop: float) -> None:
    boxes = []

    class Recorded:
        width, height = size

        def resize(self, size, resample, box) -> None:
            boxes.append(box)

    image = Recorded()
    image.size = size  # type: ignore[attr-defined]
    Preprocessing(32, crop, "bilinear", (0, 0, 0), (1, 1, 1)).crop_and_resize(image)  # type: ignore[arg-type]
    left, top, right, bottom = boxes[0]
    assert share_left_out(headers(size), crop)[0] == pytest.approx(1 - (right - left) * (bottom - top) / np.prod(size))


def test_without_images_nothing_is_left_out() -> None:
    assert total_left_out(np.zeros(0, HEADER_DTYPE), 0.875) == 0
