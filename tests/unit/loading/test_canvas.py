"""Canvases: small squares that hold whole images."""

from __future__ import annotations

import math
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import sklearn
import torch
from PIL import Image

from transfer_model.decode import decode
from transfer_model.errors import UnreadableImageError
from transfer_platform.loading.canvas import canvas_side, make_canvas, pack, row_bytes, unpack

PHOTOGRAPHS = [Path(sklearn.__file__).parent / "datasets/images" / name for name in ("china.jpg", "flower.jpg")]
"""Real ones, 640 x 427, that come with scikit-learn."""


def encoded(image: Image.Image, file_format: str = "PNG") -> bytes:
    content = BytesIO()
    image.save(content, file_format)
    return content.getvalue()


def halves(width: int, height: int) -> Image.Image:
    """Red on the left, blue on the right."""
    image = Image.new("RGB", (width, height), "red")
    image.paste((0, 0, 255), (width // 2, 0, width, height))
    return image


@pytest.mark.parametrize("size", [(80, 40), (40, 80), (64, 48), (7, 7)])
def test_the_whole_image_is_resized_to_the_square(size: tuple[int, int]) -> None:
    pixels, aspect = make_canvas(encoded(halves(*size)), 20)
    assert (pixels.shape, pixels.dtype) == ((3, 20, 20), torch.uint8)
    assert aspect == size[0] / size[1]
    assert pixels[:, :, 0].T.tolist() == [[255, 0, 0]] * 20
    assert pixels[:, :, 19].T.tolist() == [[0, 0, 255]] * 20


def test_an_image_of_the_canvas_size_is_unchanged() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (33, 33, 3), dtype=np.uint8)
    unchanged, aspect = make_canvas(encoded(Image.fromarray(pixels)), 33)
    assert aspect == 1
    assert (unchanged.permute(1, 2, 0).numpy() == pixels).all()


@pytest.mark.parametrize("turned", [False, True])
def test_a_panorama_is_center_cropped(turned: bool) -> None:
    panorama = Image.new("RGB", (1000, 100), "green")
    panorama.paste((255, 255, 255), (400, 0, 600, 100))
    if turned:
        panorama = panorama.transpose(Image.Transpose.ROTATE_90)
    pixels, aspect = make_canvas(encoded(panorama), 24)
    assert aspect == (0.5 if turned else 2.0)
    assert pixels.min() > 230  # the resampling filter looks a little beyond the edge


@pytest.mark.parametrize("side", [26, 53, 106])  # at an eighth, a quarter, a half
@pytest.mark.parametrize("photograph", PHOTOGRAPHS, ids=lambda path: path.stem)
def test_decoding_photographs_at_a_lower_size_changes_little(
    photograph: Path, side: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    reduced, aspect = make_canvas(photograph, side)
    sizes: list[object] = []

    def decode_fully(source: Path, name: str, *, intensity=None, min_side: int) -> Image.Image:
        sizes.append(decode(source, min_side=min_side).size)
        return decode(source)

    monkeypatch.setattr("transfer_platform.loading.canvas.decode", decode_fully)
    exact, exact_aspect = make_canvas(photograph, side)
    assert sizes != [(640, 427)]
    assert (reduced.float() - exact.float()).abs().mean() < 1
    assert aspect == pytest.approx(exact_aspect, rel=0.01)


def test_a_damaged_image_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(encoded(halves(99, 99), "JPEG")[:500])
    with pytest.raises(UnreadableImageError, match=r"a\.jpg"):
        make_canvas(tmp_path / "a.jpg", 20)


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("side", [1, 8, 9])
def test_unpack_inverts_pack(count: int, side: int) -> None:
    canvases = torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8)
    aspects = torch.rand(count) + 0.5
    packed = [pack(*pair) for pair in zip(canvases, aspects.tolist(), strict=True)]
    assert {row.shape for row in packed} == {(row_bytes(side),)}
    # From within a larger tensor, so that floats do not happen to be aligned.
    rows = torch.cat([torch.zeros(1, dtype=torch.uint8), *packed])[1:].view(count, -1)
    unpacked, ratios = unpack(rows)
    assert torch.equal(unpacked, canvases)
    assert torch.equal(ratios, aspects)


def test_rows_of_another_length_are_an_error() -> None:
    with pytest.raises(ValueError, match=r"3\*C\*C \+ 4 bytes, but got 70"):
        unpack(torch.zeros((2, 70), dtype=torch.uint8))


@pytest.mark.parametrize("image_size", [32, 64, 224, 299, 384])
def test_the_smallest_crop_is_not_upscaled(image_size: int) -> None:
    side = canvas_side(image_size)
    assert math.ceil(0.7 * side) >= image_size
    assert canvas_side(image_size, longest=32) == 32
    assert canvas_side(image_size, longest=5000) == side
