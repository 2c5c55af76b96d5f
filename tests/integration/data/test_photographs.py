"""The hymenoptera photographs, from the archive to the splits."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from transfer_model.preprocessing import Preprocessing
from transfer_platform.data.dataset import open_dataset
from transfer_platform.errors import DataError
from transfer_platform.inspection.preflight import preflight, require_valid
from transfer_platform.loading.image_loader import ImageLoader
from transfer_platform.paths import cache_folder
from transfer_platform.recipe.schema import DatasetConfig
from transfer_platform.sources.open import open_source

if TYPE_CHECKING:
    from transfer_platform.progress import Step

URL = "https://download.pytorch.org/tutorial/hymenoptera_data.zip"
STRAY = "train/ants/imageNotFound.gif"


@pytest.fixture(autouse=True)
def _isolated(isolated: Path) -> None:
    """A cache of its own for every test."""


def test_the_flagship_data_set(photographs: Path, splits_of) -> None:
    splits = splits_of(photographs, "train", 0.2, "val", exclude=[STRAY])
    assert splits.classes == ("ants", "bees")
    assert {role: len(side) for role, side in splits.by_name.items()} == {"train": 195, "validation": 49, "test": 153}
    assert splits.fingerprint == "a017f86fbcda08bd705ef4415e5e178bca06e53e94ce4f378e266067abc2ff30"


def test_the_stray_image_is_an_image(photographs: Path, splits_of) -> None:
    splits = splits_of(photographs, "train", 0.2, "val")
    assert sum(len(side) for side in splits.by_name.values()) == 398


def test_the_second_time_nothing_is_read(photographs: Path, splits_of) -> None:
    splits_of(photographs, "train", 0.2, "val")
    steps: list[Step] = []
    started = time.perf_counter()
    splits_of(photographs, "train", 0.2, "val", progress=steps.append)
    assert steps == []
    assert time.perf_counter() - started < 0.5


def test_a_cut_photograph_is_named(photographs: Path, tmp_path: Path) -> None:
    for split in ("train", "val"):
        for label in ("ants", "bees"):
            folder = tmp_path / "some" / split / label
            folder.mkdir(parents=True)
            for path in sorted((photographs / split / label).glob("*.jpg"))[:4]:
                (folder / path.name).write_bytes(path.read_bytes())
    victim = next((tmp_path / "some" / "train" / "bees").iterdir())
    victim.write_bytes(victim.read_bytes()[:20_000])
    with pytest.raises(DataError, match=rf"train/bees/{victim.name}: it is a truncated or corrupt JPEG"):
        require_valid(*preflight(open_dataset(DatasetConfig(source=str(tmp_path / "some")), Path())))


def test_mirror_archive_and_folder_give_the_same_splits(
    photographs: Path, photograph_mirror: Path, monkeypatch: pytest.MonkeyPatch, splits_of
) -> None:
    monkeypatch.setenv("PLATFORM_MIRROR", str(photograph_mirror))
    unpacked = open_source(URL, Path()) / "hymenoptera_data"
    exclude = [STRAY]
    here = splits_of(photographs, "train", 0.2, "val", exclude=exclude)
    assert splits_of(unpacked, "train", 0.2, "val", exclude=exclude).fingerprint == here.fingerprint


def test_views_of_photographs_look_like_them(photographs: Path, splits_of) -> None:
    splits = splits_of(photographs, "train", 0.2, "val", exclude=[STRAY])
    preprocessing = Preprocessing(64, 0.875, "bicubic", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    images = ImageLoader(splits.validation, preprocessing, "medium", torch.device("cpu"))
    plain, varied = images.load(range(49)), images.load_views(range(49), range(49))
    assert plain.shape == varied.shape == (49, 3, 64, 64)
    means = torch.stack([plain.mean((1, 2, 3)), varied.mean((1, 2, 3))])
    assert torch.corrcoef(means)[0, 1] > 0.8  # bright photographs stay bright


UNPACK = """
import sys
from pathlib import Path
from transfer_platform.sources.archives import unpack
def begun(step):
    if step.done < 1e6:
        print("begun", flush=True)
print(unpack(Path(sys.argv[1]), progress=begun))
"""


def start(archive: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(
        [sys.executable, "-c", UNPACK, str(archive)], stdout=subprocess.PIPE, text=True, env=environment
    )


def test_killed_while_unpacking_and_then_two_at_once(photograph_mirror: Path) -> None:
    archive = photograph_mirror / "hymenoptera_data.zip"
    folder = cache_folder() / "archives" / hashlib.sha256(archive.read_bytes()).hexdigest()
    with start(archive) as killed:
        assert killed.stdout is not None
        assert killed.stdout.readline() == "begun\n"
        killed.send_signal(signal.SIGKILL)
    assert not folder.exists()
    both = [start(archive) for _ in range(2)]
    answers = [process.communicate()[0].splitlines() for process in both]
    assert [answer[-1] for answer in answers] == [str(folder)] * 2
    assert sorted("begun" in answer for answer in answers) == [False, True]
    assert sum(path.is_file() for path in folder.rglob("*")) == 398
