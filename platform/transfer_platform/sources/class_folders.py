"""Portable folder names derived from class names."""

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence

from transfer_platform.sources.walk import is_ignored

_FORBIDDEN = re.compile(r'[\x00-\x1f\x7f/\\:*?"<>|]+')
_MAX_BYTES = 200


def folder_names(classes: Sequence[str]) -> tuple[str, ...]:
    """Returns a portable, unique folder name for each class, based on the class name.

    Class indices are appended to names that would collide on a case-insensitive file system.

    >>> folder_names(["T-shirt/top", "A", "a", ".."])
    ('T-shirt-top', 'A_1', 'a_2', 'class_3')
    """
    names = [_portable(name) for name in classes]
    counts = Counter(name.casefold() for name in names)
    return tuple(
        name if name and counts[name.casefold()] == 1 else f"{name or 'class'}_{number}"
        for number, name in enumerate(names)
    )


def _portable(name: str) -> str:
    """Replaces characters that some operating systems forbid. Returns an empty string if no usable name remains."""
    cleaned = _FORBIDDEN.sub("-", unicodedata.normalize("NFC", name)).strip(" .")
    shortened = cleaned.encode()[:_MAX_BYTES].decode(errors="ignore").rstrip(" .")
    return "" if is_ignored(shortened) else shortened
