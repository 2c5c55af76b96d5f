"""Datasets in installed packages: the handwritten digits of scikit-learn.

1,797 grayscale images of 8 x 8 pixels with 17 levels, from E. Alpaydin and C. Kaynak, "Optical Recognition of
Handwritten Digits", UCI Machine Learning Repository, https://doi.org/10.24432/C50P49.
"""

import gzip
import importlib.util
import struct
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

from transfer_platform.errors import SourceError
from transfer_platform.paths import cache_folder
from transfer_platform.suggest import did_you_mean
from transfer_registry.files import build_once

SIDE, LEVELS = 8, 16

_COLOR_TYPES = {1: 0, 3: 2}
_LARGEST_BLOCK = 65535


def embedded_dataset(name: str) -> Path:
    """Returns the class folders of an embedded dataset (`digits`), written into the cache on first use.

    Raises:
        SourceError: No embedded dataset has this name, or its file is not installed.
    """
    if name not in _WRITERS:
        known = ", ".join(f"embedded:{known}" for known in _WRITERS)
        raise SourceError(f"there is no embedded dataset {name!r}{did_you_mean(name, _WRITERS)}; available: {known}")
    return build_once(cache_folder() / "embedded" / name, _WRITERS[name])


def encode_png(pixels: bytes, width: int, channels: int = 1) -> bytes:
    """Encodes an uncompressed 8-bit PNG, the same bytes on every machine.

    Splits depend on these bytes, and other encoders change with their version. The file consists of the necessary
    parts of https://www.w3.org/TR/png-3/ with the stored blocks of RFC 1951, section 3.2.4.

    Args:
        pixels: Rows from top to bottom, `channels` bytes per pixel.
        width: Pixels per row.
        channels: 1 for grayscale, 3 for RGB.
    """
    stride = width * channels
    rows = b"".join(b"\0" + pixels[start : start + stride] for start in range(0, len(pixels), stride))
    header = struct.pack(">IIBBBBB", width, len(pixels) // stride, 8, _COLOR_TYPES[channels], 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", _zlib_stored(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_png_chunk(kind, data) for kind, data in chunks)


def _zlib_stored(data: bytes) -> bytes:
    """Returns an uncompressed zlib stream (RFC 1950); zlib's own block sizes depend on its version."""
    stream = b"\x78\x01"
    for start in range(0, len(data), _LARGEST_BLOCK):
        block = data[start : start + _LARGEST_BLOCK]
        is_last = start + _LARGEST_BLOCK >= len(data)
        stream += struct.pack("<BHH", is_last, len(block), len(block) ^ 0xFFFF) + block
    return stream + struct.pack(">I", zlib.adler32(data))


def _png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _write_digits(folder: Path) -> None:
    rows = gzip.decompress(_digits_file().read_bytes()).decode("ascii").splitlines()
    for label in range(10):
        (folder / str(label)).mkdir()
    for number, row in enumerate(rows):
        *levels, label = (int(float(value)) for value in row.split(","))
        pixels = bytes((level * 255 + LEVELS // 2) // LEVELS for level in levels)
        (folder / str(label) / f"{number:04d}.png").write_bytes(encode_png(pixels, SIDE))


def _digits_file() -> Path:
    """Locates the file without importing scikit-learn, which takes two seconds."""
    package = importlib.util.find_spec("sklearn")
    for folder in (package.submodule_search_locations or ()) if package else ():
        file = Path(folder) / "datasets" / "data" / "digits.csv.gz"
        if file.is_file():
            return file
    raise SourceError(
        "embedded:digits needs the file datasets/data/digits.csv.gz of scikit-learn, which is not installed; "
        "pip install --force-reinstall scikit-learn"
    )


_WRITERS: Mapping[str, Callable[[Path], None]] = {"digits": _write_digits}
