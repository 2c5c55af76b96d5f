"""Data sets of torchvision by name, written into the cache as class folders.

The platform fetches their files (mirrors, resumed downloads) and unpacks them safely; torchvision's own
classes read them and know which image belongs where. They are never asked to download anything.
"""

from __future__ import annotations

import gzip
import shutil
import zlib
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transfer_platform.errors import SourceError
from transfer_platform.paths import cache_folder
from transfer_platform.progress import Progress, Step, silent
from transfer_platform.sources.archives import unpack_into
from transfer_platform.sources.class_folders import folder_names
from transfer_platform.sources.fetching import fetch
from transfer_platform.sources.names import torchvision_problem
from transfer_platform.sources.png import png
from transfer_platform.sources.torchvision_table import TABLE, Instance, PublishedFile, TorchvisionDataset
from transfer_registry.files import build_once

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_ARCHIVES = (".zip", ".tar", ".tgz", ".tar.gz")


def torchvision_dataset(name: str, progress: Progress = silent) -> Path:
    """The folder of a data set of torchvision, written into the cache the first time.

    Image files stay as their authors published them; arrays become PNG files without loss, the same bytes on
    every machine. One split is in memory at a time, as torchvision reads it: arrays whole, files one by one.

    Args:
        name: One of `recipe.published.TORCHVISION_SETS`.
        progress: Is told how far fetching, unpacking and writing have come.

    Returns:
        A folder with `train`, `test` and, where the data set has one, `validation`, each with one folder per
        class; or with the class folders themselves, where the data set is in one part.

    Raises:
        SourceError: It is no such name, or its files cannot be fetched, have another checksum or are damaged.
    """
    if problem := torchvision_problem(name):
        raise SourceError(problem)

    def build(folder: Path) -> None:
        with _named(name):
            _write(name, folder, progress)

    return build_once(cache_folder() / "torchvision" / name.replace("/", "-"), build)


def _write(name: str, folder: Path, progress: Progress) -> None:
    from torchvision import datasets

    kind, entry = getattr(datasets, name.partition("/")[0]), TABLE[name]
    root = folder / ".root"
    root.mkdir()
    for file in entry.files(kind):
        _place(file, root, progress)
    for split, arguments in entry.splits.items():
        task = f"writing {name}" if split == "." else f"writing {name} {split}"
        # torchvision verifies here what it unpickles: CIFAR's batches, by their MD5.
        _write_split(kind(str(root), download=False, **arguments), entry, folder / split, task, progress)
    shutil.rmtree(root)


def _place(file: PublishedFile, root: Path, progress: Progress) -> None:
    """Puts a published file, or what is in it, where torchvision looks for it."""
    folder = root / file.folder
    folder.mkdir(parents=True, exist_ok=True)
    _unfold(_fetched(file, progress), folder, progress)
    for pattern in file.inside:
        for inner in sorted(folder.glob(pattern)):
            _unfold(inner, folder, progress)


def _fetched(file: PublishedFile, progress: Progress) -> Path:
    """The file from the first of its addresses that has it; mirrors may hold a torchvision root."""
    known_as = f"{file.folder}/{file.name}".lstrip("/")
    answers = []
    for url in file.urls:
        try:
            return fetch(url, md5=file.md5, known_as=known_as, progress=progress)
        except SourceError as error:
            answers.append(str(error))
    raise SourceError("\n".join(answers))


def _unfold(file: Path, folder: Path, progress: Progress) -> None:
    if file.name.endswith(_ARCHIVES):
        unpack_into(file, folder, progress)
    elif file.suffix == ".gz":
        with gzip.open(file) as content, (folder / file.stem).open("wb") as unpacked:
            shutil.copyfileobj(content, unpacked)
    else:
        shutil.copyfile(file, folder / file.name)


def _write_split(
    dataset: Instance, entry: TorchvisionDataset, folder: Path, task: str, progress: Progress
) -> None:
    names = dict(enumerate(folder_names(_classes(dataset, entry))))
    for number, (image, label) in enumerate(_images(dataset, entry)):
        target = folder / names[label]
        target.mkdir(parents=True, exist_ok=True)
        if isinstance(image, Path):
            _copy(image, target / image.name)
        else:
            channels = len(image.getbands())
            (target / f"{number:06d}.png").write_bytes(png(image.tobytes(), image.width, channels))
        progress(Step(task, number + 1, len(dataset), "images"))


def _images(dataset: Instance, entry: TorchvisionDataset) -> Iterator[tuple[Any, int]]:
    """Image files, or Pillow images of mode L or RGB, with their labels."""
    if entry.images is not None:
        yield from entry.images(dataset)
    else:
        yield from (dataset[number] for number in range(len(dataset)))


def _classes(dataset: Instance, entry: TorchvisionDataset) -> Sequence[str]:
    if entry.classes:
        return entry.classes
    classes = getattr(dataset, "classes", None) or getattr(dataset, "categories", None)
    if classes is None:
        import torchvision

        raise SourceError(
            f"torchvision {torchvision.__version__} does not know the names of its classes; "
            "pip install --upgrade torchvision"
        )
    return [name if isinstance(name, str) else name[0] for name in classes]


def _copy(file: Path, target: Path) -> None:
    """Without taking up space twice, where the file system can; a file of the same name is an error."""
    with suppress(OSError):
        target.hardlink_to(file)
        return
    with file.open("rb") as content, target.open("xb") as copy:
        shutil.copyfileobj(content, copy)


@contextmanager
def _named(name: str) -> Iterator[None]:
    """Says which data set an error is about, and that torchvision could not read what was fetched."""
    try:
        yield
    except SourceError as error:
        raise SourceError(f"torchvision:{name}: {error}") from error
    except (
        ArithmeticError,
        EOFError,
        LookupError,
        OSError,
        RuntimeError,
        ValueError,
        zlib.error,
    ) as error:
        said = str(error) or type(error).__name__
        raise SourceError(
            f"torchvision:{name} could not be written as class folders: {said}; "
            f"is the disk of {cache_folder()} full, or is a file damaged that has no checksum?"
        ) from error
