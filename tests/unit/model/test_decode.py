from __future__ import annotations

import tracemalloc
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps

from transfer_model.decode import decode
from transfer_model.errors import UnreadableImageError
from transfer_model.preprocessing import Preprocessing

if TYPE_CHECKING:
    from pathlib import Path

LOSSLESS = ("PNG", "TIFF", "WEBP", "BMP", "PPM")
ORIENTATION = 0x0112


def image(width: int = 30, height: int = 20) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def encoded(image: Image.Image, file_format: str, **options: object) -> bytes:
    content = BytesIO()
    if file_format == "WEBP":
        options["lossless"] = True
    image.save(content, file_format, **options)
    return content.getvalue()


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image).astype(int)


@pytest.mark.parametrize("file_format", LOSSLESS)
def test_rgb_is_unchanged(file_format: str) -> None:
    assert (pixels(decode(encoded(image(), file_format))) == pixels(image())).all()


@pytest.mark.parametrize("file_format", ["JPEG", "MPO", "GIF"])
def test_lossy_formats_are_nearly_unchanged(file_format: str) -> None:
    smooth = Image.linear_gradient("L").convert("RGB")
    assert np.abs(pixels(decode(encoded(smooth, file_format))) - pixels(smooth)).max() <= 4


# Pillow 12 takes TIFF files in YCbCr without compression for truncated ones.
@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", pytest.param("YCbCr", marks=pytest.mark.exact_versions)])
def test_color_spaces_become_rgb_as_pillow_converts_them(mode: str) -> None:
    converted = image().convert(mode)
    read = decode(encoded(converted, "TIFF"))
    assert (pixels(read) == pixels(converted.convert("RGB"))).all()


def test_a_cmyk_photograph_keeps_its_colors() -> None:
    red = Image.new("RGB", (32, 32), (200, 30, 40)).convert("CMYK")
    assert np.abs(pixels(decode(encoded(red, "JPEG"))) - [200, 30, 40]).max() <= 6


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_composited_on_white(mode: str) -> None:
    image = Image.new(mode, (4, 4), (0, 0, 0, 0) if mode == "RGBA" else (0, 0))
    image.putpixel((1, 2), (10, 20, 30, 255) if mode == "RGBA" else (10, 255))
    read = decode(encoded(image, "PNG"))
    assert read.getpixel((0, 0)) == (255, 255, 255)
    assert read.getpixel((1, 2)) == ((10, 20, 30) if mode == "RGBA" else (10, 10, 10))


def test_half_transparent_black_on_white_is_gray() -> None:
    assert decode(encoded(Image.new("RGBA", (2, 2), (0, 0, 0, 128)), "PNG")).getpixel((0, 0)) == (127,) * 3


@pytest.mark.parametrize("file_format", ["PNG", "GIF"])
def test_the_transparent_color_of_a_palette_is_white(file_format: str) -> None:
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 200, 10, 10])
    image.putpixel((0, 0), 0)
    read = decode(encoded(image, file_format, transparency=0))
    assert read.getpixel((0, 0)) == (255, 255, 255)
    assert read.getpixel((3, 3)) == (200, 10, 10)


def test_palette_with_several_opacities() -> None:
    image = Image.new("P", (2, 1), 1)
    image.putpalette([0, 0, 0, 200, 10, 10])
    image.putpixel((0, 0), 0)
    read = decode(encoded(image, "PNG", transparency=bytes([0, 255])))
    assert [read.getpixel((x, 0)) for x in (0, 1)] == [(255, 255, 255), (200, 10, 10)]


@pytest.mark.parametrize(
    ("values", "file_format"),
    [
        (np.array([[0, 257, 32896, 65535]], np.uint16), "PNG"),
        (np.array([[0, 257, 32896, 65535]], np.uint16), "TIFF"),
        (np.array([[0, 257, 32896, 65535]], np.int32), "TIFF"),
        (np.array([[0, 257, 32896, 65535]], np.float32), "TIFF"),
        (np.array([[0, 1, 128, 255]], np.float32), "TIFF"),
        (np.array([[0, 1 / 255, 128 / 255, 1]], np.float32), "TIFF"),
        (np.array([[np.nan, 1 / 255, 128 / 255, 1]], np.float32), "TIFF"),
    ],
)
def test_deep_grayscale_is_scaled(values: np.ndarray, file_format: str) -> None:
    read = decode(encoded(Image.fromarray(values), file_format))
    assert pixels(read)[0, :, 0].tolist() == [0, 1, 128, 255]


def test_a_large_16_bit_image_is_scaled_uniformly_and_in_little_memory() -> None:
    values = np.arange(3_000_000, dtype=np.uint32).reshape(1500, 2000) % 65536
    content = encoded(Image.fromarray(values.astype(np.uint16)), "PNG")
    tracemalloc.start()
    read = decode(content)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (pixels(read)[:, :, 0] == np.rint(values / 257)).all()
    assert peak < 16 * values.size


def test_a_dark_16_bit_image_stays_dark() -> None:
    read = decode(encoded(Image.fromarray(np.full((4, 4), 2570, np.uint16)), "PNG"))
    assert read.getpixel((0, 0)) == (10, 10, 10)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("file_format", ["PNG", "TIFF", "WEBP"])
def test_orientation_is_applied(orientation: int, file_format: str) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    marked = image()
    marked.getexif()[ORIENTATION] = orientation
    expected = ImageOps.exif_transpose(marked)
    assert (pixels(decode(encoded(image(), file_format, exif=exif.tobytes()))) == pixels(expected)).all()


def test_orientation_of_a_jpeg() -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    assert decode(encoded(image(30, 20), "JPEG", exif=exif.tobytes())).size == (20, 30)


def test_corrupt_exif_is_ignored_without_a_warning() -> None:
    exif = b"Exif\0\0II*\0\x08\0\0\0\x05\0\x12\x01\x03\0\xff\xff\xff\xff\x06\0\0\0"
    content = encoded(image(), "JPEG", exif=exif)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert decode(content).size == (30, 20)


def test_an_animation_is_its_first_frame() -> None:
    frames = [Image.new("RGB", (4, 4), color) for color in ("red", "blue")]
    content = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert decode(content).getpixel((0, 0)) == (255, 0, 0)


def test_the_same_pixels_from_disk_and_from_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(encoded(image(), "JPEG"))
    assert decode(path).tobytes() == decode(path.read_bytes()).tobytes()


def test_many_threads_decode_at_once() -> None:
    contents = [encoded(image(), file_format) for file_format in ("JPEG", "PNG", "TIFF")] * 20
    with ThreadPoolExecutor(8) as pool:
        together = [decoded.tobytes() for decoded in pool.map(decode, contents)]
    assert together == [decode(content).tobytes() for content in contents]


@pytest.mark.parametrize(
    ("min_side", "size"), [(None, (640, 427)), (428, (640, 427)), (213, (320, 214)), (106, (160, 107)), (53, (80, 53))]
)
def test_a_large_jpeg_is_decoded_at_the_smallest_sufficient_size(min_side: int | None, size: tuple[int, int]) -> None:
    content = encoded(smooth(640, 427), "JPEG")
    assert decode(content, min_side=min_side).size == size


def smooth(width: int, height: int) -> Image.Image:
    return Image.radial_gradient("L").convert("RGB").resize((width, height))


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("file_format", ["JPEG", "MPO"])
def test_a_smaller_decoding_is_not_stretched(mode: str, file_format: str) -> None:
    # 417 / 8 = 52.1: libjpeg makes 53 columns, and most of the last is outside of the image.
    content = encoded(smooth(417, 500).convert(mode), file_format)
    small = decode(content, min_side=52)
    assert small.size == (52, 62)
    full = decode(content).resize(small.size, Image.Resampling.BOX)
    assert np.abs(pixels(small) - pixels(full)).mean() < 0.75


def test_a_smaller_decoding_is_turned_upright() -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    content = encoded(smooth(417, 500), "JPEG", exif=exif.tobytes())
    small, full = decode(content, min_side=52), decode(content).resize((62, 52), Image.Resampling.BOX)
    assert small.size == full.size
    assert np.abs(pixels(small) - pixels(full)).mean() < 0.75


@pytest.mark.parametrize("file_format", LOSSLESS)
def test_other_formats_are_decoded_whole(file_format: str) -> None:
    assert (pixels(decode(encoded(image(), file_format), min_side=2)) == pixels(image())).all()


def test_a_truncated_jpeg_is_rejected_at_any_size() -> None:
    with pytest.raises(UnreadableImageError, match="truncated or corrupt JPEG"):
        decode(encoded(smooth(417, 500), "JPEG")[:-300], min_side=52)


def bomb(side: int) -> bytes:
    return encoded(Image.new("1", (side, side)), "PNG")


def lab() -> bytes:
    profiles = (ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"))
    transform = ImageCms.buildTransform(*profiles, "RGB", "LAB")
    return encoded(ImageCms.applyTransform(image(), transform), "TIFF")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "0 bytes"),
        (b"hello, this is text", "not an image in a supported format"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image in a supported format"),
        (encoded(image(), "JPEG")[:-300], "truncated or corrupt JPEG"),
        (encoded(image(), "JPEG")[:100], "truncated or corrupt"),
        (encoded(image(), "PNG")[:300], "truncated or corrupt PNG"),
        (encoded(image(), "TIFF")[:300], "truncated or corrupt TIFF"),
        (encoded(image(), "BMP")[:300], "truncated or corrupt BMP"),
        (encoded(image(), "WEBP")[:300], "truncated or corrupt"),
        (bomb(10_000), "10000 x 10000 pixels, more than the 64,000,000 allowed"),
        (bomb(20_000), "more than the 64,000,000"),
        (lab(), "LAB"),
    ],
    ids=lambda value: value if isinstance(value, str) else "content",  # the bytes differ between test processes
)
def test_an_unreadable_image_is_an_error_in_one_sentence(content: bytes, reason: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UnreadableImageError) as error:
            decode(content)
    message = str(error.value)
    assert reason in message
    assert len(message) < 200
    assert "\n" not in message
    assert "\\x" not in message


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "MPO"])
def test_damaged_bytes_are_an_image_or_rejected(file_format: str) -> None:
    whole, random = encoded(image(), file_format), np.random.default_rng(1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(60):
            content = np.frombuffer(whole, np.uint8).copy()
            content[random.integers(0, len(content), 6)] = random.integers(0, 256, 6)
            with suppress(UnreadableImageError):
                assert decode(content.tobytes()).mode == "RGB"


def test_a_path_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").touch()
    with pytest.raises(UnreadableImageError, match=r"empty\.jpg is empty"):
        decode(tmp_path / "empty.jpg")
    with pytest.raises(UnreadableImageError, match=r"missing\.jpg cannot be read: No such file"):
        decode(tmp_path / "missing.jpg")


def test_preprocessing_crops_the_center_and_normalizes() -> None:
    image = Image.new("RGB", (100, 50), "black")
    image.paste((255, 255, 255), (25, 0, 75, 50))
    prepare = Preprocessing(32, 1.0, "bilinear", (0.5, 0.5, 0.5), (0.5, 0.25, 0.5))
    tensor = prepare(image)
    assert tensor.shape == (3, 32, 32)
    assert tensor[:, 16, 16].tolist() == [1.0, 2.0, 1.0]
    assert (tensor[0, 1:-1, 1:-1] == 1.0).all()


def test_crop_is_a_fraction_of_the_shorter_side() -> None:
    image = Image.new("RGB", (80, 80), "black")
    image.paste((255, 255, 255), (20, 20, 60, 60))
    prepare = Preprocessing(16, 0.5, "bicubic", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    square = prepare.crop_and_resize(image)
    assert square.size == (16, 16)
    assert pixels(square)[2:-2, 2:-2].min() == 255
