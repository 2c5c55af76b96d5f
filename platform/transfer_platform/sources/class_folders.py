"""Folders for classes whose names were never meant to be names of folders."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from typing import TYPE_CHECKING

from transfer_platform.sources.walk import is_ignored

if TYPE_CHECKING:
    from collections.abc import Sequence

_FORBIDDEN = re.compile(r'[\x00-\x1f\x7f/\\:*?"<>|]+')
_MAX_BYTES = 200


def folder_names(classes: Sequence[str]) -> tuple[str, ...]:
    """A name of a folder for every class, the same on every system; most are the class's own.

    Classes that one folder would hold on some system (`A` and `a`) get their number behind the name.

    >>> folder_names(["T-shirt/top", "A", "a", ".."])
    ('T-shirt-top', 'A_1', 'a_2', 'class_3')
    """
    names = [_safe(name) for name in classes]
    taken = Counter(name.casefold() for name in names)
    return tuple(
        name if name and taken[name.casefold()] == 1 else f"{name or 'class'}_{number}"
        for number, name in enumerate(names)
    )


def _safe(name: str) -> str:
    """Without what a system forbids in names or hides; may be empty."""
    cleaned = _FORBIDDEN.sub("-", unicodedata.normalize("NFC", name)).strip(" .")
    cut = cleaned.encode()[:_MAX_BYTES].decode(errors="ignore").rstrip(" .")
    return "" if is_ignored(cut) else cut
