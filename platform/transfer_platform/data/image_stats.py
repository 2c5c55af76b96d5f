"""Image statistics from one decoding pass: size, format and a 16 x 16 thumbnail."""

from __future__ import annotations

import hashlib
import os
import struct
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from transfer_model.errors import cause
from transfer_platform.disk_cache import DiskCache
from transfer_registry.errors import StorageError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL import Image

    from transfer_model.intensity import Intensity

THUMBNAIL_SIDE = 16
"""Side of a thumbnail in pixels."""

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue for computing brightness (ITU-R BT.601)."""

HEADER_DTYPE = np.dtype(
    {
        "names": ["width", "height", "format", "mode", "frames", "orientation", "transparent", "lowest", "highest"],
        "formats": ["<u4", "<u4", "S8", "S8", "<u2", "u1", "u1", "<f8", "<f8"],
    }
)
"""Header of one image: size in pixels after EXIF rotation, Pillow's names for the format and original mode (`RGB;16` if
Pillow drops the lower bits of 16-bit colors), number of frames, EXIF orientation (1 to 8), whether the image has
transparency (0 or 1), and the smallest and largest gray value of an image with more than 8 bits (otherwise 0).
"""

STATS_BYTES = HEADER_DTYPE.itemsize + 3 * THUMBNAIL_SIDE**2
"""Size in bytes of the packed statistics of one image: the header, followed by the (16, 16, 3) thumbnail."""

_HEADER = struct.Struct("<II8s8sHB?dd")
_MIN_DECODED_SIDE = 4 * THUMBNAIL_SIDE
"""Minimum length of the shorter side, in pixels, when a JPEG is decoded at a reduced size."""


def compute_stats(content: bytes, name: str) -> bytes:
    """Fully decodes an image and returns a packed `HEADER_DTYPE` record followed by the RGB thumbnail.

    If the image has more than 8 bits, its smallest value is black in the thumbnail, and its largest value is white.

    Raises:
        UnreadableImageError: The image cannot be decoded; `transfer_model.decode.decode` rejects the same images.
    """
    from PIL import Image

    from transfer_model.decode import exif_orientation, open_image, original_mode, to_rgb
    from transfer_model.formats import FORMATS
    from transfer_model.intensity import Intensity, is_deep, value_range

    image = open_image(content, name)
    image_format, mode, size = image.format or "", original_mode(image), image.size
    # Must come first to reject exactly what `decode` rejects: reading other attributes may seek or load the file.
    pixels = to_rgb(image, name, min_side=_MIN_DECODED_SIDE)
    lowest, highest = value_range(image) if is_deep(image.mode) else (0.0, 0.0)
    if lowest < highest:
        pixels = to_rgb(image, name, intensity=Intensity(lowest, highest))
    reopened = open_image(content, name) if FORMATS[image_format].frames else image
    orientation = exif_orientation(reopened if image_format == "TIFF" else image)
    if not FORMATS[image_format].reducible:
        size = pixels.size
    elif orientation >= 5:  # swaps width and height
        size = size[::-1]
    thumbnail = pixels.resize((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.BILINEAR, reducing_gap=3.0)
    header = _HEADER.pack(
        *size,
        image_format.encode("ascii"),
        mode.encode("ascii"),
        min(_count_frames(reopened), 65535),
        orientation,
        image.has_transparency_data,
        lowest,
        highest,
    )
    return header + thumbnail.tobytes()


def deep_images(headers: NDArray[np.void]) -> NDArray[np.bool_]:
    """Returns a mask (N,) of grayscale images with more than 8 bits per pixel, given `HEADER_DTYPE` records (N,)."""
    from transfer_model.intensity import is_deep

    modes, indices = np.unique(headers["mode"], return_inverse=True)
    mask: NDArray[np.bool_] = np.array([is_deep(mode.decode("ascii", "replace")) for mode in modes.tolist()], np.bool_)[
        indices
    ]
    return mask


def image_stats_cache() -> DiskCache:
    """Returns the cache of packed statistics for the installed decoders, keyed by each file's SHA-256."""
    from transfer_model import damage, decode, formats, intensity

    digest = hashlib.sha256(formats.decoder_versions().encode())
    for file in (__file__, damage.__file__, decode.__file__, formats.__file__, intensity.__file__):
        digest.update(Path(str(file)).read_bytes())
    return DiskCache(f"image statistics {digest.hexdigest()[:16]}")


class ImageStats:
    """Per-image statistics, keyed by the SHA-256 of the image file.

    Thumbnails are stored in a temporary file, because a million of them would take up nearly a gigabyte of
    memory. Methods raise a `StorageError` if this file cannot be written.
    """

    def __init__(self) -> None:
        self._rows: dict[str, int] = {}
        self._headers = bytearray()
        try:
            self._thumbnails = tempfile.TemporaryFile()  # noqa: SIM115 - closed in __del__
        except OSError as error:
            raise _storage_error(error) from error

    def __del__(self) -> None:
        with suppress(AttributeError, OSError):
            self._thumbnails.close()

    def __contains__(self, digest: str) -> bool:
        return digest in self._rows

    def add(self, digest: str, packed: bytes) -> None:
        """Adds the result of `compute_stats`; does nothing if the digest is already present."""
        if digest in self._rows:
            return
        try:
            self._thumbnails.write(packed[HEADER_DTYPE.itemsize :])
        except OSError as error:
            raise _storage_error(error) from error
        self._headers += packed[: HEADER_DTYPE.itemsize]
        self._rows[digest] = len(self._rows)

    def rows(self, digests: Iterable[str]) -> NDArray[np.int64]:
        """Returns the row numbers (N,) of N digests; raises a `KeyError` if a digest is unknown."""
        return np.fromiter((self._rows[digest] for digest in digests), np.int64)

    def headers(self, rows: NDArray[np.int64]) -> NDArray[np.void]:
        """Returns the headers of the given rows (N,) as a `HEADER_DTYPE` array (N,)."""
        headers: NDArray[np.void] = np.frombuffer(bytes(self._headers), HEADER_DTYPE)[rows]
        return headers

    def thumbnails(self, rows: NDArray[np.int64], intensity: Intensity | None = None) -> NDArray[np.uint8]:
        """Returns the RGB thumbnails (N, 16, 16, 3) of the given rows (N,).

        `intensity` is the range of gray values in images with more than 8 bits; None means the full scale.
        """
        thumbnails = self._read_thumbnails(rows)
        headers = self.headers(rows)
        for row in np.flatnonzero(deep_images(headers)).tolist():
            thumbnails[row] = _rescaled(thumbnails[row], headers[row], intensity)
        return thumbnails

    def _read_thumbnails(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        thumbnails = np.empty((len(rows), THUMBNAIL_SIDE, THUMBNAIL_SIDE, 3), np.uint8)
        try:
            for row, thumbnail in zip(rows.tolist(), thumbnails, strict=True):
                self._thumbnails.seek(row * thumbnail.nbytes)
                self._thumbnails.readinto(thumbnail.data)
            self._thumbnails.seek(0, os.SEEK_END)
        except OSError as error:  # `seek` flushes the write buffer
            raise _storage_error(error) from error
        return thumbnails


def _storage_error(error: OSError) -> StorageError:
    return StorageError(
        f"image statistics cannot be written to {tempfile.tempdir or 'any temporary folder'}: {cause(error)}; "
        "set the TMPDIR environment variable to a folder with more free space"
    )


def _rescaled(thumbnail: NDArray[np.uint8], header: np.void, intensity: Intensity | None) -> NDArray[np.float64]:
    """Rescales a thumbnail from the image's own range to `intensity`, or to the full scale if `intensity` is None."""
    from transfer_model.intensity import full_scale

    lowest, highest = float(header["lowest"]), float(header["highest"])
    low, high = (intensity.low, intensity.high) if intensity else (0.0, full_scale(header["mode"].decode(), highest))
    values = lowest + thumbnail / 255 * (highest - lowest)
    scaled: NDArray[np.float64] = np.rint(np.clip((values - low) / (high - low), 0, 1) * 255)
    return scaled


def _count_frames(image: Image.Image) -> int:
    """Returns the number of animation frames; always 1 for formats that do not support animation, such as MPO."""
    from transfer_model.formats import FORMATS

    if not FORMATS[image.format or ""].frames:
        return 1
    try:
        return int(getattr(image, "n_frames", 1))
    except Exception:  # noqa: BLE001 - later frames are corrupt, but only the first one is used
        return 1
