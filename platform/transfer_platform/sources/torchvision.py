"""Torchvision datasets, converted to class folders in the cache.

This package downloads and unpacks the files; the torchvision classes only read them and never download anything.
"""

import gzip
import shutil
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from transfer_platform.errors import SourceError
from transfer_platform.paths import cache_folder
from transfer_platform.progress import Progress, Step, silent
from transfer_platform.sources.archives import unpack_into
from transfer_platform.sources.class_folders import folder_names
from transfer_platform.sources.download import fetch
from transfer_platform.sources.names import torchvision_problem
from transfer_platform.sources.png import encode_png
from transfer_platform.sources.torchvision_table import TABLE, DatasetInstance, PublishedFile, TorchvisionDataset
from transfer_registry.files import build_once

_ARCHIVES = (".zip", ".tar", ".tgz", ".tar.gz")


def torchvision_dataset(name: str, progress: Progress = silent) -> Path:
    """Returns the cache folder of a torchvision dataset, converting the dataset on first use.

    Published image files are copied unchanged; arrays are written as PNG files that are byte-identical on
    every machine. Arrays are loaded into memory one split at a time, and image files one at a time.

    Args:
        name: One of `sources.names.TORCHVISION_DATASETS`.
        progress: Receives the progress of downloading, unpacking and writing.

    Returns:
        A folder with the subfolders `train`, `test` and, if available, `validation`, each containing one folder per
        class. If the dataset has no splits, the class folders are at the top level.

    Raises:
        SourceError: The name is unknown, or a file cannot be downloaded, has the wrong checksum, or is corrupt.
    """
    if problem := torchvision_problem(name):
        raise SourceError(problem)

    def build(folder: Path) -> None:
        with _translate_errors(name):
            _write(name, folder, progress)

    return build_once(cache_folder() / "torchvision" / name.replace("/", "-"), build)


def _write(name: str, folder: Path, progress: Progress) -> None:
    from torchvision import datasets

    dataset_class, entry = getattr(datasets, name.partition("/")[0]), TABLE[name]
    root = folder / ".root"
    root.mkdir()
    for file in entry.files(dataset_class):
        _prepare(file, root, progress)
    for split, arguments in entry.splits.items():
        task = f"writing {name}" if split == "." else f"writing {name} {split}"
        # torchvision verifies the MD5 checksums of the files it unpickles here (the CIFAR batches).
        dataset = dataset_class(str(root), download=False, **arguments)
        _write_split(dataset, entry, folder / split, task, progress)
    shutil.rmtree(root)


def _prepare(file: PublishedFile, root: Path, progress: Progress) -> None:
    """Downloads a published file and copies or unpacks it into the folder that torchvision reads."""
    folder = root / file.folder
    folder.mkdir(parents=True, exist_ok=True)
    _unpack_or_copy(_fetch(file, progress), folder, progress)
    for pattern in file.inner_archives:
        for archive in sorted(folder.glob(pattern)):
            _unpack_or_copy(archive, folder, progress)


def _fetch(file: PublishedFile, progress: Progress) -> Path:
    """Downloads a file from the first available URL. A copy of a torchvision `root` folder can serve as a mirror."""
    mirror_path = f"{file.folder}/{file.name}".lstrip("/")
    failures = []
    for url in file.urls:
        try:
            return fetch(url, md5=file.md5, mirror_path=mirror_path, progress=progress)
        except SourceError as error:
            failures.append(str(error))
    raise SourceError("\n".join(failures))


def _unpack_or_copy(file: Path, folder: Path, progress: Progress) -> None:
    if file.name.endswith(_ARCHIVES):
        unpack_into(file, folder, progress)
    elif file.suffix == ".gz":
        with gzip.open(file) as content, (folder / file.stem).open("wb") as unpacked:
            shutil.copyfileobj(content, unpacked)
    else:
        shutil.copyfile(file, folder / file.name)


def _write_split(
    dataset: DatasetInstance, entry: TorchvisionDataset, folder: Path, task: str, progress: Progress
) -> None:
    class_folders = dict(enumerate(folder_names(_class_names(dataset, entry))))
    images = entry.images(dataset) if entry.images else (dataset[number] for number in range(len(dataset)))
    for number, (image, label) in enumerate(images):
        target = folder / class_folders[label]
        target.mkdir(parents=True, exist_ok=True)
        if isinstance(image, Path):
            _link_or_copy(image, target / image.name)
        else:  # a Pillow image in mode L or RGB
            content = encode_png(image.tobytes(), image.width, len(image.getbands()))
            (target / f"{number:06d}.png").write_bytes(content)
        progress(Step(task, number + 1, len(dataset), "images"))


def _class_names(dataset: DatasetInstance, entry: TorchvisionDataset) -> Sequence[str]:
    if entry.classes:
        return entry.classes
    classes = getattr(dataset, "classes", None) or getattr(dataset, "categories", None)
    if classes is None:
        import torchvision

        raise SourceError(
            f"torchvision {torchvision.__version__} provides no class names; run `pip install --upgrade torchvision`"
        )
    return [name if isinstance(name, str) else name[0] for name in classes]


def _link_or_copy(file: Path, target: Path) -> None:
    """Creates a hard link, or a copy if linking fails; raises `FileExistsError` if `target` exists."""
    with suppress(OSError):
        target.hardlink_to(file)
        return
    with file.open("rb") as content, target.open("xb") as copy:
        shutil.copyfileobj(content, copy)


@contextmanager
def _translate_errors(name: str) -> Iterator[None]:
    try:
        yield
    except SourceError as error:
        raise SourceError(f"torchvision:{name}: {error}") from error
    except (ArithmeticError, EOFError, LookupError, OSError, RuntimeError, ValueError, zlib.error) as error:
        raise SourceError(
            f"torchvision:{name} could not be converted to class folders: {error}; "
            f"the disk that contains {cache_folder()} may be full, or a file that has no checksum may be corrupt"
        ) from error
