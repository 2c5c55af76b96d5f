"""Hugging Face datasets, converted to class folders in the cache.

Datasets are loaded from the Hub, from folders written by `save_to_disk`, or from folders of files in a supported format
such as Parquet. Dataset scripts are never run. Versions of `datasets` before 4 are rejected, as they can run scripts.
"""

import hashlib
import importlib
import re
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from transfer_model.errors import cause
from transfer_model.formats import format_of
from transfer_platform.errors import SourceError
from transfer_platform.paths import cache_folder
from transfer_platform.progress import Progress, Step, silent
from transfer_platform.sources.checksums import cached_sha256s
from transfer_platform.sources.class_folders import folder_names
from transfer_platform.sources.names import HuggingFaceSource, huggingface_source
from transfer_platform.suggest import did_you_mean
from transfer_registry.files import build_once

EXTRA = "pip install --upgrade 'transfer-platform[huggingface]'"
MIN_VERSION = 4
"""First major version of `datasets` that cannot run dataset scripts."""

Table = Any
"""A `datasets.Dataset` that contains one split."""


@dataclass(frozen=True, slots=True)
class StoredImage:
    """The content of an image file and the name of its class folder."""

    content: bytes
    folder: str

    @property
    def suffix(self) -> str:
        """File suffix for the image format; empty if the format is unknown."""
        image_format = format_of(self.content)
        return image_format.extensions[0] if image_format else ""


def huggingface_dataset(text: str, base: Path, progress: Progress = silent) -> Path:
    """Returns the cache folder of a Hugging Face dataset, converting the dataset on first use.

    Image bytes are copied unchanged, and only one image at a time is held in memory. Hub datasets are downloaded to
    Hugging Face's own cache (`HF_HOME`) and later read from there, even offline.

    Args:
        text: The part of the source after `huggingface:`; see `sources.names.huggingface_source`.
        base: Folder that relative paths are resolved against.
        progress: Receives the number of images written so far.

    Returns:
        A folder with one subfolder per split, each containing one folder per class. If the dataset was saved without
        splits, the class folders are at the top level.

    Raises:
        SourceError: The `huggingface` extra is missing, the dataset cannot be loaded, or its columns are ambiguous.
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
                f"huggingface:{text} could not be converted to class folders: {cause(error)}; "
                f"the disk that contains {cache_folder()} may be full, or one of the files may be corrupt"
            ) from error

    return build_once(cache_folder() / "huggingface" / _cache_key(source, local), build)


def _local_folder(source: HuggingFaceSource, base: Path) -> Path:
    folder = (base / Path(source.name).expanduser()).resolve()
    if not folder.is_dir():
        siblings = (path.name for path in folder.parent.iterdir()) if folder.parent.is_dir() else ()
        raise SourceError(
            f"huggingface:{source.name}: there is no folder {folder}{did_you_mean(folder.name, siblings)}"
        )
    return folder


def _cache_key(source: HuggingFaceSource, local: Path | None) -> str:
    """Returns a cache folder name based on the options and the Hub dataset's name or the local dataset's content."""
    parts = [source.config, source.revision, source.image, source.label, ",".join(source.splits)]
    if local is None:
        parts.append(source.name)
    else:
        files = sorted(path for path in local.rglob("*") if path.is_file())
        digests = cached_sha256s(files, str(local))
        parts += [f"{path.relative_to(local)} {digest}" for path, digest in zip(files, digests, strict=True)]
    digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
    name = re.sub(r"[^A-Za-z0-9_-]", "-", local.name if local else source.name)
    return f"{name[:100]}-{digest}"


def _write(source: HuggingFaceSource, local: Path | None, folder: Path, progress: Progress) -> None:
    datasets, scratch = _import_datasets(), folder / ".loaded"
    task = f"loading {source.name}"
    progress(Step(task, 0, None, "splits"))
    splits = _load_splits(datasets, source, local, scratch)
    progress(Step(task, len(splits), len(splits), "splits"))
    allowed_folders = [scratch, local] if local else _library_caches(datasets)
    for split, table in _selected(splits, source.splits).items():
        task = f"writing {source.name} {split}".removesuffix(" .")
        for number, image in enumerate(_read_images(table, split, source, allowed_folders)):
            target = folder / split / image.folder
            target.mkdir(parents=True, exist_ok=True)
            (target / f"{number:06d}{image.suffix}").write_bytes(image.content)
            progress(Step(task, number + 1, len(table), "images"))
    shutil.rmtree(scratch, ignore_errors=True)


def _import_datasets() -> ModuleType:
    try:
        datasets = importlib.import_module("datasets")
    except ImportError as error:
        raise SourceError(f"Hugging Face datasets require an extra: {EXTRA}") from error
    if int(datasets.__version__.partition(".")[0]) < MIN_VERSION:
        raise SourceError(
            f"`datasets` {datasets.__version__} is not supported because it can run dataset scripts; "
            f"version {MIN_VERSION} or later is required: {EXTRA}"
        )
    datasets.disable_progress_bars()
    return datasets


def _library_caches(datasets: ModuleType) -> list[Path]:
    from huggingface_hub.constants import HF_HUB_CACHE

    folders = (datasets.config.HF_DATASETS_CACHE, datasets.config.DOWNLOADED_DATASETS_PATH, HF_HUB_CACHE)
    return [Path(folder) for folder in folders]


def _load_splits(
    datasets: ModuleType, source: HuggingFaceSource, local: Path | None, scratch: Path
) -> Mapping[str, Table]:
    """Loads all splits, keyed by name; a dataset without splits has the single key `.`."""
    if local is None and Path(source.name).exists():
        raise SourceError(
            f"the current folder contains {source.name!r}, which would be read instead of the Hub dataset; use "
            f"huggingface:./{source.name} to read that folder, or run from another folder to load the Hub dataset"
        )
    try:
        if local is None:
            loaded = datasets.load_dataset(source.name, source.config or None, revision=source.revision or None)
        elif (local / "dataset_dict.json").is_file() or (local / "state.json").is_file():
            loaded = datasets.load_from_disk(str(local))
        else:
            loaded = datasets.load_dataset(str(local), cache_dir=str(scratch))
    except Exception as error:  # raised by the library, its file systems or its file formats
        raise SourceError(_load_failure(cause(error), local)) from error
    return {".": loaded} if isinstance(loaded, datasets.Dataset) else dict(loaded)


def _load_failure(reason: str, local: Path | None) -> str:
    if local is not None:
        return f"{local} cannot be read as a dataset: {reason}"
    return (
        f"cannot be loaded: {reason}\n"
        "check the dataset name, the configuration (NAME:CONFIG) and the network connection; to work offline, load the "
        "dataset on another machine, save it with save_to_disk, copy it to this machine, and use huggingface:./FOLDER"
    )


def _selected(splits: Mapping[str, Table], names: Sequence[str]) -> Mapping[str, Table]:
    for name in names:
        if name not in splits:
            raise SourceError(f"there is no split {name!r}; available: {', '.join(splits)}{did_you_mean(name, splits)}")
    return {name: table for name, table in splits.items() if not names or name in names}


def _read_images(
    table: Table, split: str, source: HuggingFaceSource, allowed_folders: Collection[Path]
) -> Iterator[StoredImage]:
    """Yields the undecoded images of a split in order. Only files in `allowed_folders` may be read."""
    from datasets import Image

    image = _image_column(table.features, source.image)
    label = _label_column(table.features, source.label)
    folders = _class_folders(table, label)
    for number, row in enumerate(table.select_columns([image, label]).cast_column(image, Image(decode=False))):
        place = f"row {number} of split {split!r}"
        if row[label] not in folders:
            raise SourceError(
                f"{place} has no class ({label} is {row[label]!r}); "
                "select only splits that have labels, for example ?splits=train"
            )
        yield StoredImage(_image_content(row[image], place, allowed_folders), folders[row[label]])


def _image_column(features: Mapping[str, Any], chosen: str) -> str:
    from datasets import Image

    if chosen and chosen in features and not isinstance(features[chosen], Image):
        raise SourceError(f"column {chosen!r} does not contain images; available columns: {_describe(features)}")
    columns = [name for name, feature in features.items() if isinstance(feature, Image)]
    return _one_column(features, columns, chosen, "images", "image")


def _label_column(features: Mapping[str, Any], chosen: str) -> str:
    from datasets import ClassLabel, Value

    if chosen and chosen in features and not isinstance(features[chosen], ClassLabel | Value):
        raise SourceError(f"column {chosen!r} does not contain classes; available columns: {_describe(features)}")
    columns = [name for name, feature in features.items() if isinstance(feature, ClassLabel)]
    return _one_column(features, columns, chosen, "classes", "label")


def _one_column(features: Mapping[str, Any], columns: list[str], chosen: str, content: str, option: str) -> str:
    """Returns the chosen column or, if none was chosen, the only column of the right type."""
    if chosen:
        if chosen not in features:
            raise SourceError(
                f"there is no column {chosen!r}; available: {_describe(features)}{did_you_mean(chosen, features)}"
            )
        return chosen
    if len(columns) == 1:
        return columns[0]
    if columns:
        raise SourceError(
            f"columns {' and '.join(columns)} contain {content}; choose one, for example ?{option}={columns[0]}"
        )
    raise SourceError(
        f"cannot tell which column contains {content}: {_describe(features)}; choose one with ?{option}=COLUMN"
    )


def _describe(features: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} ({getattr(kind, 'dtype', type(kind).__name__)})" for name, kind in features.items())


def _class_folders(table: Table, label: str) -> Mapping[object, str]:
    """Returns the class folder names, keyed by the values in the label column."""
    from datasets import ClassLabel

    feature = table.features[label]
    if isinstance(feature, ClassLabel):
        return dict(enumerate(folder_names(feature.names)))
    values = sorted(value for value in table.unique(label) if value is not None)
    return dict(zip(values, folder_names([str(value) for value in values]), strict=True))


def _image_content(stored: Mapping[str, Any] | None, place: str, allowed_folders: Collection[Path]) -> bytes:
    """Returns the bytes stored in a row, or the content of the file that the row refers to."""
    if stored is None or (stored["bytes"] is None and stored["path"] is None):
        raise SourceError(f"{place} has no image")
    if stored["bytes"] is not None:
        return bytes(stored["bytes"])
    file = Path(stored["path"])
    if not any(file.resolve().is_relative_to(folder.resolve()) for folder in allowed_folders):
        raise SourceError(f"{place} refers to the file {file}, which is outside the dataset")
    return file.read_bytes()
