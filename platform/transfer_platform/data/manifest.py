"""Reads manifests: CSV, TSV or Parquet tables of images and their labels.

Text files are parsed with `csv` instead of pandas, because pandas drops line numbers, accepts rows with missing cells
or malformed quotes, and stops at the first row with extra cells.
"""

import csv
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from transfer_model.errors import cause
from transfer_platform.data.catalog import join_lines, normalize_label
from transfer_platform.data.split_names import SPLIT_NAMES, split_for_name
from transfer_platform.errors import DataError
from transfer_platform.file_problems import printable
from transfer_platform.suggest import did_you_mean

DELIMITERS = {".csv": ",", ".tsv": "\t"}
STANDARD_COLUMNS = ("path", "label", "split", "weight")
"""Columns with a predefined meaning; names are case-insensitive."""


@dataclass(frozen=True, slots=True)
class ManifestRow:
    """One image listed in a manifest.

    Attributes:
        number: Line number in a CSV or TSV file, or row number in a Parquet file, starting at 1.
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


@dataclass(frozen=True)
class Manifest:
    """The parsed contents of a manifest.

    Attributes:
        rows: All rows with the correct number of cells.
        errors: Line or row number and message for each error; empty if the manifest is valid.
        notes: Messages about the columns.
    """

    file: Path
    rows: tuple[ManifestRow, ...]
    errors: tuple[tuple[int, str], ...]
    notes: tuple[str, ...]

    @property
    def splits(self) -> tuple[str, ...]:
        """Splits that occur in the rows, `train` first; empty if there is no `split` column."""
        named = {row.split for row in self.rows}
        return tuple(split for split in SPLIT_NAMES if split in named)

    def row_label(self, number: int) -> str:
        """Returns the file name and line or row number, for use in messages."""
        unit = "row" if self.file.suffix.lower() == ".parquet" else "line"
        return f"{printable(self.file.name)}, {unit} {number}"

    def raise_errors(self, errors: Sequence[tuple[int, str]]) -> None:
        """Raises a `DataError` if there are any errors; the message lists the first 20."""
        if lines := [f"  {self.row_label(number)}: {error}" for number, error in sorted(errors)]:
            count = f"{len(lines)} error{'s' * (len(lines) > 1)}"
            raise DataError(f"the manifest {printable(self.file)} has {count}:\n{join_lines(lines)}")


@dataclass
class _Table:
    """Table rows as text, with line or row numbers, and an error for each row that has the wrong number of cells."""

    columns: list[str]
    rows: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    errors: list[tuple[int, str]] = field(default_factory=list)


def is_manifest(source: str) -> bool:
    """Returns whether a source has a manifest file extension.

    >>> is_manifest("photos.CSV"), is_manifest("https://host/a.parquet?sig=1"), is_manifest("photos.zip")
    (True, True, False)
    """
    path = urlsplit(source).path if "://" in source else source
    return PurePosixPath(path).suffix.lower() in (*DELIMITERS, ".parquet")


def read_manifest(file: Path, group_by: str | None = None) -> Manifest:
    """Reads a manifest; errors in individual rows are returned rather than raised.

    Args:
        file: A `.csv` (comma-separated), `.tsv` (tab-separated) or `.parquet` file; text must be UTF-8. The columns
            are `path`, `label` and, optionally, `split` and `weight`; other columns are ignored.
        group_by: Name of an additional required column that contains the group names.

    Raises:
        DataError: The file cannot be read, lacks a required column, or has no rows.
    """
    required = ["path", "label", *([group_by] if group_by else [])]
    if file.suffix.lower() == ".parquet":
        table = _read_parquet(file, required)
    else:
        table = _read_text(file, DELIMITERS[file.suffix.lower()])
    table = _normalize_columns(table, group_by)
    _require_columns(file, table.columns, required, group_by)
    if not table.rows and not table.errors:
        raise DataError(f"the manifest {printable(file)} has no rows below the header")
    rows = tuple(_parse_row(number, cells, group_by) for number, cells in table.rows)
    return Manifest(file, rows, (*table.errors, *_row_errors(table, required)), tuple(_column_notes(table)))


def _read_text(file: Path, delimiter: str) -> _Table:
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            return _parse_text(csv.reader(stream, delimiter=delimiter, strict=True))
    except UnicodeDecodeError as error:
        raise DataError(
            f"the manifest {printable(file)} is not valid UTF-8 (at byte {error.start}); save it as UTF-8"
        ) from error
    except csv.Error as error:
        raise DataError(
            f"the manifest {printable(file)} cannot be read: {cause(error)}; check its quotation marks"
        ) from error
    except OSError as error:
        raise DataError(f"the manifest {printable(file)} cannot be read: {cause(error)}") from error


def _parse_text(reader: Iterator[list[str]]) -> _Table:
    table = _Table([name.strip() for name in next(reader, [])])
    number = reader.line_num + 1  # type: ignore[attr-defined]  # csv names no reader type
    for cells in reader:
        if cells and len(cells) != len(table.columns):
            table.errors.append((number, f"has {len(cells)} cells, but the header has {len(table.columns)}"))
        elif cells:
            table.rows.append((number, dict(zip(table.columns, cells, strict=True))))
        number = reader.line_num + 1  # type: ignore[attr-defined]  # csv names no reader type
    return table


def _read_parquet(file: Path, required: Sequence[str]) -> _Table:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        names = list(parquet.read_schema(file).names)
        used = {*required, *STANDARD_COLUMNS}
        columns = sorted({name for name in names if names.count(name) == 1 and {name, name.casefold()} & used})
        data = parquet.ParquetFile(file).read(columns=columns)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"the manifest {printable(file)} is corrupt or not a Parquet file: {cause(error)}") from error
    texts: dict[str, list[str | None]] = {}
    for name in columns:
        try:
            texts[name] = data[name].cast(pa.string()).to_pylist()
        except pa.ArrowException as error:
            raise DataError(
                f"the {name!r} column of the manifest {printable(file)} has the type {data[name].type}, but "
                "must contain text or numbers"
            ) from error
    rows = [{name: texts[name][index] or "" for name in columns} for index in range(data.num_rows)]
    return _Table(names, list(enumerate(rows, 1)))


def _normalize_columns(table: _Table, group_by: str | None) -> _Table:
    """Renames standard columns to lowercase, such as `Path` to `path`, unless this would create duplicates."""
    new_names = {
        name: name.casefold()
        for name in table.columns
        if name.casefold() in STANDARD_COLUMNS and name.casefold() not in table.columns and name != group_by
    }
    if not new_names or len(set(new_names.values())) < len(new_names):
        return table
    return _Table(
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


def _row_errors(table: _Table, required: Sequence[str]) -> Iterator[tuple[int, str]]:
    words = [word for names in SPLIT_NAMES.values() for word in names]
    for number, cells in table.rows:
        yield from ((number, f"its {name!r} is empty") for name in required if not cells[name].strip())
        if "split" in cells and not split_for_name(word := cells["split"].strip()):
            hint = did_you_mean(word.lower(), words)
            yield number, f"its split is {word!r}, but must be train, validation or test{hint}"
        if "weight" in cells and _parse_weight(cells) is None:
            yield number, f"its weight is {cells['weight']!r}, but must be a number above 0"


def _column_notes(table: _Table) -> Iterator[str]:
    words = Counter(cells["split"].strip() for _, cells in table.rows if "split" in cells)
    for word, count in sorted(words.items()):
        if word != (split := split_for_name(word)):
            yield f"the split {word!r} in {count} rows is interpreted as {split}"
    for name in table.columns:
        values = {cells[name].strip() for _, cells in table.rows if name in cells}
        if name not in STANDARD_COLUMNS and values and all(map(split_for_name, values)):
            yield (f"the {name!r} column contains split names but is not used; to use it, rename it to 'split'")
    weights = [weight for _, cells in table.rows if "weight" in cells and (weight := _parse_weight(cells))]
    if weights:
        yield (
            "the 'weight' column sets the loss weights of the training images, "
            f"from {min(weights):g} to {max(weights):g}"
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
