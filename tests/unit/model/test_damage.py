"""Damaged images that Pillow decodes without an error are rejected, and intact images are not."""

from __future__ import annotations

import re
import struct
import zlib
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from transfer_model.decode import decode
from transfer_model.errors import UnreadableImageError
from transfer_model.formats import ACCEPTED
from transfer_platform.data.image_stats import compute_stats

if TYPE_CHECKING:
    from pathlib import Path

ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def noise(width: int = 64, height: int = 64, mode: str = "RGB") -> Image.Image:
    pixels = np.random.default_rng(0).integers(1, 256, (height, width, 3), np.uint8)
    return Image.fromarray(pixels).convert(mode)


def encoded(image: Image.Image, name: str, **options: object) -> bytes:
    content = BytesIO()
    image.save(content, name, **options)
    return content.getvalue()


def png(rows: list[bytes], size: tuple[int, int], *, interlaced: bool = False) -> bytes:
    """A grayscale PNG image with the given rows of 8 bits."""
    header = struct.pack(">IIBBBBB", *size, 8, 0, 0, 0, interlaced)
    data = zlib.compress(b"".join(b"\0" + row for row in rows))
    chunks = ((b"IHDR", header), (b"IDAT", data), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )


def passes(pixels: np.ndarray) -> list[bytes]:
    """The rows of an interlaced image, in the order of the file."""
    return [row.tobytes() for x, y, across, down in ADAM7 for row in pixels[y::down, x::across] if row.size]


def with_height(content: bytes, before: bytes, height: bytes) -> bytes:
    """Replaces the height after each occurrence of the bytes `before`."""
    assert before in content
    return re.sub(re.escape(before) + b"." * len(height), lambda _match: before + height, content, flags=re.DOTALL)


def taller_jpeg(**options: object) -> bytes:
    return with_height(encoded(noise(), "JPEG", **options), b"\xff\xc0\0\x11\x08", b"\0\x80")


def without_bytes(content: bytes) -> bytes:
    return content[: len(content) // 2] + content[len(content) // 2 + 500 :]


def changed_byte(content: bytes) -> bytes:
    """Changes a byte where zlib and Pillow do not notice it: the pixels are stored without compression."""
    place = len(content) // 2
    return content[:place] + bytes((content[place] ^ 1,)) + content[place + 1 :]


def taller_tiff(**options: object) -> bytes:
    return with_height(encoded(noise(), "TIFF", **options), struct.pack("<HHI", 257, 4, 1), b"\x80\0")


def taller_jpeg_2000(name: str) -> bytes:
    content = encoded(noise(), "JPEG2000", no_jp2=name == "J2K")
    content = with_height(content, content[content.index(b"\xff\x4f\xff\x51") :][:12], struct.pack(">I", 128))
    return content if name == "J2K" else with_height(content, b"ihdr", struct.pack(">I", 128))


GRAY = np.full((16, 16), 200, np.uint8)
DAMAGED = {
    "JPEG taller": (taller_jpeg(), "JPEG image"),
    "JPEG taller, restarts": (taller_jpeg(restart_marker_blocks=4), "JPEG image"),
    "JPEG taller, gray": (
        with_height(encoded(noise(mode="L"), "JPEG"), b"\xff\xc0\0\x0b\x08", b"\0\x80"),
        "JPEG image",
    ),
    "JPEG taller, more data after it": (taller_jpeg() + b"video", "JPEG image"),
    "JPEG without bytes": (without_bytes(encoded(noise(), "JPEG")), "JPEG image"),
    "MPO taller": (
        with_height(encoded(noise(), "MPO", save_all=True, append_images=[noise()]), b"\xff\xc0\0\x11\x08", b"\0\x80"),
        "MPO image",
    ),
    "PNG without rows": (png([row.tobytes() for row in GRAY[:15]], (16, 16)), "PNG image: it has 255 of 272 bytes"),
    "PNG without rows, interlaced": (png(passes(GRAY)[:-4], (16, 16), interlaced=True), "PNG image: it has"),
    "PNG changed": (changed_byte(encoded(noise(), "PNG", compress_level=0)), "PNG image: its data does not match"),
    "TIFF taller": (taller_tiff(), "TIFF image: it has 1 of 2 strips"),
    "JP2 taller": (taller_jpeg_2000("JP2"), "JPEG2000 image: it has 1 of 2 tiles"),
    "J2K taller": (taller_jpeg_2000("J2K"), "JPEG2000 image: it has 1 of 2 tiles"),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_an_image_without_all_of_its_data_is_rejected_in_training_serving_and_the_preflight(
    kind: str, tmp_path: Path
) -> None:
    content, reason = DAMAGED[kind]
    path = tmp_path / "damaged image"
    path.write_bytes(content)
    for read in (
        lambda: decode(path),
        lambda: decode(path, min_side=16),
        lambda: decode(content, str(path)),
        lambda: compute_stats(content, str(path)),
    ):
        with pytest.raises(UnreadableImageError) as error:
            read()
        assert str(error.value).startswith(f"{path} is a truncated or corrupt {reason}")
        assert error.value.kind == "damaged"


@pytest.mark.parametrize("share", [0.5, 0.95])
@pytest.mark.parametrize("name", sorted(each.name for each in ACCEPTED))
def test_a_truncated_image_is_rejected(name: str, share: float) -> None:
    content = encoded(noise(), name)
    with pytest.raises(UnreadableImageError):
        decode(content[: int(share * len(content))])


@given(
    size=st.tuples(st.integers(1, 70), st.integers(1, 70)),
    mode=st.sampled_from(["L", "RGB", "CMYK"]),
    options=st.fixed_dictionaries(
        {
            "quality": st.integers(1, 100),
            "progressive": st.booleans(),
            "optimize": st.booleans(),
            "subsampling": st.sampled_from([0, 1, 2]),
            "restart_marker_blocks": st.integers(0, 9),
        }
    ),
    flat=st.booleans(),
    rest=st.sampled_from([b"", b"\0", b"more\xff\xd9", b"\xff\xd9\xff\xd9"]),
)
@settings(max_examples=150, deadline=None)
def test_an_intact_jpeg_is_decoded_as_pillow_decodes_it(size, mode, options, flat, rest) -> None:
    image = Image.new(mode, size) if flat else noise(*size, mode)
    content = encoded(image, "JPEG", **options) + rest
    expected = Image.open(BytesIO(content)).convert("RGB")
    assert decode(content).tobytes() == expected.tobytes()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
@pytest.mark.parametrize("size", [(1, 1), (7, 5), (64, 33)])
def test_an_intact_png_may_be_black(mode: str, size: tuple[int, int]) -> None:
    assert decode(encoded(Image.new(mode, size), "PNG")).size == size


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (3, 2), (5, 5), (16, 17)])
def test_an_intact_interlaced_png_may_be_black(size: tuple[int, int]) -> None:
    black = np.zeros(size[::-1], np.uint8)
    assert decode(png(passes(black), size, interlaced=True)).size == size


def test_fill_bytes_between_the_segments_of_a_jpeg_are_skipped() -> None:
    whole = encoded(noise(), "JPEG")
    start = whole.index(b"\xff\xda")
    assert decode(whole[:start] + b"\xff\xff" + whole[start:]).tobytes() == decode(whole).tobytes()


@pytest.mark.parametrize("options", [{}, {"compression": "tiff_lzw"}, {"strip_size": 1000}])
def test_an_intact_tiff_is_decoded(options: dict[str, object]) -> None:
    assert decode(encoded(noise(), "TIFF", **options)).tobytes() == noise().tobytes()


def test_an_intact_tiled_jpeg_2000_is_decoded() -> None:
    content = encoded(noise(70, 50), "JPEG2000", tile_size=(32, 32), irreversible=False)
    assert decode(content).tobytes() == noise(70, 50).tobytes()
