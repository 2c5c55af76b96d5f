"""Detection of damaged images that Pillow decodes without an error.

Pillow leaves pixels black or gray if their data is missing, and ignores the checksums of PNG images.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from io import BytesIO
from math import ceil

from PIL import Image, ImageFile, TiffImagePlugin

_JPEG_END = b"\xff\xd9"


class DamagedDataError(Exception):
    """The data of an image is incomplete or corrupt. The message describes the damage."""


def load_complete(image: Image.Image) -> None:
    """Decodes an image that was opened from memory; does nothing if it is already decoded.

    Raises:
        DamagedDataError: The data does not match its checksums, or is too short for the size in the header.
        Exception: Any error that Pillow raises.
    """
    stream = getattr(image, "fp", None)
    content = stream.getvalue() if isinstance(stream, BytesIO) and getattr(image, "tile", None) else b""
    if not content or not isinstance(image, ImageFile.ImageFile):
        image.load()
    elif image.format == "PNG":
        _load_png(image, content)
    else:
        if image.format in ("JPEG", "MPO"):
            image.fp = _WithoutEndMarker(content, is_last=image.format == "JPEG" and content.endswith(_JPEG_END))
        elif isinstance(image, TiffImagePlugin.TiffImageFile):
            _require_all_strips(image)
        elif image.format == "JPEG2000":
            _require_all_tiles(content[max(0, content.find(b"\xff\x4f\xff\x51")) :])
        image.load()


class _WithoutEndMarker(BytesIO):
    """File content, with the marker after the pixels of a sequential JPEG image replaced by zeros.

    libjpeg fills missing pixels with gray if it reaches a marker, but requires more data if it reaches the end. The
    zeros are needed because libjpeg reads up to eight bytes ahead. Copying the content would take too long.
    """

    def __init__(self, content: bytes, *, is_last: bool) -> None:
        super().__init__(content)
        start = _scan_start(content)
        end = (len(content) - 2 if is_last else content.find(_JPEG_END, start)) if start else -1
        self._end, self._zeros = (end, bytes(8)) if end > 0 else (len(content), b"")

    def read(self, size: int | None = -1, /) -> bytes:
        """Reads at most `size` bytes."""
        left = self._end - self.tell()
        if left > 0:
            return super().read(left if size is None or size < 0 else min(size, left))
        zeros, self._zeros = self._zeros, b""
        return zeros


def _scan_start(content: bytes) -> int:
    """Returns the offset of the pixels in a JPEG file that is Huffman-coded in a single scan; 0 for other files."""
    position, components = 2, b""
    while content[position : position + 1] == b"\xff":
        marker, length = content[position + 1], int.from_bytes(content[position + 2 : position + 4], "big")
        if marker in (0xC0, 0xC1):
            components = content[position + 9 : position + 10]
        elif marker == 0xDA:
            return position + 2 + length if content[position + 4 : position + 5] == components else 0
        position += 1 if marker == 0xFF else 2 + length
    return 0


def _require_all_strips(image: TiffImagePlugin.TiffImageFile) -> None:
    strips, height = image.tag_v2.get(TiffImagePlugin.STRIPOFFSETS), image.tag_v2[TiffImagePlugin.IMAGELENGTH]
    expected = ceil(height / min(image.tag_v2.get(TiffImagePlugin.ROWSPERSTRIP) or height, height))
    if strips and len(strips) < expected:
        raise DamagedDataError(f"it has {len(strips)} of {expected} strips")


def _require_all_tiles(codestream: bytes) -> None:
    size = [int.from_bytes(codestream[place : place + 4], "big") for place in range(8, 40, 4)]
    expected = ceil((size[0] - size[6]) / size[4]) * ceil((size[1] - size[7]) / size[5])
    found = set(re.findall(rb"\xff\x90\0\x0a(..)", codestream, re.DOTALL))  # compressed data never contains a marker
    if len(found) < expected:
        raise DamagedDataError(f"it has {len(found)} of {expected} tiles")


def _load_png(image: Image.Image, content: bytes) -> None:
    parts = list(_verified_parts(memoryview(content)))
    image.load()
    width, height = image.size
    depth, color, interlaced = content[24], content[25], content[28]
    last_row = max(height - 1 - (height % 2 if interlaced else 0), 0)  # in the order of the data
    if any(image.crop((0, last_row, width, last_row + 1)).tobytes()):
        return
    # Counting is slow, so it is done only if the last row is black. An interlaced image has a few bytes more.
    expected = height * (1 + ceil(width * depth * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[color] / 8))
    compressed, inflater, found = b"".join(parts), zlib.decompressobj(), 0
    while compressed and found < expected and (rows := inflater.decompress(compressed, 1 << 20)):
        found, compressed = found + len(rows), inflater.unconsumed_tail
    if found < expected:
        raise DamagedDataError(f"it has {found:,} of {expected:,} bytes of pixel data")


def _verified_parts(content: memoryview) -> Iterator[memoryview]:
    """Yields the compressed pixels of a PNG image after verifying their checksums."""
    position = 8
    while (kind := bytes(content[position + 4 : position + 8])) not in (b"IEND", b""):
        end = position + 8 + int.from_bytes(content[position : position + 4], "big")
        if kind == b"IDAT":
            if zlib.crc32(content[position + 4 : end]) != int.from_bytes(content[end : end + 4], "big"):
                raise DamagedDataError("its data does not match its checksum")
            yield content[position + 8 : end]
        position = end + 4
