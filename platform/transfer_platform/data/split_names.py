"""What splits are usually called, in folders and in the column of a manifest. Anybody may import it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

SPLIT_NAMES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "train": ("train", "training"),
        "validation": ("validation", "valid", "val", "validate", "dev", "development"),
        "test": ("test", "testing"),
    }
)
"""By split, in lower case; `Train_Set`, `test images` and `val2017` count as well."""

_NOUNS = re.compile(r"(?<=.)(sets?|data|images|split)$")


def split_for_name(name: str) -> str:
    """The split that a folder or a word of this name usually means; empty for another one.

    >>> [role_of(name) for name in (" VALID", "training_set", "val2017", "ants")]
    ['validation', 'train', 'validation', '']
    """
    plain = re.sub(r"[\W_]|\d+$", "", name.casefold())
    return _exactly(plain) or _exactly(_NOUNS.sub("", plain))


def _exactly(plain: str) -> str:
    return next((role for role, names in SPLIT_NAMES.items() if plain in names), "")
