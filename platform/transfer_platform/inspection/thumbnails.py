"""Small images for reports, as data URIs: a page that shows them asks nobody for anything."""

from __future__ import annotations

import base64
from io import BytesIO
from pathlib import Path

SIDE = 112
"""Longest side in pixels."""
LARGEST = 100_000_000
"""Bytes of a file that is still read for a thumbnail."""

_QUALITY = 70


def thumbnail(path: Path) -> str:
    """A JPEG of at most 112 x 112 pixels as a `data:` URI; empty where the file is no image, or huge."""
    from transfer_model.errors import UnreadableImageError
    from transfer_model.preprocessing import decode

    try:
        if not path.is_file() or path.stat().st_size > LARGEST:  # a pipe would be waited for
            return ""
        image = decode(path, min_side=SIDE)
    except (OSError, UnreadableImageError):
        return ""
    image.thumbnail((SIDE, SIDE))
    content = BytesIO()
    image.save(content, "JPEG", quality=_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(content.getvalue()).decode()
