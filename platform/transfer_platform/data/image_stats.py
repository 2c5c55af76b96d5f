"""What one decoding of an image tells: size, format, a tiny sketch; and what it told of many images."""

from __future__ import annotations

import os
import struct
import tempfile
from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np

from transfer_registry.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray
    from PIL import Image

THUMBNAIL_SIDE = 16
"""Side of a sketch in pixels."""

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in brightness, ITU-R BT.601."""

HEADER_DTYPE = np.dtype(
    [
        ("width", "<u4"),
        ("height", "<u4"),
        ("format", "S8"),
        ("mode", "S8"),
        ("frames", "<u2"),
        ("orientation", "u1"),
        ("transparent", "u1"),
    ]
)
"""Of one image, upright: its sides in pixels, Pillow's names of its format and of its mode before it became
RGB, how many images the file holds, how EXIF says that it lies (1 to 8), whether it has transparency.
"""

STATS_BYTES = HEADER_DTYPE.itemsize + 3 * THUMBNAIL_SIDE**2
"""Of a look: the facts, and all of the image squeezed into a sketch of 16 x 16 RGB pixels."""

_HEADER = struct.Struct("<II8s8sHB?")
_MOST_FRAMES = 65535
_ANIMATED = ("GIF", "PNG", "WEBP", "TIFF")
_DRAFTED = ("JPEG", "MPO")
"""Formats of which fewer pixels may be computed than there are."""
_ENOUGH = 4 * THUMBNAIL_SIDE
"""Pixels of the shorter side that a sketch is made of; a JPEG is decoded to no more than it takes."""
_TURNED = 5
"""The first of EXIF's orientations with the sides exchanged."""


def compute_stats(content: bytes, name: str) -> bytes:
    """Decodes an image to its last pixel.

    Args:
        content: Of the file.
        name: For errors.

    Returns:
        `HEADER_DTYPE` and a sketch, `STATS_BYTES` of them.

    Raises:
        UnreadableImageError: As of `transfer_model.preprocessing.decode`.
    """
    from PIL import Image

    from transfer_model.preprocessing import exif_orientation, open_image, to_rgb

    image = open_image(content, name)
    kind, mode, size = image.format or "", image.mode, image.size
    # First of all: it refuses what `decode` refuses, and what is asked later may move in the file or load it.
    pixels = to_rgb(image, name, min_side=_ENOUGH)
    again = open_image(content, name) if kind in _ANIMATED else image
    turn = exif_orientation(again if kind == "TIFF" else image)
    if kind not in _DRAFTED:
        size = pixels.size
    elif turn >= _TURNED:
        size = size[::-1]
    sketch = pixels.resize((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.BILINEAR, reducing_gap=3.0)
    names = kind.encode("ascii"), mode.encode("ascii")
    rest = min(_frames(again), _MOST_FRAMES), turn, image.has_transparency_data
    return _HEADER.pack(*size, *names, *rest) + sketch.tobytes()


class ImageStats:
    """What was seen of images, by the SHA-256 of their files.

    Sketches lie in a temporary file: a million of them would take most of a gigabyte of memory. Its methods
    raise a `StorageError` where there is no room for it.
    """

    def __init__(self) -> None:
        self._rows: dict[str, int] = {}
        self._facts = bytearray()
        try:
            self._sketches = tempfile.TemporaryFile()  # noqa: SIM115 - closed with this
        except OSError as error:
            raise _no_room(error) from error

    def __del__(self) -> None:
        with suppress(AttributeError, OSError):
            self._sketches.close()

    def __contains__(self, digest: str) -> bool:
        return digest in self._rows

    def add(self, digest: str, look: bytes) -> None:
        """Keeps a look, as `look` gives it, unless there is one of this digest."""
        if digest in self._rows:
            return
        try:
            self._sketches.write(look[HEADER_DTYPE.itemsize :])
        except OSError as error:
            raise _no_room(error) from error
        self._facts += look[: HEADER_DTYPE.itemsize]
        self._rows[digest] = len(self._rows)

    def rows(self, digests: Iterable[str]) -> NDArray[np.int64]:
        """Where the looks of N digests are (N,); each must be known."""
        return np.fromiter((self._rows[digest] for digest in digests), np.int64)

    def headers(self, rows: NDArray[np.int64]) -> NDArray[np.void]:
        """The `HEADER_DTYPE` of some rows (N,), as an array (N,)."""
        facts: NDArray[np.void] = np.frombuffer(bytes(self._facts), HEADER_DTYPE)[rows]
        return facts

    def thumbnails(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """The sketches of some rows (N,), as an array (N, 16, 16, 3)."""
        sketches = np.empty((len(rows), THUMBNAIL_SIDE, THUMBNAIL_SIDE, 3), np.uint8)
        try:
            for row, sketch in zip(rows.tolist(), sketches, strict=True):
                self._sketches.seek(row * sketch.nbytes)
                self._sketches.readinto(sketch.data)
            self._sketches.seek(0, os.SEEK_END)
        except OSError as error:  # what was still in a buffer is written first
            raise _no_room(error) from error
        return sketches


def _no_room(error: OSError) -> StorageError:
    folder = tempfile.tempdir or "any folder"
    return StorageError(
        f"what is seen of the images cannot be kept in {folder}: {error.strerror}; "
        "name a folder with more room in the environment variable TMPDIR"
    )


def _frames(image: Image.Image) -> int:
    """How many images an animation has; those of a camera's MPO are not one after another."""
    if image.format not in _ANIMATED:
        return 1
    try:
        return int(getattr(image, "n_frames", 1))
    except Exception:  # noqa: BLE001 - what is damaged behind the first frame is not looked at
        return 1
