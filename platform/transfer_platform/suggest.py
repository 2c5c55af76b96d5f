"""The nearest name that exists, for messages about one that does not."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


def did_you_mean(wrong: str, known: Iterable[str]) -> str:
    """What to append to a message about a name that is not there.

    Args:
        wrong: The name or relative path that was asked for.
        known: Those that exist; a path that ends in `wrong` is nearer than one that is spelt alike.

    Returns:
        `"; did you mean 'x'?"`, or nothing where nothing is near.

    >>> did_you_mean("tarin", ["train", "test"])
    "; did you mean 'train'?"
    >>> did_you_mean("train", ["photos/train", "trains"])
    "; did you mean 'photos/train'?"
    """
    names = sorted(known, key=lambda name: (name.count("/"), name))
    deeper = [name for name in names if name.endswith(f"/{wrong}")]
    nearest = deeper or difflib.get_close_matches(wrong, names, n=1)
    return f"; did you mean {nearest[0]!r}?" if nearest else ""
