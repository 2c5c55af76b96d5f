"""Suggestions for misspelled names."""

from collections.abc import Iterable
from difflib import get_close_matches

_SYNONYMS = {
    "lr": "learning_rate", "batch": "batch_size", "bs": "batch_size", "warmup": "warmup_epochs",
    "model": "name", "freeze": "freeze_through", "patience": "early_stopping", "size": "image_size",
    "val": "validation", "valid": "validation", "url": "source", "path": "source",
    "min": "low", "max": "high", "values": "choices",
    "fp32": "float32", "fp16": "float16", "bf16": "bfloat16",
}  # fmt: skip
"""Maps names used by other tools to the names used here if they are too different to be matched automatically."""


def closest_match(name: str, candidates: Iterable[str]) -> str | None:
    """Returns the candidate most similar to `name`, ignoring case; `None` if no candidate is similar.

    A path ending in `name` takes precedence over a synonym, and a synonym over a similar spelling.

    >>> closest_match("epoch", ["epochs", "optimizer"])
    'epochs'
    >>> closest_match("lr", ["learning_rate", "schedule"])
    'learning_rate'
    >>> closest_match("train", ["photos/train", "trains"])
    'photos/train'
    """
    names = sorted(candidates, key=lambda candidate: (candidate.count("/"), candidate))
    if paths := [candidate for candidate in names if candidate.endswith(f"/{name}")]:
        return paths[0]
    folded = {candidate.casefold(): candidate for candidate in reversed(names)}
    synonym = _SYNONYMS.get(name.casefold())
    if synonym in folded:
        return folded[synonym]
    similar = get_close_matches(name.casefold(), folded, n=1)
    return folded[similar[0]] if similar else None


def did_you_mean(name: str, candidates: Iterable[str]) -> str:
    """Returns a suffix for a message about an unknown name, or an empty string if no candidate is similar.

    >>> did_you_mean("tarin", ["train", "test"])
    "; did you mean 'train'?"
    """
    match = closest_match(name, candidates)
    return f"; did you mean {match!r}?" if match else ""
