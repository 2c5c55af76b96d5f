"""Supported torchvision datasets: their files, splits and images.

URLs and checksums are taken from attributes of the torchvision classes, or duplicated here if torchvision hard-codes
them in functions. A dataset stored as pickle files is supported only if torchvision verifies the MD5 checksum of each
file before loading it.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DatasetClass = Any
"""A torchvision dataset class; typed as `Any` because torchvision has no type annotations."""
DatasetInstance = Any
"""An instance of a torchvision dataset class."""


@dataclass(frozen=True, slots=True)
class PublishedFile:
    """A downloadable file of a dataset.

    Attributes:
        urls: URLs of the file, in order of preference.
        md5: Published MD5 checksum, 32 hexadecimal digits; `None` if none is published.
        folder: Folder for the file or its unpacked contents, relative to torchvision's `root`.
        inner_archives: Glob patterns for archives inside the downloaded archive, which are also unpacked into `folder`.
    """

    urls: tuple[str, ...]
    md5: str | None
    folder: str = ""
    inner_archives: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """File name, taken from the first URL."""
        return self.urls[0].rpartition("/")[2]


@dataclass(frozen=True, slots=True)
class TorchvisionDataset:
    """Describes how to download and read a torchvision dataset.

    Attributes:
        files: Function that returns the files to download for a dataset class.
        splits: Constructor arguments for each split, keyed by folder name; the key is `.` if there are no splits.
        images: Function that returns the image files and labels; `None` if the dataset stores its images as arrays.
        classes: Class names; empty if torchvision provides them.
    """

    files: Callable[[DatasetClass], Iterable[PublishedFile]]
    splits: Mapping[str, Mapping[str, object]]
    images: Callable[[DatasetInstance], Iterable[tuple[Path, int]]] | None = None
    classes: Sequence[str] = ()


EMNIST_PARTS = ("balanced", "byclass", "bymerge", "digits", "letters", "mnist")
_DIGITS = tuple("0123456789")
_NO_SPLITS: Mapping[str, Mapping[str, object]] = {".": {}}
_TRAIN_OR_NOT: Mapping[str, Mapping[str, object]] = {"train": {"train": True}, "test": {"train": False}}
_GTSRB = "https://sid.erda.dk/public/archives/daaeac0d7ce1152aea9b61d9f1e19370/"


def _splits(**names: str) -> Mapping[str, Mapping[str, object]]:
    return {folder: {"split": name} for folder, name in names.items()}


def _add_arguments(splits: Mapping[str, Mapping[str, object]], **common: object) -> Mapping[str, Mapping[str, object]]:
    return {folder: {**arguments, **common} for folder, arguments in splits.items()}


_TRAIN_TEST = _splits(train="train", test="test")
_TRAIN_VALID_TEST = _splits(train="train", validation="valid", test="test")
_TRAIN_VAL_TEST = _splits(train="train", validation="val", test="test")


def _batch_files(cls: DatasetClass) -> Iterable[PublishedFile]:
    yield PublishedFile((cls.url,), cls.tgz_md5)


def _idx_files(cls: DatasetClass) -> Iterable[PublishedFile]:
    for name, md5 in cls.resources:
        yield PublishedFile(tuple(mirror + name for mirror in cls.mirrors), md5, f"{cls.__name__}/raw")


def _emnist_files(part: str) -> Callable[[DatasetClass], Iterable[PublishedFile]]:
    return lambda cls: [PublishedFile((cls.url,), cls.md5, "EMNIST/raw", (f"gzip/emnist-{part}-*.gz",))]


def _qmnist_files(cls: DatasetClass) -> Iterable[PublishedFile]:
    for split in ("train", "test"):
        for url, md5 in cls.resources[split]:
            yield PublishedFile((url,), md5, "QMNIST/raw")


def _split_list_files(cls: DatasetClass) -> Iterable[PublishedFile]:
    for split in ("train", "test"):
        url, _, md5 = cls.split_list[split]
        yield PublishedFile((url,), md5)


def _flowers_files(cls: DatasetClass) -> Iterable[PublishedFile]:
    for name, md5 in cls._file_dict.values():
        yield PublishedFile((cls._download_url_prefix + name,), md5, "flowers-102")


def _gtsrb_files(_: DatasetClass) -> Iterable[PublishedFile]:
    for name, md5 in (
        ("GTSRB-Training_fixed.zip", "513f3c79a4c5141765e10e952eaa2478"),
        ("GTSRB_Final_Test_Images.zip", "c7e4e6327067d32654124b0fe9e82185"),
        ("GTSRB_Final_Test_GT.zip", "fe31e9c9270bbcd7b84b7f21a9d9d9e5"),
    ):
        yield PublishedFile((_GTSRB + name,), md5, "gtsrb")


def _eurosat_files(_: DatasetClass) -> Iterable[PublishedFile]:
    commit = "c877bcd43f099cd0196738f714544e355477f3fd"
    url = f"https://huggingface.co/datasets/torchgeo/eurosat/resolve/{commit}/EuroSAT.zip"
    yield PublishedFile((url,), "c8fa014336c82ac7804f0398fcb19387", "eurosat")


def _caltech101_files(_: DatasetClass) -> Iterable[PublishedFile]:
    url = "https://data.caltech.edu/records/mzrjq-6wc02/files/caltech-101.zip"
    inner_archives = ("caltech-101/101_ObjectCategories.tar.gz",)
    yield PublishedFile((url,), "3138e1922a9193bfa496528edbbc45d0", "caltech101", inner_archives)


def _caltech256_files(_: DatasetClass) -> Iterable[PublishedFile]:
    url = "https://data.caltech.edu/records/nyy15-4j048/files/256_ObjectCategories.tar"
    yield PublishedFile((url,), "67b4f42ca05d46448c6bb8ecd2220f6d", "caltech256")


def _single_archive(folder: str = "") -> Callable[[DatasetClass], Iterable[PublishedFile]]:
    return lambda cls: [PublishedFile((cls._URL,), getattr(cls, "_MD5", None), folder)]


def _imagenette_files(size: str) -> Callable[[DatasetClass], Iterable[PublishedFile]]:
    return lambda cls: [PublishedFile((cls._ARCHIVES[size][0],), cls._ARCHIVES[size][1])]


def _image_files(dataset: DatasetInstance) -> Iterable[tuple[Path, int]]:
    return zip(map(Path, dataset._image_files), dataset._labels, strict=True)


def _samples_of(dataset: DatasetInstance) -> Iterable[tuple[Path, int]]:
    samples = dataset._samples if hasattr(dataset, "_samples") else dataset.samples
    return ((Path(file), label) for file, label in samples)


def _pet_files(cls: DatasetClass) -> Iterable[PublishedFile]:
    return [PublishedFile((url,), md5, "oxford-iiit-pet") for url, md5 in cls._RESOURCES]


def _pet_images(dataset: DatasetInstance) -> Iterable[tuple[Path, int]]:
    return zip(dataset._images, dataset._labels, strict=True)


def _caltech_images(folder: str, file_name: str) -> Callable[[DatasetInstance], Iterable[tuple[Path, int]]]:
    def images(dataset: DatasetInstance) -> Iterable[tuple[Path, int]]:
        for number, label in zip(dataset.index, dataset.y, strict=True):
            name = file_name.format(class_number=label + 1, number=number)
            yield Path(dataset.root, folder, dataset.categories[label], name), label

    return images


_CALTECH101_IMAGES = _caltech_images("101_ObjectCategories", "image_{number:04d}.jpg")
_CALTECH256_IMAGES = _caltech_images("256_ObjectCategories", "{class_number:03d}_{number:04d}.jpg")


def _emnist(part: str) -> TorchvisionDataset:
    return TorchvisionDataset(_emnist_files(part), _add_arguments(_TRAIN_OR_NOT, split=part))


def _aircraft(level: str) -> TorchvisionDataset:
    return TorchvisionDataset(_single_archive(), _add_arguments(_TRAIN_VAL_TEST, annotation_level=level), _image_files)


def _imagenette(size: str) -> TorchvisionDataset:
    splits = _add_arguments(_splits(train="train", validation="val"), size=size)
    return TorchvisionDataset(_imagenette_files(size), splits, _samples_of)


TABLE: Mapping[str, TorchvisionDataset] = {
    "CIFAR10": TorchvisionDataset(_batch_files, _TRAIN_OR_NOT),
    "CIFAR100": TorchvisionDataset(_batch_files, _TRAIN_OR_NOT),
    "Caltech101": TorchvisionDataset(_caltech101_files, _NO_SPLITS, _CALTECH101_IMAGES),
    "Caltech256": TorchvisionDataset(_caltech256_files, _NO_SPLITS, _CALTECH256_IMAGES),
    "Country211": TorchvisionDataset(_single_archive(), _TRAIN_VALID_TEST, _samples_of),
    "DTD": TorchvisionDataset(_single_archive("dtd"), _TRAIN_VAL_TEST, _image_files),
    **{f"EMNIST/{part}": _emnist(part) for part in EMNIST_PARTS},
    "EuroSAT": TorchvisionDataset(_eurosat_files, _NO_SPLITS, _samples_of),
    "FGVCAircraft": _aircraft("variant"),
    "FGVCAircraft/family": _aircraft("family"),
    "FGVCAircraft/manufacturer": _aircraft("manufacturer"),
    "FashionMNIST": TorchvisionDataset(_idx_files, _TRAIN_OR_NOT),
    "Flowers102": TorchvisionDataset(_flowers_files, _TRAIN_VAL_TEST, _image_files),
    "Food101": TorchvisionDataset(_single_archive(), _TRAIN_TEST, _image_files),
    "GTSRB": TorchvisionDataset(_gtsrb_files, _TRAIN_TEST, _samples_of, [f"{number:02d}" for number in range(43)]),
    "Imagenette": _imagenette("full"),
    **{f"Imagenette/{size}": _imagenette(size) for size in ("160px", "320px")},
    "KMNIST": TorchvisionDataset(_idx_files, _TRAIN_OR_NOT),
    "MNIST": TorchvisionDataset(_idx_files, _TRAIN_OR_NOT),
    "OxfordIIITPet": TorchvisionDataset(_pet_files, _splits(train="trainval", test="test"), _pet_images),
    "QMNIST": TorchvisionDataset(_qmnist_files, _TRAIN_OR_NOT),
    "RenderedSST2": TorchvisionDataset(_single_archive(), _TRAIN_VAL_TEST, _samples_of),
    "SEMEION": TorchvisionDataset(lambda cls: [PublishedFile((cls.url,), cls.md5_checksum)], _NO_SPLITS, None, _DIGITS),
    "STL10": TorchvisionDataset(_batch_files, _TRAIN_TEST),
    "SUN397": TorchvisionDataset(
        lambda cls: [PublishedFile((cls._DATASET_URL,), cls._DATASET_MD5)], _NO_SPLITS, _image_files
    ),
    "SVHN": TorchvisionDataset(_split_list_files, _TRAIN_TEST, classes=_DIGITS),
    "USPS": TorchvisionDataset(_split_list_files, _TRAIN_OR_NOT, classes=_DIGITS),
}
"""Datasets, keyed by their names in recipes: a torchvision class name, optionally followed by a slash and a variant."""
