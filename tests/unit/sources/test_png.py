"""PNG files encoded without a library and decoded with one."""

from __future__ import annotations

import hashlib
import io

import pytest
from PIL import Image

from transfer_platform.sources.png import encode_png


@pytest.mark.parametrize(
    ("size", "channels", "sha256"),
    [
        ((5, 3), 1, "cec875605aae1575ceb1ff1ea7d933e151482a4accb5889f06a7e2d2b082c173"),
        ((5, 3), 3, "29992c28b8a8f1088fa543f8205f4d251da1aec12c7a8d1f637c7133c08536da"),
        # Rows of 901 bytes span several stored blocks; the last case ends exactly with a block.
        ((300, 200), 3, "8b2195de454b59a5603f21cd284a5809f9e35c2a0cda26fcd3aa4984be1960df"),
        ((65534, 1), 1, "fef50062923aea2f10bae376afe5dffd0638048ab38c69d1e3a8428183dc81fd"),
    ],
)
def test_encoded_pixels_are_decoded_unchanged(size: tuple[int, int], channels: int, sha256: str) -> None:
    """The bytes are the same on all machines: the splits of whole datasets depend on them."""
    width, height = size
    pixels = hashlib.shake_256(b"pixels").digest(width * height * channels)
    encoded = encode_png(pixels, width, channels)
    with Image.open(io.BytesIO(encoded)) as image:
        image.load()
        assert (image.size, image.mode) == (size, "L" if channels == 1 else "RGB")
        assert image.tobytes() == pixels
    assert hashlib.sha256(encoded).hexdigest() == sha256
