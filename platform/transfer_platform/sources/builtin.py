"""Datasets bundled with installed packages: scikit-learn's handwritten digits.

The digits are 1,797 grayscale images (8 x 8 pixels, 17 gray levels) from E. Alpaydin and C. Kaynak, "Optical
Recognition of Handwritten Digits", UCI Machine Learning Repository, https://doi.org/10.24432/C50P49.
"""

import gzip
import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path

from transfer_platform.errors import SourceError
from transfer_platform.paths import cache_folder
from transfer_platform.sources.png import encode_png
from transfer_platform.suggest import did_you_mean
from transfer_registry.files import build_once

SIDE, LEVELS = 8, 16


def embedded_dataset(name: str) -> Path:
    """Returns the folder of an embedded dataset (`digits`); writes the dataset to the cache on first use.

    Raises:
        SourceError: There is no embedded dataset with this name, or its data file is not installed.
    """
    if name not in _WRITERS:
        known = ", ".join(f"embedded:{known}" for known in _WRITERS)
        raise SourceError(f"unknown embedded dataset {name!r}{did_you_mean(name, _WRITERS)}; available: {known}")
    return build_once(cache_folder() / "embedded" / name, _WRITERS[name])


def _write_digits(folder: Path) -> None:
    rows = gzip.decompress(_digits_file().read_bytes()).decode("ascii").splitlines()
    for label in range(10):
        (folder / str(label)).mkdir()
    for number, row in enumerate(rows):
        *levels, label = (int(float(value)) for value in row.split(","))
        pixels = bytes((level * 255 + LEVELS // 2) // LEVELS for level in levels)
        (folder / str(label) / f"{number:04d}.png").write_bytes(encode_png(pixels, SIDE))


def _digits_file() -> Path:
    """Returns the path of the data file without importing scikit-learn, which would take two seconds."""
    package = importlib.util.find_spec("sklearn")
    for folder in (package.submodule_search_locations or ()) if package else ():
        file = Path(folder) / "datasets" / "data" / "digits.csv.gz"
        if file.is_file():
            return file
    raise SourceError(
        "embedded:digits requires the scikit-learn file datasets/data/digits.csv.gz, which is not installed; "
        "run pip install --force-reinstall scikit-learn"
    )


_WRITERS: Mapping[str, Callable[[Path], None]] = {"digits": _write_digits}
