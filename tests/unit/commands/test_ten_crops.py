"""The 10 crops of an image."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from transfer_model.preprocessing import Preprocessing
from transfer_platform.commands._ten_crops import ten_crops

PREPROCESSING = Preprocessing(16, 0.5, "bilinear", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


@pytest.fixture
def image() -> Image.Image:
    """48 x 32 pixels, whose center square has another color in each quarter and black around it."""
    pixels = np.zeros((32, 48, 3), np.uint8)
    for color, (top, left) in enumerate([(0, 8), (0, 24), (16, 8), (16, 24)]):
        pixels[top : top + 16, left : left + 16] = 50 * (color + 1)
    return Image.fromarray(pixels)


def test_the_corners_come_first_in_the_order_of_reading(image: Image.Image) -> None:
    crops = ten_crops(image, PREPROCESSING)
    assert crops.shape == (10, 3, 16, 16)
    for index in range(4):
        assert torch.allclose(crops[index], torch.tensor(50 * (index + 1) / 255))


def test_the_fifth_crop_is_the_one_that_is_served(image: Image.Image) -> None:
    assert torch.equal(ten_crops(image, PREPROCESSING)[4], PREPROCESSING(image))


def test_the_others_are_reflections(image: Image.Image) -> None:
    crops = ten_crops(image, PREPROCESSING)
    assert torch.equal(crops[5:], crops[:5].flip(3))


def test_without_a_margin_only_reflections_differ(image: Image.Image) -> None:
    crops = ten_crops(image, replace(PREPROCESSING, crop=1.0))
    assert all(torch.equal(crop, crops[4]) for crop in crops[:5])
