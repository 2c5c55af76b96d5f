"""Dataset sources except the internet."""

from __future__ import annotations

import gzip
import importlib.util
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from transfer_platform.data.catalog import scan_folder
from transfer_platform.data.splits import fingerprint
from transfer_platform.errors import SourceError
from transfer_platform.paths import cache_folder
from transfer_platform.sources.open import open_source


def test_a_folder_is_relative_to_the_recipe(isolated: Path) -> None:
    (isolated / "recipes").mkdir()
    (isolated / "photos").mkdir()
    assert open_source("../photos", isolated / "recipes") == isolated / "photos"
    assert open_source(str(isolated / "photos"), isolated / "recipes") == isolated / "photos"


def test_an_archive_is_unpacked(isolated: Path) -> None:
    with zipfile.ZipFile(isolated / "photos.zip", "w") as archive:
        archive.writestr("train/a", "x")
    assert (open_source("photos.zip", isolated) / "train" / "a").read_bytes() == b"x"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("fotos", "did you mean 'photos'"),
        ("nowhere/photos", r"nowhere/photos does not exist, nor does .*/nowhere"),
        ("embedded:digit", "did you mean 'digits'"),
        ("ftp://host/photos.zip", r"must start with http:// or https://"),
        ("file:///etc/passwd", r"must start with http:// or https://"),
        ("photos", "sha256 is only supported for archives"),
        ("embedded:digits", "sha256 is only supported for archives"),
        ("torchvision:CIFAR10", "sha256 is only supported for archives"),
    ],
)
def test_what_cannot_be_opened(source: str, message: str, isolated: Path) -> None:
    (isolated / "photos").mkdir()
    sha256 = "0" * 64 if message.startswith("sha256") else None
    with pytest.raises(SourceError, match=message):
        open_source(source, isolated, sha256)


def test_digits_are_the_same_bytes_everywhere(isolated: Path) -> None:
    folder = open_source("embedded:digits", isolated)
    assert folder.is_relative_to(cache_folder())
    catalog = scan_folder(folder)
    assert catalog.classes == tuple("0123456789")
    assert len(catalog.images) == 1797
    assert fingerprint(catalog.images) == FINGERPRINT


FINGERPRINT = "9ccf166ac6b10cf35eac83c46b3ecca5c34e550c5b86747504b673b89c79f42f"
"""Every split of the digits depends on it: with other bytes, earlier results are not comparable."""


def test_digits_show_what_scikit_learn_has(isolated: Path) -> None:
    folder = open_source("embedded:digits", isolated)
    package = importlib.util.find_spec("sklearn")
    assert package is not None
    assert package.origin is not None
    rows = gzip.decompress((Path(package.origin).parent / "datasets/data/digits.csv.gz").read_bytes()).splitlines()
    for number in (0, 1000, 1796):
        *levels, label = (int(float(value)) for value in rows[number].split(b","))
        with Image.open(folder / str(label) / f"{number:04d}.png") as image:
            assert (image.mode, image.size) == ("L", (8, 8))
            assert list(image.tobytes()) == [int(level * 255 / 16 + 0.5) for level in levels]


def test_digits_are_written_once(isolated: Path) -> None:
    before = (open_source("embedded:digits", isolated) / "0" / "0000.png").stat().st_mtime_ns
    assert (open_source("embedded:digits", isolated) / "0" / "0000.png").stat().st_mtime_ns == before


def test_checking_data_loads_neither_torch_nor_scikit_learn(isolated: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from transfer_platform.sources.open import open_source\n"
        "from transfer_platform.data.dataset import open_dataset\n"
        "from transfer_platform.inspection.preflight import preflight, require_valid\n"
        "from transfer_platform.recipe.schema import DatasetConfig\n"
        "require_valid(*preflight(open_dataset(DatasetConfig(source='embedded:digits'), Path('.'))))\n"
        "sys.exit(str({'torch', 'sklearn', 'torchvision', 'requests'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=_environment())
    assert done.stderr.strip() == "set()"


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
