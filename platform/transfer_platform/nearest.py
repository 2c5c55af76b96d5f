"""The name that somebody probably meant."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_SYNONYMS = {
    "lr": "learning_rate",
    "batch": "batch_size",
    "bs": "batch_size",
    "model": "name",
    "val": "validation",
    "valid": "validation",
    "size": "image_size",
    "freeze": "freeze_through",
    "patience": "early_stopping",
    "warmup": "warmup_epochs",
    "min": "low",
    "max": "high",
    "values": "choices",
    "url": "source",
    "path": "source",
    "fp32": "float32",
    "fp16": "float16",
    "bf16": "bfloat16",
}
"""What other tools call the same thing; no spelling distance would find these."""


def nearest(name: str, candidates: Iterable[str]) -> str | None:
    """The candidate that is spelled most like `name`, case aside; none where nothing comes near.

    >>> nearest("epoch", ["epochs", "optimizer"])
    'epochs'
    >>> nearest("lr", ["learning_rate", "schedule"])
    'learning_rate'
    """
    folded = {candidate.casefold(): candidate for candidate in candidates}
    synonym = _SYNONYMS.get(name.casefold())
    if synonym in folded:
        return folded[synonym]
    close = get_close_matches(name.casefold(), folded, n=1, cutoff=0.6)
    return folded[close[0]] if close else None


def did_you_mean(name: str, candidates: Iterable[str]) -> str:
    """`; did you mean epochs?`, or nothing, to be put behind a message."""
    found = nearest(name, candidates)
    return f"; did you mean {found}?" if found else ""
