"""Which columns of a Hugging Face data set hold images and classes, and what is in them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transfer_platform.errors import SourceError
from transfer_platform.sources.class_folders import folder_names
from transfer_platform.suggest import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from transfer_platform.sources.names import HuggingFaceSource

Table = Any
"""One split: a `datasets.Dataset`."""
Feature = Any
"""The type of a column, as `datasets` describes it."""

_SUFFIXES = {
    b"\xff\xd8\xff": ".jpg",
    b"\x89PNG": ".png",
    b"GIF8": ".gif",
    b"BM": ".bmp",
    b"RIFF": ".webp",
    b"II*\0": ".tif",
    b"MM\0*": ".tif",
}


@dataclass(frozen=True, slots=True)
class StoredImage:
    """One row.

    Attributes:
        content: The bytes of an image file.
        folder: The name of its class, as a folder.
    """

    content: bytes
    folder: str

    @property
    def suffix(self) -> str:
        """Of a file with this content, by how it begins; empty where that says nothing."""
        return next((end for begin, end in _SUFFIXES.items() if self.content.startswith(begin)), "")


def read_images(
    table: Table, split: str, source: HuggingFaceSource, places: Collection[Path]
) -> Iterator[StoredImage]:
    """The images of a split in their order, undecoded, one at a time.

    Args:
        table: The split.
        split: Its name, for messages.
        source: Which columns the recipe chose.
        places: Where image files may lie that the table only names.

    Raises:
        SourceError: The columns are not certain, or a row lacks its image or its label.
    """
    from datasets import Image

    image = _image_column(table.features, source.image)
    label = _label_column(table.features, source.label)
    folders = _folders(table, label)
    for number, row in enumerate(
        table.select_columns([image, label]).cast_column(image, Image(decode=False))
    ):
        where = f"row {number} of the split {split!r}"
        if row[label] not in folders:
            raise SourceError(
                f"{where} has no class ({label} is {row[label]!r}); "
                "choose the splits whose images have one, such as ?splits=train"
            )
        yield StoredImage(_content(row[image], where, places), folders[row[label]])


def _image_column(features: Mapping[str, Feature], wanted: str) -> str:
    from datasets import Image

    if wanted and wanted in features and not isinstance(features[wanted], Image):
        raise SourceError(f"the column {wanted!r} holds no images; there are {_described(features)}")
    found = [name for name, feature in features.items() if isinstance(feature, Image)]
    return _only(features, found, wanted, "images", "image")


def _label_column(features: Mapping[str, Feature], wanted: str) -> str:
    from datasets import ClassLabel, Value

    if wanted and wanted in features and not isinstance(features[wanted], ClassLabel | Value):
        raise SourceError(f"the column {wanted!r} holds no classes; there are {_described(features)}")
    found = [name for name, feature in features.items() if isinstance(feature, ClassLabel)]
    return _only(features, found, wanted, "classes", "label")


def _only(features: Mapping[str, Feature], found: list[str], wanted: str, what: str, option: str) -> str:
    """The column that is wanted, or the only one that fits."""
    if wanted:
        if wanted not in features:
            raise SourceError(
                f"there is no column {wanted!r}, only {_described(features)}{did_you_mean(wanted, features)}"
            )
        return wanted
    if len(found) == 1:
        return found[0]
    if found:
        raise SourceError(f"{what} are in {' and in '.join(found)}: choose one, such as ?{option}={found[0]}")
    raise SourceError(
        f"no column is known to hold {what}; there are {_described(features)}; name one: ?{option}=COLUMN"
    )


def _described(features: Mapping[str, Feature]) -> str:
    return ", ".join(
        f"{name} ({getattr(kind, 'dtype', type(kind).__name__)})" for name, kind in features.items()
    )


def _folders(table: Table, label: str) -> Mapping[object, str]:
    """The folder of every value of a column of classes; plain values are called what they are."""
    from datasets import ClassLabel

    feature = table.features[label]
    if isinstance(feature, ClassLabel):
        return dict(enumerate(folder_names(feature.names)))
    values = sorted(value for value in table.unique(label) if value is not None)
    return dict(zip(values, folder_names([str(value) for value in values]), strict=True))


def _content(stored: Mapping[str, Any] | None, where: str, places: Collection[Path]) -> bytes:
    """The bytes of an image that stands in its row, or of the file that the row names."""
    if stored is None or (stored["bytes"] is None and stored["path"] is None):
        raise SourceError(f"{where} has no image")
    if stored["bytes"] is not None:
        return bytes(stored["bytes"])
    file = Path(stored["path"])
    if not any(file.resolve().is_relative_to(place.resolve()) for place in places):
        raise SourceError(f"{where} names the file {file}, which does not lie in the data set")
    return file.read_bytes()
