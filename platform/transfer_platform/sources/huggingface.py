"""Data sets in the format of Hugging Face's `datasets`, written into the cache as class folders.

From the Hub, from a folder that `save_to_disk` wrote, or from a folder of parquet or other files that the
library reads. No code of a data set is ever run: `datasets` 4 and later, which the extra asks for, cannot.
"""

from __future__ import annotations

import hashlib
import importlib
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from transfer_platform.errors import SourceError
from transfer_platform.paths import cache_folder
from transfer_platform.progress import Progress, Step, silent
from transfer_platform.sources.checksums import cached_sha256
from transfer_platform.sources.huggingface_rows import Table, read_images
from transfer_platform.sources.names import HuggingFaceSource, huggingface_source
from transfer_platform.suggest import did_you_mean
from transfer_registry.files import build_once

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import ModuleType

EXTRA = "pip install --upgrade 'transfer-platform[huggingface]'"
OLDEST = 4
"""Of `datasets`, its first version that runs no code of data sets."""


def huggingface_dataset(text: str, base: Path, progress: Progress = silent) -> Path:
    """The folder of a data set of Hugging Face, written into the cache the first time.

    The bytes of its images stay as they are; one image at a time is in memory. What the Hub has is
    downloaded into Hugging Face's own cache (`HF_HOME`), so that what lies there is used, offline too.

    Args:
        text: What stands behind `huggingface:`, see `recipe.published.huggingface_source`.
        base: The folder that a local path starts from.
        progress: Is told how many images are written.

    Returns:
        A folder with one folder per split under its own name, each with one folder per class; or with the
        class folders themselves, where a data set without splits was saved.

    Raises:
        SourceError: The extra is not installed, the data set cannot be had, or it is not certain which
            columns hold the images and the classes.
    """
    try:
        source = huggingface_source(text)
    except ValueError as error:
        raise SourceError(str(error)) from error
    local = _local_folder(source, base) if source.local else None

    def build(folder: Path) -> None:
        try:
            _write(source, local, folder, progress)
        except SourceError as error:
            raise SourceError(f"huggingface:{text}: {error}") from error
        except (OSError, ValueError) as error:
            raise SourceError(
                f"huggingface:{text} could not be written as class folders: {error}; "
                f"is the disk of {cache_folder()} full, or is one of its files damaged?"
            ) from error

    return build_once(cache_folder() / "huggingface" / _key(source, local), build)


def _local_folder(source: HuggingFaceSource, base: Path) -> Path:
    folder = (base / Path(source.name).expanduser()).resolve()
    if not folder.is_dir():
        siblings = (path.name for path in folder.parent.iterdir()) if folder.parent.is_dir() else ()
        raise SourceError(
            f"huggingface:{source.name}: there is no folder {folder}{did_you_mean(folder.name, siblings)}"
        )
    return folder


def _key(source: HuggingFaceSource, local: Path | None) -> str:
    """What the folder in the cache is called: another name for every choice, and for every local content."""
    parts = [source.config, source.revision, source.image, source.label, ",".join(source.splits)]
    if local is None:
        parts.append(source.name)
    else:
        files = sorted(path for path in local.rglob("*") if path.is_file())
        parts += [f"{path.relative_to(local)} {cached_sha256(path)}" for path in files]
    digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
    name = re.sub(r"[^A-Za-z0-9_-]", "-", local.name if local else source.name)
    return f"{name[:100]}-{digest}"


def _write(source: HuggingFaceSource, local: Path | None, folder: Path, progress: Progress) -> None:
    datasets = _library()
    scratch = folder / ".loaded"
    task = f"loading {source.name}"
    progress(Step(task, 0, None, "splits"))
    splits = _load(datasets, source, local, scratch)
    progress(Step(task, len(splits), len(splits), "splits"))
    places = [scratch, local] if local else _caches(datasets)
    for split, table in _chosen(splits, source.splits).items():
        task = f"writing {source.name} {split}".removesuffix(" .")
        for number, image in enumerate(read_images(table, split, source, places)):
            target = folder / split / image.folder
            target.mkdir(parents=True, exist_ok=True)
            (target / f"{number:06d}{image.suffix}").write_bytes(image.content)
            progress(Step(task, number + 1, len(table), "images"))
    shutil.rmtree(scratch, ignore_errors=True)


def _library() -> ModuleType:
    """The package `datasets`, without its own bars.

    Raises:
        SourceError: It is not installed, or is one that runs code of data sets.
    """
    try:
        datasets = importlib.import_module("datasets")
    except ImportError as error:
        raise SourceError(f"data sets of Hugging Face need an extra: {EXTRA}") from error
    if int(datasets.__version__.partition(".")[0]) < OLDEST:
        raise SourceError(
            f"`datasets` {datasets.__version__} may run code of a data set; {OLDEST} and later "
            f"cannot: {EXTRA}"
        )
    datasets.disable_progress_bars()
    return datasets


def _caches(datasets: ModuleType) -> list[Path]:
    """Where the library puts what it downloads and unpacks."""
    from huggingface_hub.constants import HF_HUB_CACHE

    places = (datasets.config.HF_DATASETS_CACHE, datasets.config.DOWNLOADED_DATASETS_PATH, HF_HUB_CACHE)
    return [Path(place) for place in places]


def _load(
    datasets: ModuleType, source: HuggingFaceSource, local: Path | None, scratch: Path
) -> Mapping[str, Table]:
    """The splits by name; where there are none, the whole is called `.`."""
    if local is None:
        _refuse_namesake(source.name)
    try:
        if local is None:
            loaded = datasets.load_dataset(
                source.name, source.config or None, revision=source.revision or None
            )
        elif (local / "dataset_dict.json").is_file() or (local / "state.json").is_file():
            loaded = datasets.load_from_disk(str(local))
        else:
            loaded = datasets.load_dataset(str(local), cache_dir=str(scratch))
    except Exception as error:  # of the library, its file systems and its file formats
        raise SourceError(_explained(str(error) or type(error).__name__, local)) from error
    return {".": loaded} if isinstance(loaded, datasets.Dataset) else dict(loaded)


def _refuse_namesake(name: str) -> None:
    """`datasets` takes a folder for a name of the Hub, if there is one."""
    if Path(name).exists():
        raise SourceError(
            f"the current folder holds {name!r}, which would be read instead of the Hub's; "
            f"for that folder write huggingface:./{name}, for the Hub's data set run elsewhere"
        )


def _explained(said: str, local: Path | None) -> str:
    if local is not None:
        return f"{local} cannot be read as a data set: {said}"
    return (
        f"cannot be had: {said}\n"
        "check the name, the configuration (NAME:CONFIG) and the network; for a site without one, load it "
        "elsewhere, save it with save_to_disk, and name that folder: huggingface:./FOLDER"
    )


def _chosen(splits: Mapping[str, Table], wanted: Sequence[str]) -> Mapping[str, Table]:
    for name in wanted:
        if name not in splits:
            raise SourceError(
                f"there is no split {name!r}, only {', '.join(splits)}{did_you_mean(name, splits)}"
            )
    return {name: table for name, table in splits.items() if not wanted or name in wanted}
