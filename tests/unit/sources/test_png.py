"""PNG files that are written without an encoder, and read with one."""

from __future__ import annotations

import hashlib
import io

import pytest
from PIL import Image

from transfer_platform.sources.png import png


@pytest.mark.parametrize(
    ("size", "channels", "sha256"),
    [
        ((5, 3), 1, "cec875605aae1575ceb1ff1ea7d933e151482a4accb5889f06a7e2d2b082c173"),
        ((5, 3), 3, "29992c28b8a8f1088fa543f8205f4d251da1aec12c7a8d1f637c7133c08536da"),
        # Rows of 901 bytes: more than one stored block, and one that ends where a block does.
        ((300, 200), 3, "8b2195de454b59a5603f21cd284a5809f9e35c2a0cda26fcd3aa4984be1960df"),
        ((65534, 1), 1, "fef50062923aea2f10bae376afe5dffd0638048ab38c69d1e3a8428183dc81fd"),
    ],
)
def test_a_decoder_finds_the_same_pixels(size: tuple[int, int], channels: int, sha256: str) -> None:
    """And the file is the same everywhere: the splits of whole data sets hang on its bytes."""
    width, height = size
    pixels = hashlib.shake_256(b"pixels").digest(width * height * channels)
    written = png(pixels, width, channels)
    with Image.open(io.BytesIO(written)) as image:
        image.load()
        assert (image.size, image.mode) == (size, "L" if channels == 1 else "RGB")
        assert image.tobytes() == pixels
    assert hashlib.sha256(written).hexdigest() == sha256
