"""What stands where an image should: files and texts by name, and strategies that make more of them."""

from __future__ import annotations

import base64
import gzip
import struct
import zlib
from io import BytesIO
from typing import Any

import numpy as np
from hypothesis import assume
from hypothesis import strategies as st
from PIL import Image

from transfer_model.decode import decode
from transfer_model.errors import UnreadableImageError


def text(content: bytes) -> str:
    return base64.b64encode(content).decode()


def image(format_name: str, mode: str = "RGB", **options: Any) -> bytes:
    """An image of 24 x 16 points of noise, the same every time."""
    noise = np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8)
    content = BytesIO()
    Image.fromarray(noise).convert(mode).save(content, format_name, **options)
    return content.getvalue()


GOOD = text(image("PNG"))

WHOLE = (
    image("JPEG"),
    image("JPEG", progressive=True),
    image("JPEG", mode="CMYK"),
    image("PNG"),
    image("PNG", mode="P"),
    image("GIF"),
    image("WEBP"),
    image("WEBP", lossless=True),
    image("TIFF"),
    image("TIFF", compression="tiff_lzw"),
    image("BMP"),
    image("PPM"),
)


def png(width: int, height: int) -> bytes:
    """A PNG that says to be so large, and holds a hundred bytes."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def gif(width: int, height: int) -> bytes:
    """A GIF with one point on a canvas that says to be so large."""
    frame = b",\0\0\0\0\1\0\1\0\0\2\2D\1\0;"
    return b"GIF89a" + struct.pack("<HH", width, height) + b"\x80\0\0" + b"\0" * 6 + frame


def bmp(width: int, height: int, bits: int = 24) -> bytes:
    """The header of a BMP alone."""
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, 0, 0, 2835, 2835, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + info


def tiff(*tags: tuple[int, int, int, int], entries: int | None = None, following: int = 0) -> bytes:
    """A TIFF of tags alone: number, type, count, value."""
    directory = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    count = len(tags) if entries is None else entries
    return b"II*\0" + struct.pack("<IH", 8, count) + directory + struct.pack("<I", following)


_MOST = 2**32 - 1
_SMALL_TIFF = ((256, 4, 1, 8), (257, 4, 1, 8), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1))

FILES: dict[str, bytes] = {
    "PNG of 30,000 x 30,000": png(30_000, 30_000),
    "PNG of the largest size": png(2**31 - 1, 2**31 - 1),
    "PNG without an area": png(0, 0),
    "PNG with a row missing": png(64, 64),
    "PNG of 49 megapixels and 100 bytes": png(7_000, 7_000),
    "PNG signature": png(8, 8)[:8],
    "GIF of 65,535 x 65,535": gif(65_535, 65_535),
    "GIF header": gif(8, 8)[:13],
    "BMP of the largest size": bmp(2**31 - 1, 2**31 - 1),
    "BMP of negative width": bmp(-8, 8),
    "BMP without points": bmp(8, 8),
    "BMP of 77 bits": bmp(8, 8, bits=77),
    "TIFF of the largest size": tiff((256, 4, 1, _MOST), (257, 4, 1, _MOST), *_SMALL_TIFF[2:]),
    "TIFF of 4 billion bits a sample": tiff(*_SMALL_TIFF[:2], (258, 3, _MOST, 8), *_SMALL_TIFF[3:]),
    "TIFF of 4 billion samples": tiff(*_SMALL_TIFF, (277, 4, 1, _MOST)),
    "TIFF whose strips are nowhere": tiff(*_SMALL_TIFF, (273, 4, 1, _MOST), (279, 4, 1, _MOST)),
    "TIFF of an unknown compression": tiff(*_SMALL_TIFF[:3], (259, 3, 1, 65_000), _SMALL_TIFF[4]),
    "TIFF of 65,535 tags, none there": tiff(entries=65_535),
    "TIFF without tags": tiff(),
    "TIFF whose directory follows itself": tiff(*_SMALL_TIFF, following=8),
    "WebP of nothing": b"RIFF\x04\0\0\0WEBP",
    "WebP that says to be 4 GB": b"RIFF\xff\xff\xff\xffWEBPVP8 \xff\xff\xff\xff",
    "WebP of 16,384 x 16,384": b"RIFF\x16\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0\xff\x3f\0\xff\x3f\0",
    "PPM of a billion points": b"P6 100000 100000 255\n",
    "PPM without a depth": b"P6 8 8 0\n" + b"\0" * 192,
    "PPM in words": b"P3 eight eight 255\n",
    "JPEG of two bytes": b"\xff\xd8",
    "JPEG without a scan": b"\xff\xd8\xff\xd9",
    "JPEG of 65,535 x 65,535": b"\xff\xd8\xff\xc0\0\x11\x08"
    + b"\xff" * 4
    + b"\x03\x01\x22\0\x02\x11\1\x03\x11\1\xff\xd9",
    "JPEG 2000": b"\0\0\0\x0cjP  \r\n\x87\n",
    "JPEG XL": b"\xff\x0a" + b"\0" * 30,
    "AVIF": b"\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf",
    "HEIC": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
    "ICO": b"\0\0\1\0\1\0\x08\x08\0\0\1\0\x20\0\x28\1\0\0\x16\0\0\0" + b"\0" * 296,
    "PSD": b"8BPS\0\1" + b"\0" * 6 + struct.pack(">HIIHH", 3, 8, 8, 8, 3) + b"\0" * 300,
    "EPS": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n(%pipe%touch /tmp/x) (w) file\n",
    "SVG": b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(document.cookie)</script></svg>',
    "PDF": b"%PDF-1.7\n1 0 obj<</Type/Catalog/OpenAction<</S/Launch/F(sh)>>>>endobj\n",
    "HTML": b"<!DOCTYPE html><html><body>404 Not Found, says the proxy of the client</body></html>",
    "XML with entities": b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><a>&b;</a>',
    "ZIP": b"PK\x03\x04\x14\0\0\0\x08\0" + b"\0" * 16 + b"PK\x05\x06" + b"\0" * 18,
    "gzip": gzip.compress(image("BMP"), mtime=0),
    "ELF": b"\x7fELF\x02\x01\x01" + b"\0" * 57,
    "pickle": b"cposix\nsystem\n(S'id'\ntR.",
    "MP4": b"\0\0\0\x20ftypisom\0\0\2\0isomiso2avc1mp41",
    "WAV": b"RIFF\x24\0\0\0WAVEfmt \x10\0\0\0\1\0\1\0",
    "SQLite": b"SQLite format 3\0" + b"\0" * 84,
    "safetensors": b"\x02\0\0\0\0\0\0\0{}",
    "plain text": b"The quick brown fox jumps over the lazy dog, again and again.",
    "a zero": b"\0",
    "zeros": b"\0" * 2**16,
}
"""Files that are no images, or images that must not be believed."""

TEXTS: dict[str, str] = {
    "nothing": "",
    "a space": " ",
    "white space": " \t\r\n ",
    "a zero": "\0",
    "zeros": "\0" * 40,
    "None": "None",
    "null": "null",
    "nan": "nan",
    "NaN": "NaN",
    "NA": "NA",
    "undefined": "undefined",
    "umlauts": "Ameisen und Bienen sind Hautflügler, wie die Wespen auch.",
    "Chinese": "蚂蚁和蜜蜂都是昆虫" * 4,
    "emoji": "🐜🐝" * 10,
    "right to left": "\u202eGNP.tac" * 4,
    "padding alone": "====",
    "padding first": "=AAA",
    "padding in the middle": "AA==AAAA",
    "one letter": "A",
    "one letter too many": GOOD.rstrip("=") + "A" * (1 + -len(GOOD.rstrip("=")) % 4),
    "no padding": text(b"padding is missing here.."[:25]).rstrip("="),
    "half of it": GOOD[: len(GOOD) // 8 * 4],
    "backwards": GOOD[::-1],
    "lower case": GOOD.lower(),
    "base64 twice": text(GOOD.encode()),
    "base64 for URLs": base64.urlsafe_b64encode(b"\xfb\xff\xfe" * 20).decode(),
    "hexadecimal": image("PNG").hex(),
    "bytes of Python": repr(image("PNG")),
    "percent signs": GOOD.replace("/", "%2F").replace("=", "%3D") + "%",
    "quotation marks": f'"{GOOD}"',
    "a path": "/etc/passwd",
    "a path upwards": "../../../../../../etc/passwd",
    "a link to a file": "file:///etc/passwd",
    "a link": "http://169.254.169.254/latest/meta-data/",
    "a bucket": "s3://bucket/photographs/ant.jpg",
    "SQL": "'; DROP TABLE registered_models; --",
    "HTML": "<script>alert(document.cookie)</script>",
    "a template": "{{ 7 * 7 }} ${jndi:ldap://localhost/a} %s%s%s%n",
    "a letter 100,000 times": "A" * 100_000,
    "a bracket 1,000 times": "[" * 1_000,
    "data URI of nothing": "data:",
    "data URI without a comma": "data:image/png;base64",
    "data URI without content": "data:image/png;base64,",
    "data URI of a text": "data:text/plain,the quick brown fox jumps over the lazy dog",
    "data URI of a data URI": f"data:image/png;base64,data:image/png;base64,{GOOD}",
    "data URI in capitals": f"DATA:IMAGE/PNG;BASE64,{GOOD}",
    "data URI after a space": f" data:image/png;base64,{GOOD}",
    "data URI with a semicolon": f"data:image/png;base64;{GOOD}",
    "data URI of percent signs": "data:image/svg+xml,%3Csvg%20xmlns=%22http://www.w3.org/2000/svg%22/%3E",
    "data URI of HTML": f"data:text/html;base64,{text(FILES['HTML'])}",
}
"""What stands where base64 should."""


BAD_IMAGES: dict[str, str] = {
    **{f"file: {name}": text(content) for name, content in FILES.items()},
    **{f"text: {name}": content for name, content in TEXTS.items()},
}
"""Texts that a request may well hold in its column `image`, and that are no image."""


def readable(content: bytes) -> bool:
    try:
        decode(content)
    except UnreadableImageError:
        return False
    return True


@st.composite
def damaged_images(draw: st.DrawFn) -> str:
    """An image cut off or with some bytes changed, in base64; what has stayed readable is left out."""
    whole = draw(st.sampled_from(WHOLE))
    content = bytearray(whole[: draw(st.integers(1, len(whole)))] if draw(st.booleans()) else whole)
    places = st.integers(0, len(content) - 1)
    for place, change in draw(st.lists(st.tuples(places, st.integers(1, 255)), max_size=12)):
        content[place] ^= change
    assume(not readable(bytes(content)))
    return text(bytes(content))


def any_texts() -> st.SearchStrategy[str]:
    """Any text that is Unicode: half characters do not get through MLflow."""
    return st.text(st.characters(exclude_categories=["Cs"]), max_size=200)
