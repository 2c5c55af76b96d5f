"""Datasets of torchvision, read by its own classes from small files in the real formats.

The checksums of the published files are replaced by those of the files that are made here, where a test does
not say otherwise; everything else is as in use.
"""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import json
import pickle
import struct
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import scipy.io
from PIL import Image
from torchvision import datasets

from transfer_platform.data.catalog import scan_folder
from transfer_platform.errors import SourceError
from transfer_platform.paths import cache_folder
from transfer_platform.progress import Step
from transfer_platform.sources import torchvision
from transfer_platform.sources.names import TORCHVISION_DATASETS
from transfer_platform.sources.open import open_source
from transfer_platform.sources.torchvision_table import TABLE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from .conftest import Site

Files = dict[str, bytes]
Expected = dict[str, bytes]
"""By `split/class/name`: the bytes of an image file, or the pixels of an array."""
Made = tuple[Files, Expected]

RANDOM = np.random.default_rng(0)


def tgz(entries: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in entries.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def zipped(entries: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def image(kind: str = "JPEG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(RANDOM.integers(0, 256, (12, 10, 3), np.uint8)).save(buffer, kind)
    return buffer.getvalue()


def pixels(count: int, *shape: int) -> np.ndarray:
    return RANDOM.integers(0, 256, (count, *shape), np.uint8)


def idx(values: np.ndarray, kind: int = 8) -> bytes:
    """Y. LeCun's format of arrays; `kind` 12 are 32-bit integers."""
    head = struct.pack(">BBBB", 0, 0, kind, values.ndim) + struct.pack(f">{values.ndim}I", *values.shape)
    return head + values.astype(">i4" if kind == 12 else np.uint8).tobytes()


def mat(**variables: object) -> bytes:
    buffer = io.BytesIO()
    scipy.io.savemat(buffer, variables)
    return buffer.getvalue()


def arrays(split: str, images: Iterable[np.ndarray], folders: Iterable[str]) -> Expected:
    start = f"{split}/" if split else ""
    return {
        f"{start}{folder}/{number:06d}.png": image.tobytes()
        for number, (image, folder) in enumerate(zip(images, folders, strict=True))
    }


def cifar(archive: str, folder: str, parts: Mapping[str, str], meta: str, key: str, names: str):
    """Real batches are pickles; `parts`: the split of each."""

    def make() -> Made:
        entries, expected = {f"{folder}/{meta}": pickle.dumps({names: ["airplane", "bird"]})}, {}
        for split in ("train", "test"):
            written = []
            for part in (part for part, role in parts.items() if role == split):
                data = pixels(2, 3, 32, 32)
                entries[f"{folder}/{part}"] = pickle.dumps({"data": data.reshape(2, -1), key: [1, 0]})
                written += list(data.transpose(0, 2, 3, 1))
            expected |= arrays(split, written, ["bird", "airplane"] * (len(written) // 2))
        return {archive: tgz(entries)}, expected

    return make


def idx_family(classes: list[str]):
    def make() -> Made:
        files, expected = {}, {}
        for split, name in (("train", "train"), ("test", "t10k")):
            images = pixels(3, 28, 28)
            files[f"{name}-images-idx3-ubyte.gz"] = gzip.compress(idx(images))
            files[f"{name}-labels-idx1-ubyte.gz"] = gzip.compress(idx(np.array([0, 9, 0])))
            expected |= arrays(split, images, [classes[0], classes[9], classes[0]])
        return files, expected

    return make


def emnist(part: str, labels: list[int], folders: list[str]):
    def make() -> Made:
        entries, expected = {"gzip/emnist-other-train-images-idx3-ubyte.gz": b"not looked at"}, {}
        for split in ("train", "test"):
            images = pixels(len(labels), 28, 28)
            entries[f"gzip/emnist-{part}-{split}-images-idx3-ubyte.gz"] = gzip.compress(idx(images))
            entries[f"gzip/emnist-{part}-{split}-labels-idx1-ubyte.gz"] = gzip.compress(idx(np.array(labels)))
            expected |= arrays(split, images, folders)
        return {"gzip.zip": zipped(entries)}, expected

    return make


def qmnist() -> Made:
    files, expected = {}, {}
    for split in ("train", "test"):
        images, labels = pixels(2, 28, 28), np.zeros((2, 8), int)
        labels[1, 0] = 4
        files[f"qmnist-{split}-images-idx3-ubyte.gz"] = gzip.compress(idx(images))
        files[f"qmnist-{split}-labels-idx2-int.gz"] = gzip.compress(idx(labels, 12))
        expected |= arrays(split, images, ["0 - zero", "4 - four"])
    return files, expected


def usps() -> Made:
    files, expected = {}, {}
    for split, name in (("train", "usps.bz2"), ("test", "usps.t.bz2")):
        images = RANDOM.integers(0, 2, (2, 256), np.uint8) * 255
        rows = [
            " ".join([str(label), *(f"{place + 1}:{value / 127.5 - 1:.1f}" for place, value in enumerate(image))])
            for label, image in zip((1, 10), images, strict=True)
        ]
        files[name] = bz2.compress("\n".join([*rows, ""]).encode())
        expected |= arrays(split, images, ["0", "9"])
    return files, expected


def svhn() -> Made:
    files, expected = {}, {}
    for split in ("train", "test"):
        images = pixels(2, 32, 32, 3)
        files[f"{split}_32x32.mat"] = mat(X=images.transpose(1, 2, 3, 0), y=np.array([[10], [3]], np.uint8))
        expected |= arrays(split, images, ["0", "3"])
    return files, expected


def stl10() -> Made:
    entries, expected = {"stl10_binary/class_names.txt": b"airplane\nbird\n"}, {}
    for split in ("train", "test"):
        images = pixels(2, 96, 96, 3)
        entries[f"stl10_binary/{split}_X.bin"] = images.transpose(0, 3, 2, 1).tobytes()
        entries[f"stl10_binary/{split}_y.bin"] = bytes([2, 1])
        expected |= arrays(split, images, ["bird", "airplane"])
    entries["stl10_binary/unlabeled_X.bin"] = pixels(1, 96, 96, 3).tobytes()
    return {"stl10_binary.tar.gz": tgz(entries)}, expected


def semeion() -> Made:
    images = RANDOM.integers(0, 2, (2, 256), np.uint8)
    rows = [
        " ".join(map(str, [*map(float, image), *np.eye(10, dtype=int)[label]]))
        for image, label in zip(images, (7, 2), strict=True)
    ]
    return {"semeion.data": "\n".join(rows).encode()}, arrays("", images * 255, ["7", "2"])


def flowers() -> Made:
    jpg = {number: image() for number in range(1, 7)}
    labels = {1: "pink primrose", 2: "blackberry lily"}
    splits = {"train": (1, 4), "validation": (2, 5), "test": (3, 6)}
    names = {number: labels[1 if number < 4 else 2] for number in jpg}
    files = {
        "102flowers.tgz": tgz({f"jpg/image_{number:05d}.jpg": content for number, content in jpg.items()}),
        "imagelabels.mat": mat(labels=np.array([1, 1, 1, 102, 102, 102])),
        "setid.mat": mat(trnid=np.array([1, 4]), valid=np.array([2, 5]), tstid=np.array([3, 6])),
    }
    return files, {
        f"{split}/{names[number]}/image_{number:05d}.jpg": jpg[number]
        for split, numbers in splits.items()
        for number in numbers
    }


def aircraft(level: str, listing: str, classes: tuple[str, str], folders: tuple[str, str]):
    def make() -> Made:
        data, expected = "fgvc-aircraft-2013b/data", {}
        entries = {f"{data}/{listing}.txt": "\n".join(classes).encode()}
        for split, name in (("train", "train"), ("validation", "val"), ("test", "test")):
            for number, folder in enumerate(folders):
                content = image()
                entries[f"{data}/images/{name}{number}.jpg"] = content
                expected[f"{split}/{folder}/{name}{number}.jpg"] = content
            lines = "".join(f"{name}{number} {label}\n" for number, label in enumerate(classes))
            entries[f"{data}/images_{level}_{name}.txt"] = lines.encode()
        return {"fgvc-aircraft-2013b.tar.gz": tgz(entries)}, expected

    return make


def food() -> Made:
    entries, expected = {}, {}
    for split in ("train", "test"):
        lists = {label: [f"{label}/{split}1"] for label in ("apple_pie", "waffles")}
        entries[f"food-101/meta/{split}.json"] = json.dumps(lists).encode()
        for (name,) in lists.values():
            entries[f"food-101/images/{name}.jpg"] = expected[f"{split}/{name}.jpg"] = image()
    return {"food-101.tar.gz": tgz(entries)}, expected


def pets() -> Made:
    images, lists, expected = {}, {}, {}
    for split, name in (("train", "trainval"), ("test", "test")):
        for number, label in ((1, "Abyssinian"), (2, "great_pyrenees")):
            file = f"{label}_{split}{number}".replace(f"_{split}", f"_{len(images)}")
            images[f"images/{file}.jpg"] = content = image()
            lists[f"annotations/{name}.txt"] = lists.get(f"annotations/{name}.txt", b"") + (
                f"{file} {number} {number} 1\n".encode()
            )
            folder = {"Abyssinian": "Abyssinian", "great_pyrenees": "Great Pyrenees"}[label]
            expected[f"{split}/{folder}/{file}.jpg"] = content
    return {"images.tar.gz": tgz(images), "annotations.tar.gz": tgz(lists)}, expected


def gtsrb() -> Made:
    train = {f"GTSRB/Training/{label:05d}/00000.ppm": image("PPM") for label in (0, 1)}
    test = {f"GTSRB/Final_Test/Images/{label:05d}.ppm": image("PPM") for label in (0, 1)}
    table = b"Filename;Width;ClassId\n00000.ppm;10;1\n00001.ppm;10;0\n"
    readme = {"GTSRB/Readme.txt": b"in both archives"}
    return {
        "GTSRB-Training_fixed.zip": zipped(train | readme),
        "GTSRB_Final_Test_Images.zip": zipped(test | readme),
        "GTSRB_Final_Test_GT.zip": zipped({"GT-final_test.csv": table}),
    }, {
        "train/00/00000.ppm": train["GTSRB/Training/00000/00000.ppm"],
        "train/01/00000.ppm": train["GTSRB/Training/00001/00000.ppm"],
        "test/01/00000.ppm": test["GTSRB/Final_Test/Images/00000.ppm"],
        "test/00/00001.ppm": test["GTSRB/Final_Test/Images/00001.ppm"],
    }


def dtd() -> Made:
    entries, expected = {}, {}
    for split, name in (("train", "train"), ("validation", "val"), ("test", "test")):
        files = [f"{label}/{label}_{name}.jpg" for label in ("banded", "zigzagged")]
        entries[f"dtd/labels/{name}1.txt"] = "\n".join(files).encode()
        for file in files:
            entries[f"dtd/images/{file}"] = expected[f"{split}/{file}"] = image()
    return {"dtd-r1.0.1.tar.gz": tgz(entries)}, expected


def eurosat() -> Made:
    expected = {f"{label}/{label}_1.jpg": image() for label in ("Forest", "River")}
    return {"EuroSAT.zip": zipped({f"2750/{name}": content for name, content in expected.items()})}, expected


def caltech101() -> Made:
    expected = {f"{label}/image_{n:04d}.jpg": image() for label in ("Faces", "ant") for n in (1, 2)}
    entries = expected | {"BACKGROUND_Google/image_0001.jpg": image()}
    inner = tgz({f"101_ObjectCategories/{name}": content for name, content in entries.items()})
    outer = {"101_ObjectCategories.tar.gz": inner, "Annotations.tar": b"not looked at"}
    return {"caltech-101.zip": zipped({f"caltech-101/{name}": part for name, part in outer.items()})}, expected


def caltech256() -> Made:
    expected = {"001.ak47/001_0001.jpg": image(), "002.american-flag/002_0001.jpg": image()}
    entries = {f"256_ObjectCategories/{name}": content for name, content in expected.items()}
    with_clutter = entries | {"256_ObjectCategories/002.american-flag/RENAME2": b"a script"}
    return {"256_ObjectCategories.tar": gzip.decompress(tgz(with_clutter))}, expected


def sun397() -> Made:
    entries, expected = {"SUN397/ClassName.txt": b"/a/abbey\n/a/apartment_building/outdoor\n"}, {}
    for name, folder in (("abbey", "abbey"), ("apartment_building/outdoor", "apartment_building-outdoor")):
        entries[f"SUN397/a/{name}/sun_a.jpg"] = expected[f"{folder}/sun_a.jpg"] = image()
    return {"SUN397.tar.gz": tgz(entries)}, expected


def folders(archive: str, top: str, splits: Mapping[str, str], classes: Mapping[str, str], suffix: str):
    """Archives with one folder per split and in it one per class; both under other names than ours."""

    def make() -> Made:
        entries, expected = {}, {}
        for split, theirs in splits.items():
            for folder, label in classes.items():
                content = image("PNG" if suffix == "png" else "JPEG")
                entries[f"{top}/{theirs}/{label}/1.{suffix}"] = content
                expected[f"{split}/{folder}/1.{suffix}"] = content
        return {archive: tgz(entries)}, expected

    return make


def imagenette(size: str):
    top = f"imagenette2{size}"
    classes = {"tench": "n01440764", "cassette player": "n02979186"}
    return folders(f"{top}.tgz", top, {"train": "train", "validation": "val"}, classes, "jpeg")


NUMERALS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
DIGITS = [f"{number} - {word}" for number, word in enumerate(NUMERALS)]
GARMENTS = ["T-shirt-top", *datasets.FashionMNIST.classes[1:]]
BATCHES = {f"data_batch_{number}": "train" for number in range(1, 6)} | {"test_batch": "test"}
VALID = {"train": "train", "validation": "valid", "test": "test"}
MAKERS: Mapping[str, Callable[[], Made]] = {
    "CIFAR10": cifar("cifar-10-python.tar.gz", "cifar-10-batches-py", BATCHES, "batches.meta", "labels", "label_names"),
    "CIFAR100": cifar(
        "cifar-100-python.tar.gz",
        "cifar-100-python",
        {"train": "train", "test": "test"},
        "meta",
        "fine_labels",
        "fine_label_names",
    ),
    "Caltech101": caltech101,
    "Caltech256": caltech256,
    "Country211": folders("country211.tgz", "country211", VALID, {"AD": "AD", "ZW": "ZW"}, "jpg"),
    "DTD": dtd,
    "EMNIST/balanced": emnist("balanced", [0, 36], ["0", "a_36"]),
    "EMNIST/byclass": emnist("byclass", [9, 10, 36], ["9", "A_10", "a_36"]),
    "EMNIST/bymerge": emnist("bymerge", [9, 46], ["9", "t_46"]),
    "EMNIST/digits": emnist("digits", [0, 9], ["0", "9"]),
    "EMNIST/letters": emnist("letters", [1, 26], ["a", "z"]),
    "EMNIST/mnist": emnist("mnist", [0, 9], ["0", "9"]),
    "EuroSAT": eurosat,
    "FGVCAircraft": aircraft("variant", "variants", ("707-320", "F/A-18"), ("707-320", "F-A-18")),
    "FGVCAircraft/family": aircraft("family", "families", ("Boeing 707", "F/A-18"), ("Boeing 707", "F-A-18")),
    "FGVCAircraft/manufacturer": aircraft("manufacturer", "manufacturers", ("ATR", "Airbus"), ("ATR", "Airbus")),
    "FashionMNIST": idx_family(GARMENTS),
    "Flowers102": flowers,
    "Food101": food,
    "GTSRB": gtsrb,
    "Imagenette": imagenette(""),
    "Imagenette/160px": imagenette("-160"),
    "Imagenette/320px": imagenette("-320"),
    "KMNIST": idx_family(datasets.KMNIST.classes),
    "MNIST": idx_family(DIGITS),
    "OxfordIIITPet": pets,
    "QMNIST": qmnist,
    "RenderedSST2": folders(
        "rendered-sst2.tgz", "rendered-sst2", VALID, {name: name for name in ("negative", "positive")}, "png"
    ),
    "SEMEION": semeion,
    "STL10": stl10,
    "SUN397": sun397,
    "SVHN": svhn,
    "USPS": usps,
}


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


@pytest.fixture
def trusted(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Files], None]:
    """Replaces the checksums of a set's files, and torchvision's of what is in them, by real ones."""

    def trust(name: str, files: Files) -> None:
        entry, kind = TABLE[name], getattr(datasets, name.partition("/")[0])

        def known(cls: Any) -> Iterable[Any]:
            return [replace(file, md5=md5(files[file.name])) for file in entry.files(cls)]

        monkeypatch.setattr(torchvision, "TABLE", {**TABLE, name: replace(entry, files=known)})
        if name == "Flowers102":
            table = {key: (file, md5(files[file])) for key, (file, _) in kind._file_dict.items()}
            monkeypatch.setattr(kind, "_file_dict", table)
        if name == "SEMEION":
            monkeypatch.setattr(kind, "md5_checksum", md5(files["semeion.data"]))
        if name == "SVHN":
            table = {
                key: [url, file, md5(files[file])] for key, (url, file, _) in kind.split_list.items() if file in files
            }
            monkeypatch.setattr(kind, "split_list", table)
        if name in ("CIFAR10", "CIFAR100", "STL10"):
            with tarfile.open(fileobj=io.BytesIO(files[kind.filename])) as archive:
                inside = {Path(part.name).name: md5(archive.extractfile(part).read()) for part in archive}
            for attribute in ("train_list", "test_list"):
                table = [[part, inside[part]] for part, _ in getattr(kind, attribute)]
                monkeypatch.setattr(kind, attribute, table)
            if name != "STL10":
                monkeypatch.setattr(kind, "meta", kind.meta | {"md5": inside[kind.meta["filename"]]})

    return trust


def put(files: Files, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)


def content(file: Path, array: bool) -> bytes:
    if not array:
        return file.read_bytes()
    with Image.open(file) as image:
        return image.tobytes()


def test_every_name_has_an_entry_and_a_test() -> None:
    assert set(TABLE) == set(TORCHVISION_DATASETS) == set(MAKERS)
    assert sorted(TORCHVISION_DATASETS) == list(TORCHVISION_DATASETS)


@pytest.mark.parametrize("name", TORCHVISION_DATASETS)
def test_a_set_becomes_class_folders(name: str, mirror: Path, trusted: Callable[[str, Files], None]) -> None:
    files, expected = MAKERS[name]()
    put(files, mirror)
    trusted(name, files)
    steps: list[Step] = []
    folder = open_source(f"torchvision:{name}", Path(), progress=steps.append)
    assert folder.is_relative_to(cache_folder() / "torchvision")
    array = TABLE[name].images is None
    written = {str(file.relative_to(folder)): content(file, array) for file in folder.rglob("*") if file.is_file()}
    assert written == expected
    last = {step.task: step for step in steps if step.task.startswith("writing")}
    assert sum(step.done for step in last.values()) == len(expected)
    assert all((step.done, step.unit) == (step.total, "images") for step in last.values())
    for split in TABLE[name].splits:
        assert len(scan_folder(folder / split).classes) >= 2


class Payload:
    """An object that executes code when it is unpickled."""

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (Path("unpickled"),)


def test_a_batch_is_not_unpickled_unless_its_checksum_is_the_published_one(
    mirror: Path, trusted: Callable[[str, Files], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    files, _ = MAKERS["CIFAR10"]()
    trusted("CIFAR10", files)
    with tarfile.open(fileobj=io.BytesIO(files["cifar-10-python.tar.gz"])) as archive:
        entries = {part.name: archive.extractfile(part).read() for part in archive}
    entries["cifar-10-batches-py/data_batch_3"] = pickle.dumps(Payload())
    archive = tgz(entries)
    put({"cifar-10-python.tar.gz": archive}, mirror)
    known = [replace(file, md5=md5(archive)) for file in TABLE["CIFAR10"].files(datasets.CIFAR10)]
    table = {**TABLE, "CIFAR10": replace(TABLE["CIFAR10"], files=lambda _: known)}
    monkeypatch.setattr(torchvision, "TABLE", table)
    with pytest.raises(SourceError, match=r"torchvision:CIFAR10 could not be converted.*corrupted"):
        open_source("torchvision:CIFAR10", Path())
    assert not Path("unpickled").exists()
    assert {path.suffix for path in (cache_folder() / "torchvision").iterdir()} == {".lock"}
    pickle.loads(entries["cifar-10-batches-py/data_batch_3"])
    assert Path("unpickled").exists()


@pytest.fixture
def kmnist(site: Site, monkeypatch: pytest.MonkeyPatch) -> Files:
    """Small files under KMNIST's names, with its checksums replaced, and `site` as its second address."""
    files, _ = MAKERS["KMNIST"]()
    monkeypatch.setattr(datasets.KMNIST, "mirrors", [f"{site.url}/gone/", f"{site.url}/kmnist/"])
    monkeypatch.setattr(datasets.KMNIST, "resources", [(name, md5(data)) for name, data in files.items()])
    return files


def test_files_come_from_the_first_address_that_has_them(isolated: Path, site: Site, kmnist: Files) -> None:
    site.files = {f"/kmnist/{name}": data for name, data in kmnist.items()}
    folder = open_source("torchvision:KMNIST", isolated)
    assert len(scan_folder(folder / "train").images) == len(scan_folder(folder / "test").images) == 3
    assert len(site.requests) == 8
    assert open_source("torchvision:KMNIST", isolated) == folder
    assert len(site.requests) == 8


def test_a_mirror_may_be_a_folder_that_torchvision_downloaded_into(mirror: Path, site: Site, kmnist: Files) -> None:
    """MNIST, FashionMNIST and KMNIST share the names of their files: only checksums tell them apart."""
    put(kmnist, mirror / "KMNIST" / "raw")
    put(dict.fromkeys(kmnist, b"of MNIST"), mirror)
    open_source("torchvision:KMNIST", Path())
    assert not site.requests


def test_a_file_of_another_set_is_refused(mirror: Path, site: Site, kmnist: Files) -> None:
    put(dict.fromkeys(kmnist, b"of MNIST"), mirror)
    with pytest.raises(SourceError) as caught:
        open_source("torchvision:KMNIST", Path())
    message = str(caught.value)
    assert message.startswith(f"torchvision:KMNIST: {site.url}/gone/train-images-idx3-ubyte.gz could not be")
    assert f"its md5 is {md5(b'of MNIST')}, expected {md5(kmnist['train-images-idx3-ubyte.gz'])}" in message
    assert f"{site.url}/kmnist/train-images-idx3-ubyte.gz: HTTP status 404" in message
    assert "or set PLATFORM_MIRROR to a folder that contains the file" in message
    assert not (cache_folder() / "torchvision" / "KMNIST").exists()


def test_published_checksums_are_required(mirror: Path, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is replaced here but the address: the files are not KMNIST's, and torchvision's MD5 says so."""
    monkeypatch.setattr(datasets.KMNIST, "mirrors", [f"{site.url}/"])
    put(MAKERS["KMNIST"]()[0], mirror)
    with pytest.raises(SourceError, match="expected bdb82020997e1d708af4cf47b453dcf7"):
        open_source("torchvision:KMNIST", Path())


def test_a_damaged_archive_without_a_checksum_leaves_nothing(mirror: Path) -> None:
    (archive,) = MAKERS["FGVCAircraft"]()[0].values()
    put({"fgvc-aircraft-2013b.tar.gz": archive[: len(archive) // 2]}, mirror)
    with pytest.raises(SourceError, match=r"torchvision:FGVCAircraft: .*2013b\.tar\.gz is corrupt or incomplete"):
        open_source("torchvision:FGVCAircraft", Path())
    assert {path.suffix for path in (cache_folder() / "torchvision").iterdir()} == {".lock"}


def test_an_archive_that_lacks_a_part_is_reported(mirror: Path) -> None:
    put({"fgvc-aircraft-2013b.tar.gz": tgz({"fgvc-aircraft-2013b/data/variants.txt": b"707"})}, mirror)
    with pytest.raises(SourceError, match=r"could not be converted to class folders: .*images_variant_train\.txt"):
        open_source("torchvision:FGVCAircraft", Path())


def test_what_is_written_is_opened_without_torchvision(
    mirror: Path, trusted: Callable[[str, Files], None], modules_to_open: Callable[[str], set[str]]
) -> None:
    files, _ = MAKERS["USPS"]()
    put(files, mirror)
    trusted("USPS", files)
    open_source("torchvision:USPS", Path())
    assert not {"torch", "torchvision", "datasets", "requests"} & modules_to_open("torchvision:USPS")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cifar10", "did you mean 'CIFAR10'?"),
        ("Flower102", "did you mean 'Flowers102'?"),
        ("EMNIST/letter", "did you mean 'EMNIST/letters'?"),
        ("EMNIST", "choose a variant (balanced, byclass"),
        ("PCAM", "it requires h5py and is hosted on Google Drive"),
        ("photos", "available: CIFAR10, CIFAR100"),
    ],
)
def test_unknown_names(name: str, message: str, isolated: Path) -> None:
    with pytest.raises(SourceError) as caught:
        open_source(f"torchvision:{name}", isolated)
    assert message in str(caught.value)


def test_the_documentation_lists_every_set() -> None:
    page = (Path(__file__).parents[3] / "docs" / "sources.md").read_text(encoding="utf-8")
    assert [name for name in TORCHVISION_DATASETS if f"`{name}`" not in page] == []
