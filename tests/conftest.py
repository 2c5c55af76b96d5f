"""Fixtures of all tests: an isolated folder and the hymenoptera photographs."""

from __future__ import annotations

import os

# Before torch is imported: its threads would compete with those of tests in other processes.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import sys
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest

if TYPE_CHECKING:
    from transfer_platform.data.splits import Splits

REPOSITORY = Path(__file__).parents[1]

# A busy machine is no error.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


def _photograph_archive() -> Path:
    folder = Path(os.environ.get("PLATFORM_TEST_DATA", REPOSITORY.parent / "shared" / "data"))
    return folder / "hymenoptera_data.zip"


@pytest.fixture(scope="session")
def photograph_mirror() -> Path:
    """A folder with `hymenoptera_data.zip`, for PLATFORM_MIRROR."""
    archive = _photograph_archive()
    if not archive.is_file():
        pytest.skip(f"the ants and bees photographs are missing: {archive} (set PLATFORM_TEST_DATA)")
    return archive.parent


@pytest.fixture(scope="session")
def photographs(photograph_mirror: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unpacked folder `hymenoptera_data` with train/ and val/."""
    folder = tmp_path_factory.mktemp("photographs")
    with zipfile.ZipFile(photograph_mirror / "hymenoptera_data.zip") as archive:
        archive.extractall(folder)
    return folder / "hymenoptera_data"


@pytest.fixture(scope="session")
def splits_of() -> Callable[..., Splits]:
    """Splits a folder like a recipe: `splits_of(folder, train, validation, test, exclude=...)`."""
    from transfer_platform.data.dataset import open_dataset
    from transfer_platform.progress import Progress, silent
    from transfer_platform.recipe.schema import DatasetConfig, FoldsConfig, SplitsConfig

    def read(
        source: Path,
        train: str,
        validation: str | float | FoldsConfig,
        test: str | float,
        exclude: Sequence[str] = (),
        progress: Progress = silent,
    ) -> Splits:
        splits = SplitsConfig(train=train, validation=validation, test=test)
        config = DatasetConfig(source=str(source), splits=splits, exclude=[*exclude])
        return open_dataset(config, Path(), progress).split()

    return read


@pytest.fixture
def isolated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder and an empty cache, without environment variables of the project."""
    for variable in [name for name in os.environ if name.startswith(("PLATFORM_", "MLFLOW_"))]:
        monkeypatch.delenv(variable)
    monkeypatch.setenv("PLATFORM_CACHE", str(tmp_path / "cache"))
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    return work


@pytest.fixture(autouse=True, scope="module")
def _default_tracking() -> Iterator[None]:
    """Resets the tracking URI of MLflow after each module."""
    yield
    if "mlflow" in sys.modules:
        sys.modules["mlflow"].set_tracking_uri(None)
