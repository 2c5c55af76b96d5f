"""Names commonly used for splits in folder names and manifest `split` columns."""

import re
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType

SPLIT_NAMES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "train": ("train", "training"),
        "validation": ("validation", "valid", "val", "validate", "dev", "development"),
        "test": ("test", "testing"),
    }
)
"""Lowercase names for each split; variants such as `Train_Set`, `test images` and `val2017` match as well."""

_SUFFIX_NOUNS = re.compile(r"(?<=.)(sets?|data|images|split)$")


@lru_cache(maxsize=4096)
def split_for_name(name: str) -> str:
    """Returns the split that a folder name or `split` cell refers to, or an empty string if it is not a split name.

    >>> [split_for_name(name) for name in (" VALID", "training_set", "val2017", "ants")]
    ['validation', 'train', 'validation', '']
    """
    plain = re.sub(r"[\W_]|\d+$", "", name.casefold())
    return _lookup(plain) or _lookup(_SUFFIX_NOUNS.sub("", plain))


def _lookup(plain: str) -> str:
    return next((split for split, names in SPLIT_NAMES.items() if plain in names), "")
