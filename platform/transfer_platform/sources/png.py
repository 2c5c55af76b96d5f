"""PNG files that are the same bytes on every machine, whatever library decodes them later.

Encoders choose row filters and compression by their version, and the splits hang on the bytes. So this writes
the few parts of https://www.w3.org/TR/png-3/ that are needed, with the stored blocks of RFC 1951, 3.2.4 laid
out here: where zlib cuts them depends on its version and on its caller's buffer.
"""

from __future__ import annotations

import struct
import zlib

_COLOUR_TYPES = {1: 0, 3: 2}
_LARGEST_BLOCK = 65535


def png(pixels: bytes, width: int, channels: int = 1) -> bytes:
    """An 8-bit PNG without compression.

    Args:
        pixels: Rows from top to bottom, `channels` bytes a pixel.
        width: Pixels in a row.
        channels: 1 for grey, 3 for red, green and blue.
    """
    stride = width * channels
    rows = b"".join(b"\0" + pixels[start : start + stride] for start in range(0, len(pixels), stride))
    header = struct.pack(">IIBBBBB", width, len(pixels) // stride, 8, _COLOUR_TYPES[channels], 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", _stored(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, data) for kind, data in chunks)


def _stored(data: bytes) -> bytes:
    """A zlib stream (RFC 1950) that holds `data` as it is, in blocks as large as they may be."""
    starts = range(0, len(data), _LARGEST_BLOCK)
    blocks = [_block(data[start : start + _LARGEST_BLOCK], last=start == starts[-1]) for start in starts]
    return b"\x78\x01" + b"".join(blocks) + struct.pack(">I", zlib.adler32(data))


def _block(data: bytes, *, last: bool) -> bytes:
    return struct.pack("<BHH", last, len(data), len(data) ^ 0xFFFF) + data


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
