"""Reads manifests: CSV, TSV, JSONL or Parquet tables of images and labels."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from transfer_platform.data.catalog import normalize_label
from transfer_platform.data.message_lists import join_lines
from transfer_platform.data.split_names import SPLIT_NAMES, split_for_name
from transfer_platform.data.table_files import DELIMITERS, PARQUET, SUFFIXES, Table, read_table
from transfer_platform.errors import DataError, MetadataError
from transfer_platform.file_problems import printable
from transfer_platform.plurals import counted
from transfer_platform.suggest import did_you_mean

STANDARD_COLUMNS = ("path", "label", "split", "weight")
"""Columns with a predefined meaning; names are case-insensitive."""
FILE_NAME = "file_name"
"""Name of the `path` column in Hugging Face metadata files; recognized if there is no `path` column."""


@dataclass(frozen=True, slots=True)
class ManifestRow:
    """One image listed in a manifest.

    Attributes:
        number: Line number in a text file, or row number in a Parquet file, starting at 1. If the manifest consists
            of several files, `ManifestPart.start` is added.
        path: Path or URL as written in the file.
        label: Class, in Unicode normal form NFC.
        split: `train`, `validation` or `test`; empty if there is no `split` column.
        group: Value of the `group_by` column, in NFC; empty if `group_by` is not set.
        weight: Positive weight in the training loss; defaults to 1.
    """

    number: int
    path: str
    label: str
    split: str
    group: str
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class ManifestPart:
    """One file of a manifest that consists of several files.

    Attributes:
        start: Number that is added to the line and row numbers of the file.
        name: Path of the file, relative to the folder of the manifest.
    """

    start: int
    name: str


@dataclass(frozen=True)
class Manifest:
    """The parsed contents of a manifest.

    Attributes:
        file: Path of the manifest file or, if the manifest consists of several files, the folder that contains them.
        rows: All rows with the correct number of cells.
        errors: The line or row number and the message of each error; empty if the manifest is valid.
        notes: Messages about the columns.
        parts: Files of the manifest, sorted by `start`; empty if the manifest is a single file.
        metadata_files: Files of a manifest that was found in the folder of a dataset, relative to this folder; empty if
            the user named the manifest.
    """

    file: Path
    rows: tuple[ManifestRow, ...]
    errors: tuple[tuple[int, str], ...]
    notes: tuple[str, ...]
    parts: tuple[ManifestPart, ...] = ()
    metadata_files: tuple[str, ...] = ()

    @property
    def is_listed_by_user(self) -> bool:
        """False if the paths must stay inside the folder, because the dataset may come from an untrusted source."""
        return not self.metadata_files

    @property
    def folder(self) -> Path:
        """Folder that relative paths are resolved against."""
        return self.file if self.parts else self.file.parent

    @property
    def splits(self) -> tuple[str, ...]:
        """Splits that occur in the rows, `train` first; empty if there is no `split` column."""
        named = {row.split for row in self.rows}
        return tuple(split for split in SPLIT_NAMES if split in named)

    def row_label(self, number: int) -> str:
        """Returns the file name and line or row number, for use in messages."""
        parts = self.parts or (ManifestPart(0, self.file.name),)
        part = max((part for part in parts if part.start < number), key=lambda part: part.start)
        unit = "row" if part.name.lower().endswith(PARQUET) else "line"
        return f"{printable(part.name)}, {unit} {number - part.start}"

    def raise_errors(self, errors: Sequence[tuple[int, str]]) -> None:
        """Raises a `DataError` if there are any errors; the message lists the first 20."""
        if not (lines := [f"  {self.row_label(number)}: {error}" for number, error in sorted(errors)]):
            return
        found = f"the manifest {printable(self.file)} has {counted(len(lines), 'error')}"
        if self.metadata_files:
            raise MetadataError(f"{found}\n{join_lines(lines)}", self.file, self.metadata_files)
        raise DataError(f"{found}:\n{join_lines(lines)}")


def is_manifest(source: str) -> bool:
    """Returns whether a source has a manifest file extension.

    >>> is_manifest("photos.CSV"), is_manifest("https://host/a.parquet?sig=1"), is_manifest("photos.zip")
    (True, True, False)
    """
    path = urlsplit(source).path if "://" in source else source
    return PurePosixPath(path).suffix.lower() in SUFFIXES


def read_manifest(file: Path, group_by: str | None = None) -> Manifest:
    """Reads a manifest; errors in individual rows are returned rather than raised.

    Args:
        file: A file that `read_table` can read. The columns are `path` (or `file_name`), `label` and, optionally,
            `split` and `weight`; other columns are ignored.
        group_by: Name of an additional required column that contains the group names.

    Raises:
        DataError: The file cannot be read, lacks a required column, or has no rows.
    """
    required = ["path", "label", *([group_by] if group_by else [])]
    table = _normalize_columns(read_table(file, {*required, *STANDARD_COLUMNS, FILE_NAME}), group_by)
    _require_columns(file, table.columns, required, group_by)
    if not table.rows and not table.errors:
        raise DataError(f"the manifest {printable(file)} has no rows below the header")
    rows = tuple(_parse_row(number, cells, group_by) for number, cells in table.rows)
    return Manifest(file, rows, (*table.errors, *_row_errors(table, required)), tuple(_column_notes(table)))


def _normalize_columns(table: Table, group_by: str | None) -> Table:
    """Renames standard columns to lowercase, and `file_name` to `path`, unless this would create duplicates."""
    new_names = {
        name: name.casefold()
        for name in table.columns
        if name.casefold() in (*STANDARD_COLUMNS, FILE_NAME)
        and name.casefold() not in table.columns
        and name != group_by
    }
    lowercase = [new_names.get(name, name) for name in table.columns]
    if "path" not in lowercase and FILE_NAME in lowercase and group_by != FILE_NAME:
        new_names[table.columns[lowercase.index(FILE_NAME)]] = "path"
    if not new_names or len(set(new_names.values())) < len(new_names):
        return table
    return Table(
        [new_names.get(name, name) for name in table.columns],
        [(number, {new_names.get(name, name): cell for name, cell in cells.items()}) for number, cells in table.rows],
        table.errors,
    )


def _require_columns(file: Path, columns: Sequence[str], required: Sequence[str], group_by: str | None) -> None:
    errors = [
        f"it has no {name!r} column{' (dataset.group_by)' * (name == group_by)}{did_you_mean(name, columns)}"
        for name in required
        if name not in columns
    ]
    errors += [f"the {name!r} column occurs {count} times" for name, count in Counter(columns).items() if count > 1]
    if errors:
        hints = {",": "; cells must be separated by commas", "\t": "; cells must be separated by tabs"}
        if len(columns) == 1 and ";" in columns[0]:
            hints = dict.fromkeys(hints, "; its cells are separated by semicolons; save it with commas instead")
        raise DataError(
            f"the manifest {printable(file)} cannot be used: {'; '.join(errors)}; its columns are "
            + (", ".join(map(repr, columns)) or "none")
            + hints.get(DELIMITERS.get(file.suffix.lower(), ""), "")
        )


def _parse_row(number: int, cells: dict[str, str], group_by: str | None) -> ManifestRow:
    return ManifestRow(
        number,
        cells["path"],
        normalize_label(cells["label"].strip()),
        split_for_name(cells.get("split", "")),
        normalize_label(cells[group_by].strip()) if group_by else "",
        _parse_weight(cells) or 1.0,
    )


def _row_errors(table: Table, required: Sequence[str]) -> Iterator[tuple[int, str]]:
    words = [word for names in SPLIT_NAMES.values() for word in names]
    for number, cells in table.rows:
        yield from ((number, f"its {name!r} is empty") for name in required if not cells[name].strip())
        if "split" in cells and not split_for_name(word := cells["split"].strip()):
            hint = did_you_mean(word.lower(), words)
            yield number, f"its split is {word!r}, but must be train, validation or test{hint}"
        if "weight" in cells and _parse_weight(cells) is None:
            yield number, f"its weight is {cells['weight']!r}, but must be a number above 0"


def _column_notes(table: Table) -> Iterator[str]:
    words = Counter(cells["split"].strip() for _, cells in table.rows if "split" in cells)
    for word, count in sorted(words.items()):
        if word != (split := split_for_name(word)):
            yield f"the split {word!r} in {counted(count, 'row')} is interpreted as {split}"
    for name in table.columns:
        values = {cells[name].strip() for _, cells in table.rows if name in cells}
        if name not in STANDARD_COLUMNS and values and all(map(split_for_name, values)):
            yield (f"the {name!r} column contains split names but is not used; to use it, rename it to 'split'")
    weights = [weight for _, cells in table.rows if "weight" in cells and (weight := _parse_weight(cells))]
    if weights:
        yield (
            "the 'weight' column sets the loss weights of the training images, "
            f"which range from {min(weights):g} to {max(weights):g}"
        )


def _parse_weight(cells: dict[str, str]) -> float | None:
    """Returns a row's weight, or None if it is invalid. For validation and test images, an empty weight counts as 1."""
    text = cells.get("weight", "1").strip()
    if not text and split_for_name(cells.get("split", "")) in ("validation", "test"):
        return 1.0
    try:
        weight = float(text)
    except ValueError:
        return None
    return weight if 0 < weight < math.inf else None
