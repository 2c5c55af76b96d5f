"""Fixtures of all tests: an isolated folder, small images and the hymenoptera photographs."""

from __future__ import annotations

import os

# Before torch is imported: its threads would compete with those of tests in other processes.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import hashlib
import signal
import sys
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import numpy as np
import pytest
from PIL import Image

if TYPE_CHECKING:
    from transfer_platform.data.splits import Splits

REPOSITORY = Path(__file__).parents[1]

# A shell makes the programs that it starts in the background ignore Ctrl-C. The programs that a test starts would do so
# too, but they do not inherit a function that is called instead. The test runner itself continues to ignore the signal.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, lambda *_: None)

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


@pytest.fixture(scope="session")
def write_image() -> Callable[[Path, str], None]:
    """Writes an 8 x 8 PNG that its text determines."""
    from transfer_platform.sources.png import encode_png

    def write(path: Path, text: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_png(hashlib.sha512(text.encode()).digest(), 8))

    return write


@pytest.fixture(scope="session")
def accepted_images(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One file of every accepted format, mode and peculiarity, keyed by a name such as `PNG I;16`."""
    folder, files = tmp_path_factory.mktemp("accepted"), {}
    for name, (image, options) in _images().items():
        files[name] = folder / name.replace(" ", "_").replace(";", "")
        image.save(files[name], name.split()[0], **options)
    return files


def _images() -> dict[str, tuple[Image.Image, dict[str, object]]]:
    """Images, and the options to save them with, keyed by format, mode and a remark."""
    rows, columns = np.mgrid[0:60, 0:80]
    rgb = Image.fromarray(np.stack([rows * 4, columns * 3, 255 - rows * 2], axis=2).astype(np.uint8))
    gray = rows * 50 + columns * 13
    rgba, exif = rgb.copy(), Image.Exif()
    rgba.putalpha(Image.fromarray((columns * 3).astype(np.uint8)))
    exif[0x0112] = 6
    deep = {dtype: Image.fromarray(gray.astype(dtype)) for dtype in (np.uint16, np.int32, np.float32)}
    broken = gray.astype(np.float32)
    broken[0, :4] = [np.nan, np.inf, -np.inf, -500]
    modes = {
        "JPEG": ("L", "RGB", "CMYK"),
        "PNG": ("1", "L", "LA", "P", "RGB", "RGBA"),
        "TIFF": ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK"),
        "WEBP": ("RGB", "RGBA"),
        "BMP": ("1", "L", "P", "RGB"),
        "GIF": ("L", "P"),
        "PPM": ("1", "L", "RGB"),
        "AVIF": ("L", "RGB", "RGBA"),
        "JPEG2000": ("L", "LA", "RGB", "RGBA", "CMYK"),
        "HEIF": ("L", "RGB", "RGBA"),
    }
    plain = {
        f"{name} {mode}": ((rgba if "A" in mode else rgb).convert(mode), {}) for name in modes for mode in modes[name]
    }
    frames = {"save_all": True, "append_images": [rgb.rotate(180)]}
    return {
        **plain,
        **{f"{name} I;16": (deep[np.uint16], {}) for name in ("PNG", "TIFF", "PPM", "JPEG2000", "HEIF")},
        **{
            f"{name} turned": (rgb, {"exif": exif.tobytes()})
            for name in ("JPEG", "PNG", "TIFF", "WEBP", "AVIF", "HEIF")
        },
        **{f"{name} animated": (rgb, frames) for name in ("GIF", "PNG", "WEBP", "TIFF", "AVIF", "HEIF", "MPO")},
        "PNG I;16 transparent": (deep[np.uint16], {"transparency": int(gray[30, 40])}),
        "PNG P transparent": (rgb.convert("P"), {"transparency": 3}),
        "TIFF YCbCr": (rgb.convert("YCbCr"), {"compression": "tiff_lzw"}),
        "TIFF I": (deep[np.int32], {}),
        "TIFF I negative": (Image.fromarray((gray - 1000).astype(np.int32)), {}),
        "TIFF F": (deep[np.float32], {}),
        "TIFF F below 1": (Image.fromarray((gray / 4000).astype(np.float32)), {}),
        "TIFF F not finite": (Image.fromarray(broken), {}),
    }


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
