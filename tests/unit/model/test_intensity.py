"""Gray values of images with more than 8 bits."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from transfer_model.decode import decode
from transfer_model.errors import ModelError
from transfer_model.intensity import Intensity, value_range
from transfer_platform.data.image_stats import HEADER_DTYPE
from transfer_platform.data.intensity import TOLERANCE, covering_range, resolve
from transfer_platform.recipe.schema import IntensityRange


def tiff(values: np.ndarray) -> bytes:
    content = BytesIO()
    Image.fromarray(values).save(content, "TIFF")
    return content.getvalue()


def grays(values: np.ndarray, intensity: Intensity | None) -> list[int]:
    return np.asarray(decode(tiff(values), intensity=intensity))[0, :, 0].tolist()


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32])
def test_the_range_is_scaled_and_clipped_in_every_type(dtype: type) -> None:
    values = np.array([[0, 100, 200, 300, 5000]], dtype)
    assert grays(values, Intensity(100, 300)) == [0, 0, 128, 255, 255]


def test_negative_values_are_not_all_black() -> None:
    """As in computed tomography, in Hounsfield units."""
    assert grays(np.array([[-1024, 0, 3071]], np.int32), Intensity(-1024, 3071)) == [0, 64, 255]


def test_the_scale_of_a_float_image_does_not_depend_on_its_brightest_pixel() -> None:
    dark, bright = np.array([[0.5, 1.0]], np.float32), np.array([[0.5, 2.0]], np.float32)
    assert grays(dark, Intensity(0, 3))[0] == grays(bright, Intensity(0, 3))[0]


def test_values_that_are_no_numbers_are_black() -> None:
    values = np.array([[np.nan, np.inf, -np.inf, -1, 1]], np.float32)
    assert grays(values, Intensity(-1, 1)) == [0, 0, 0, 0, 255]
    assert value_range(Image.fromarray(values)) == (-1, 1)
    assert value_range(Image.fromarray(np.full((1, 2), np.nan, np.float32))) == (0, 0)


def test_the_transparent_value_is_white() -> None:
    content = BytesIO()
    Image.fromarray(np.array([[7, 4095, 100]], np.uint16)).save(content, "PNG", transparency=7)
    assert np.asarray(decode(content.getvalue(), intensity=Intensity(0, 4095)))[0, :, 0].tolist() == [255, 255, 6]


@pytest.mark.parametrize("mode", ["1", "L", "RGB", "P"])
def test_images_of_8_bits_do_not_depend_on_it(mode: str) -> None:
    content = BytesIO()
    Image.linear_gradient("L").convert(mode).save(content, "PNG")
    plain = decode(content.getvalue())
    assert decode(content.getvalue(), intensity=Intensity(0, 16)).tobytes() == plain.tobytes()


@pytest.mark.parametrize(("low", "high"), [(1, 1), (2, 1), (0, float("inf")), (float("nan"), 1)])
def test_an_empty_or_infinite_range_is_rejected(low: float, high: float) -> None:
    with pytest.raises(ModelError, match=r"intensity\.low must be below intensity\.high"):
        Intensity(low, high)


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1))
def test_the_settled_range_contains_all_values_and_is_less_than_four_times_too_large(values: list[float]) -> None:
    found = covering_range(min(values), max(values))
    assert found.low - TOLERANCE * found.high <= min(values)
    assert max(values) <= found.high * (1 + TOLERANCE) * (1 + 1e-12)
    assert found.high <= max(255, 2 * max(values) + 1)
    assert found.low >= min(0, 2 * min(values) - 1)


@pytest.mark.parametrize(
    ("rows", "low", "high"),
    [
        ([(-1000, 2000)] * 59 + [(-32768, 2000)], -1024, 2047),
        ([(0, 4095)] * 59 + [(0, 65535)], 0, 4095),
        ([(0, 1)] * 59 + [(0, 1.5)], 0, 1),
        ([(-0.003, 1.004)] * 60, 0, 1),
        ([(0, 400)] * 59 + [(0, 4095)], 0, 4095),
        ([(0, 4095)] * 50 + [(0, 65535)] * 10, 0, 65535),
        ([(0, 255)] * 10 + [(0, 65535)], 0, 65535),
    ],
)
def test_only_far_values_of_rare_images_are_not_covered(rows: list[tuple], low: float, high: float) -> None:
    headers = np.zeros(len(rows), HEADER_DTYPE)
    headers["mode"], headers["lowest"], headers["highest"] = b"F", *np.transpose(rows)
    assert resolve("auto", headers) == IntensityRange(low=low, high=high)
