"""PNG encoder whose output does not depend on library versions."""

import struct
import zlib

_COLOR_TYPES = {1: 0, 3: 2}
_LARGEST_BLOCK = 65535


def encode_png(pixels: bytes, width: int, channels: int = 1) -> bytes:
    """Encodes pixels as an uncompressed 8-bit PNG file that is byte-identical on every machine.

    Dataset splits depend on these bytes, but the output of other encoders varies between versions. The file consists of
    the mandatory chunks defined in https://www.w3.org/TR/png-3/ and uses uncompressed blocks (RFC 1951, section 3.2.4).

    Args:
        pixels: Rows of pixels from top to bottom, with `channels` bytes per pixel.
        width: Pixels per row.
        channels: 1 for grayscale, 3 for RGB.
    """
    stride = width * channels
    rows = b"".join(b"\0" + pixels[start : start + stride] for start in range(0, len(pixels), stride))
    header = struct.pack(">IIBBBBB", width, len(pixels) // stride, 8, _COLOR_TYPES[channels], 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", _zlib_stored(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_png_chunk(kind, data) for kind, data in chunks)


def _zlib_stored(data: bytes) -> bytes:
    """Returns an uncompressed zlib stream (RFC 1950). zlib is not used: its block sizes vary between versions."""
    stream = b"\x78\x01"
    for start in range(0, len(data), _LARGEST_BLOCK):
        block = data[start : start + _LARGEST_BLOCK]
        is_last = start + _LARGEST_BLOCK >= len(data)
        stream += struct.pack("<BHH", is_last, len(block), len(block) ^ 0xFFFF) + block
    return stream + struct.pack(">I", zlib.adler32(data))


def _png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
