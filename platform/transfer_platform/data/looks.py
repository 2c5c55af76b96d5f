"""What one decoding of a picture tells: size, format, a tiny sketch; remembered by content."""

from __future__ import annotations

import hashlib
import sqlite3
import struct
from contextlib import closing, suppress
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray
    from PIL import Image

SKETCH = 16
"""Side of a sketch in pixels."""

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in brightness, ITU-R BT.601."""

LOOK = np.dtype(
    [
        ("width", "<u4"),
        ("height", "<u4"),
        ("format", "S8"),
        ("mode", "S8"),
        ("frames", "<u2"),
        ("orientation", "u1"),
        ("transparent", "u1"),
        ("sketch", "u1", (SKETCH, SKETCH, 3)),
    ]
)
"""One picture, upright: its sides in pixels, Pillow's names of its format and of its mode before it became
RGB, how many pictures the file holds, how EXIF says that it lies (1 to 8), whether it has transparency; and
all of it squeezed into a sketch of 16 x 16 RGB pixels.
"""

_HEADER = struct.Struct("<II8s8sHB?")
_MOST_FRAMES = 65535
_ANIMATED = ("GIF", "PNG", "WEBP", "TIFF")
_MANY = 500
"""Parameters that every SQLite takes in one statement."""


def look(content: bytes, name: str) -> bytes:
    """Decodes a picture to its last pixel.

    Args:
        content: Of the file.
        name: For errors.

    Returns:
        A `LOOK`, packed.

    Raises:
        UnreadableImageError: As of `transfer_model.preprocessing.decode`.
    """
    from PIL import Image

    from transfer_model.preprocessing import opened, orientation, upright

    image = opened(content, name)
    # Before it is decoded: Pillow forgets some of it then.
    kind, mode, transparent, frames = image.format, image.mode, image.has_transparency_data, _frames(image)
    pixels = upright(image, name)
    facts = (kind or "", mode), (min(frames, _MOST_FRAMES), orientation(image), transparent)
    sketch = pixels.resize((SKETCH, SKETCH), Image.Resampling.BILINEAR, reducing_gap=3.0)
    texts = (text.encode("ascii") for text in facts[0])
    return _HEADER.pack(*pixels.size, *texts, *facts[1]) + sketch.tobytes()


def table(looks: Iterable[bytes]) -> NDArray[np.void]:
    """Packed looks as one structured array (N,)."""
    return np.frombuffer(b"".join(looks), LOOK)


class LookMemory:
    """Looks by the SHA-256 of what was looked at.

    It only saves time: one that is lost, damaged, or cannot be written to is done without. Any number of
    processes may use it at once.

    Args:
        file: A database; made where it does not exist.
    """

    def __init__(self, file: Path) -> None:
        self._file = file

    def recall(self, digests: Iterable[str]) -> dict[str, bytes]:
        """The looks that are known among these."""
        wanted, found = list(digests), dict[str, bytes]()
        if not self._file.is_file():
            return found
        with suppress(sqlite3.Error, OSError), closing(sqlite3.connect(self._file)) as database:
            for start in range(0, len(wanted), _MANY):
                some = wanted[start : start + _MANY]
                places = ",".join("?" * len(some))
                rows = database.execute(f"SELECT sha256, look FROM looks WHERE sha256 IN ({places})", some)  # noqa: S608
                found |= {digest: packed for digest, packed in rows if len(packed) == LOOK.itemsize}
        return found

    def learn(self, looks: Mapping[str, bytes]) -> None:
        """Keeps looks by digest."""
        if not looks:
            return
        with suppress(sqlite3.Error, OSError):
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self._file)) as database, database:
                database.execute("PRAGMA synchronous = OFF")  # what a power cut spoils is looked at again
                database.execute("CREATE TABLE IF NOT EXISTS looks (sha256 TEXT PRIMARY KEY, look BLOB)")
                database.executemany("INSERT OR REPLACE INTO looks VALUES (?, ?)", looks.items())


def look_memory() -> LookMemory:
    """That of this code and this Pillow, in the cache."""
    import transfer_model.preprocessing
    from transfer_platform.storage import cache_folder

    digest = hashlib.sha256(version("pillow").encode())
    for module in (__file__, transfer_model.preprocessing.__file__):
        digest.update(Path(str(module)).read_bytes())
    return LookMemory(cache_folder() / "looks" / f"{digest.hexdigest()[:16]}.db")


def _frames(image: Image.Image) -> int:
    """How many pictures an animation has; those of a camera's MPO are not one after another."""
    if image.format not in _ANIMATED:
        return 1
    try:
        return int(getattr(image, "n_frames", 1))
    except Exception:  # noqa: BLE001 - what is damaged behind the first frame is not looked at
        return 1
    finally:
        image.seek(0)
