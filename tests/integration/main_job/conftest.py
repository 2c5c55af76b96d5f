"""The flagship, run once from the command line in a folder of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[3]
BIN = Path(sys.executable).parent


@dataclass(frozen=True)
class Workplace:
    """A folder in which commands are run, with its own cache and nothing set but a mirror."""

    folder: Path
    environment: dict[str, str]

    def start(self, *command: object, **options: object) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [str(part) for part in command],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **options,
        )

    def run(self, *command: object, code: int = 0) -> tuple[str, str]:
        """What a command printed on both streams, after it ended with the expected code."""
        process = self.start(*command)
        out, err = process.communicate(timeout=600)
        assert process.returncode == code, f"{command} ended with {process.returncode}:\n{out}\n{err}"
        return out, err


def workplace(folder: Path, mirror: Path | None = None) -> Workplace:
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("PLATFORM_", "MLFLOW_"))}
    folder.mkdir()
    return Workplace(
        folder,
        {
            **clean,
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
            "PLATFORM_MIRROR": str(mirror or ""),
            "PLATFORM_CACHE": str(folder.parent / "cache"),
        },
    )


@pytest.fixture(scope="session")
def few(photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty training and ten test photographs per class."""
    folder = tmp_path_factory.mktemp("few")
    for split, count in (("train", 20), ("val", 10)):
        for label in ("ants", "bees"):
            (folder / split / label).mkdir(parents=True)
            for path in sorted((photographs / split / label).glob("*.jpg"))[:count]:
                shutil.copy(path, folder / split / label)
    return folder


@pytest.fixture(scope="session")
def flagship(photograph_mirror: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Workplace, str]:
    """The folder after `platform run recipes/ants_bees.yaml`, and what that printed."""
    place = workplace(tmp_path_factory.mktemp("flagship") / "work", photograph_mirror)
    out, _ = place.run("platform", "run", REPOSITORY / "recipes" / "ants_bees.yaml")
    return place, out


@pytest.fixture(scope="session")
def workplaces(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Workplace]:
    """Makes folders for other runs; they share a cache and have no mirror."""
    root = tmp_path_factory.mktemp("workplaces")
    return lambda name: workplace(root / name)
