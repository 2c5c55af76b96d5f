"""The data sets of torchvision that can be named: their files, their splits, and where their images are.

Addresses and checksums are read from torchvision's classes where they have them as attributes, and stand here
where torchvision keeps them inside a function. A set whose loader unpickles files stands here only because
torchvision checks their MD5 before it does so (CIFAR10 and CIFAR100: every batch, and the names of classes).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

Kind = Any
"""One of torchvision's classes; the library has no types."""
Instance = Any
"""What such a class makes."""


@dataclass(frozen=True, slots=True)
class PublishedFile:
    """A file as its authors publish it.

    Attributes:
        urls: Addresses of the same file, the best first.
        md5: 32 hexadecimal digits; `None`: they published none.
        folder: Where torchvision wants it, or what is in it, below its `root`.
        inside: Patterns of compressed files in the archive that are unpacked into `folder` too.
    """

    urls: tuple[str, ...]
    md5: str | None
    folder: str = ""
    inside: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The last part of its address."""
        return self.urls[0].rpartition("/")[2]


@dataclass(frozen=True, slots=True)
class TorchvisionDataset:
    """How one of torchvision's classes is used.

    Attributes:
        files: From the class to what must be fetched.
        splits: For each folder that is written the arguments that make the class read this part; `.` is the
            data set itself, where it is in one part.
        images: From an instance to its image files with their labels; `None`: it holds arrays.
        classes: Their names, where the class does not know them.
    """

    files: Callable[[Kind], Iterable[PublishedFile]]
    splits: Mapping[str, Mapping[str, object]]
    images: Callable[[Instance], Iterable[tuple[Path, int]]] | None = None
    classes: Sequence[str] = ()


_DIGITS = tuple("0123456789")
_WHOLE: Mapping[str, Mapping[str, object]] = {".": {}}
_TRAIN_OR_NOT: Mapping[str, Mapping[str, object]] = {"train": {"train": True}, "test": {"train": False}}
_GTSRB = "https://sid.erda.dk/public/archives/daaeac0d7ce1152aea9b61d9f1e19370/"


def _split(**names: str) -> Mapping[str, Mapping[str, object]]:
    return {folder: {"split": name} for folder, name in names.items()}


def _with(splits: Mapping[str, Mapping[str, object]], **more: object) -> Mapping[str, Mapping[str, object]]:
    return {folder: {**arguments, **more} for folder, arguments in splits.items()}


_TRAIN_TEST = _split(train="train", test="test")
_TRAIN_VAL_TEST = _split(train="train", validation="val", test="test")


def _batch_files(kind: Kind) -> Iterable[PublishedFile]:
    yield PublishedFile((kind.url,), kind.tgz_md5)


def _idx_files(kind: Kind) -> Iterable[PublishedFile]:
    for name, md5 in kind.resources:
        yield PublishedFile(tuple(mirror + name for mirror in kind.mirrors), md5, f"{kind.__name__}/raw")


def _emnist_files(part: str) -> Callable[[Kind], Iterable[PublishedFile]]:
    return lambda kind: [PublishedFile((kind.url,), kind.md5, "EMNIST/raw", (f"gzip/emnist-{part}-*.gz",))]


def _qmnist_files(kind: Kind) -> Iterable[PublishedFile]:
    for split in ("train", "test"):
        for url, md5 in kind.resources[split]:
            yield PublishedFile((url,), md5, "QMNIST/raw")


def _listed_files(kind: Kind) -> Iterable[PublishedFile]:
    for split in ("train", "test"):
        url, _, md5 = kind.split_list[split]
        yield PublishedFile((url,), md5)


def _flowers_files(kind: Kind) -> Iterable[PublishedFile]:
    for name, md5 in kind._file_dict.values():
        yield PublishedFile((kind._download_url_prefix + name,), md5, "flowers-102")


def _gtsrb_files(_: Kind) -> Iterable[PublishedFile]:
    for name, md5 in (
        ("GTSRB-Training_fixed.zip", "513f3c79a4c5141765e10e952eaa2478"),
        ("GTSRB_Final_Test_Images.zip", "c7e4e6327067d32654124b0fe9e82185"),
        ("GTSRB_Final_Test_GT.zip", "fe31e9c9270bbcd7b84b7f21a9d9d9e5"),
    ):
        yield PublishedFile((_GTSRB + name,), md5, "gtsrb")


def _eurosat_files(_: Kind) -> Iterable[PublishedFile]:
    commit = "c877bcd43f099cd0196738f714544e355477f3fd"
    url = f"https://huggingface.co/datasets/torchgeo/eurosat/resolve/{commit}/EuroSAT.zip"
    yield PublishedFile((url,), "c8fa014336c82ac7804f0398fcb19387", "eurosat")


def _caltech101_files(_: Kind) -> Iterable[PublishedFile]:
    url = "https://data.caltech.edu/records/mzrjq-6wc02/files/caltech-101.zip"
    inside = ("caltech-101/101_ObjectCategories.tar.gz",)
    yield PublishedFile((url,), "3138e1922a9193bfa496528edbbc45d0", "caltech101", inside)


def _caltech256_files(_: Kind) -> Iterable[PublishedFile]:
    url = "https://data.caltech.edu/records/nyy15-4j048/files/256_ObjectCategories.tar"
    yield PublishedFile((url,), "67b4f42ca05d46448c6bb8ecd2220f6d", "caltech256")


def _one_archive(folder: str = "") -> Callable[[Kind], Iterable[PublishedFile]]:
    return lambda kind: [PublishedFile((kind._URL,), getattr(kind, "_MD5", None), folder)]


def _imagenette_files(size: str) -> Callable[[Kind], Iterable[PublishedFile]]:
    return lambda kind: [PublishedFile((kind._ARCHIVES[size][0],), kind._ARCHIVES[size][1])]


def _listed(dataset: Instance) -> Iterable[tuple[Path, int]]:
    return zip(map(Path, dataset._image_files), dataset._labels, strict=True)


def _sampled(dataset: Instance) -> Iterable[tuple[Path, int]]:
    samples = dataset._samples if hasattr(dataset, "_samples") else dataset.samples
    return ((Path(file), label) for file, label in samples)


def _pets(dataset: Instance) -> Iterable[tuple[Path, int]]:
    return zip(dataset._images, dataset._labels, strict=True)


def _caltech101(dataset: Instance) -> Iterable[tuple[Path, int]]:
    folder = Path(dataset.root, "101_ObjectCategories")
    for number, label in zip(dataset.index, dataset.y, strict=True):
        yield folder / dataset.categories[label] / f"image_{number:04d}.jpg", label


def _caltech256(dataset: Instance) -> Iterable[tuple[Path, int]]:
    folder = Path(dataset.root, "256_ObjectCategories")
    for number, label in zip(dataset.index, dataset.y, strict=True):
        yield folder / dataset.categories[label] / f"{label + 1:03d}_{number:04d}.jpg", label


def _emnist(part: str) -> TorchvisionDataset:
    return TorchvisionDataset(_emnist_files(part), _with(_TRAIN_OR_NOT, split=part))


def _aircraft(level: str) -> TorchvisionDataset:
    return TorchvisionDataset(_one_archive(), _with(_TRAIN_VAL_TEST, annotation_level=level), _listed)


def _imagenette(size: str) -> TorchvisionDataset:
    splits = _with(_split(train="train", validation="val"), size=size)
    return TorchvisionDataset(_imagenette_files(size), splits, _sampled)


TABLE: Mapping[str, TorchvisionDataset] = MappingProxyType(
    {
        "CIFAR10": TorchvisionDataset(_batch_files, _TRAIN_OR_NOT),
        "CIFAR100": TorchvisionDataset(_batch_files, _TRAIN_OR_NOT),
        "Caltech101": TorchvisionDataset(_caltech101_files, _WHOLE, _caltech101),
        "Caltech256": TorchvisionDataset(_caltech256_files, _WHOLE, _caltech256),
        "Country211": TorchvisionDataset(
            _one_archive(), _split(train="train", validation="valid", test="test"), _sampled
        ),
        "DTD": TorchvisionDataset(_one_archive("dtd"), _TRAIN_VAL_TEST, _listed),
        "EMNIST/balanced": _emnist("balanced"),
        "EMNIST/byclass": _emnist("byclass"),
        "EMNIST/bymerge": _emnist("bymerge"),
        "EMNIST/digits": _emnist("digits"),
        "EMNIST/letters": _emnist("letters"),
        "EMNIST/mnist": _emnist("mnist"),
        "EuroSAT": TorchvisionDataset(_eurosat_files, _WHOLE, _sampled),
        "FGVCAircraft": _aircraft("variant"),
        "FGVCAircraft/family": _aircraft("family"),
        "FGVCAircraft/manufacturer": _aircraft("manufacturer"),
        "FashionMNIST": TorchvisionDataset(_idx_files, _TRAIN_OR_NOT),
        "Flowers102": TorchvisionDataset(_flowers_files, _TRAIN_VAL_TEST, _listed),
        "Food101": TorchvisionDataset(_one_archive(), _TRAIN_TEST, _listed),
        "GTSRB": TorchvisionDataset(
            _gtsrb_files, _TRAIN_TEST, _sampled, tuple(f"{number:02d}" for number in range(43))
        ),
        "Imagenette": _imagenette("full"),
        "Imagenette/160px": _imagenette("160px"),
        "Imagenette/320px": _imagenette("320px"),
        "KMNIST": TorchvisionDataset(_idx_files, _TRAIN_OR_NOT),
        "MNIST": TorchvisionDataset(_idx_files, _TRAIN_OR_NOT),
        "OxfordIIITPet": TorchvisionDataset(
            lambda kind: [PublishedFile((url,), md5, "oxford-iiit-pet") for url, md5 in kind._RESOURCES],
            _split(train="trainval", test="test"),
            _pets,
        ),
        "QMNIST": TorchvisionDataset(_qmnist_files, _TRAIN_OR_NOT),
        "RenderedSST2": TorchvisionDataset(_one_archive(), _TRAIN_VAL_TEST, _sampled),
        "SEMEION": TorchvisionDataset(
            lambda kind: [PublishedFile((kind.url,), kind.md5_checksum)], _WHOLE, classes=_DIGITS
        ),
        "STL10": TorchvisionDataset(_batch_files, _TRAIN_TEST),
        "SUN397": TorchvisionDataset(
            lambda kind: [PublishedFile((kind._DATASET_URL,), kind._DATASET_MD5)], _WHOLE, _listed
        ),
        "SVHN": TorchvisionDataset(_listed_files, _TRAIN_TEST, classes=_DIGITS),
        "USPS": TorchvisionDataset(_listed_files, _TRAIN_OR_NOT, classes=_DIGITS),
    }
)
"""By the name in a recipe: torchvision's class, and behind a slash which of its variants."""
