"""Data sets that come with the install: scikit-learn's handwritten digits.

1,797 grey images of 8 x 8 pixels with 17 levels, from E. Alpaydin and C. Kaynak, "Optical Recognition of
Handwritten Digits", UCI Machine Learning Repository, https://doi.org/10.24432/C50P49.
"""

from __future__ import annotations

import gzip
import importlib.util
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from transfer_platform.errors import SourceError
from transfer_platform.paths import cache_folder
from transfer_platform.sources.png import png
from transfer_platform.suggest import did_you_mean
from transfer_registry.files import build_once

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

SIDE, LEVELS = 8, 16


def embedded_dataset(name: str) -> Path:
    """The folder of an embedded data set, written into the cache the first time.

    Args:
        name: `digits`.

    Returns:
        A folder with one folder per class.

    Raises:
        SourceError: No embedded data set has this name, or its installed file is gone.
    """
    if name not in _WRITERS:
        known = ", ".join(f"embedded:{known}" for known in _WRITERS)
        raise SourceError(
            f"no data set is embedded as {name!r}{did_you_mean(name, _WRITERS)}; there is {known}"
        )
    return build_once(cache_folder() / "embedded" / name, _WRITERS[name])


def _write_digits(folder: Path) -> None:
    rows = gzip.decompress(_digits_file().read_bytes()).decode("ascii").splitlines()
    for label in range(10):
        (folder / str(label)).mkdir()
    for number, row in enumerate(rows):
        *levels, label = (int(float(value)) for value in row.split(","))
        grey = bytes((level * 255 + LEVELS // 2) // LEVELS for level in levels)
        (folder / str(label) / f"{number:04d}.png").write_bytes(png(grey, SIDE))


def _digits_file() -> Path:
    """Found without importing scikit-learn, which takes two seconds."""
    package = importlib.util.find_spec("sklearn")
    for folder in (package.submodule_search_locations or ()) if package else ():
        file = Path(folder) / "datasets" / "data" / "digits.csv.gz"
        if file.is_file():
            return file
    raise SourceError(
        "embedded:digits needs scikit-learn's file datasets/data/digits.csv.gz, which is not installed; "
        "pip install --force-reinstall scikit-learn"
    )


_WRITERS: Mapping[str, Callable[[Path], None]] = MappingProxyType({"digits": _write_digits})
