"""Small images, made on the spot."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest

from transfer_platform.sources.png import encode_png

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture(scope="session")
def write_image() -> Callable[[Path, str], None]:
    """Writes an 8 x 8 PNG that its text determines."""

    def write(path: Path, text: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_png(hashlib.sha512(text.encode()).digest(), 8))

    return write
