"""A table that lists images, CSV, TSV or Parquet: for each its path, its label, and perhaps more.

Everything that is wrong with the table is told at once, with its lines. What lies at the paths is not asked
here, see `listing`.
"""

from __future__ import annotations

import csv
import math
import unicodedata
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from transfer_platform.data.split_names import SPLIT_NAMES, split_for_name
from transfer_platform.errors import DataError
from transfer_platform.file_problems import printable
from transfer_platform.suggest import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

DELIMITERS = {".csv": ",", ".tsv": "\t"}
STANDARD_COLUMNS = ("path", "label", "split", "weight")
"""What is read of a manifest, in any case."""
SUFFIXES = (*DELIMITERS, ".parquet")
"""How the names of manifests end."""

MAX_LISTED = 20


@dataclass(frozen=True, slots=True)
class ManifestRow:
    """One image of a manifest.

    Attributes:
        number: Its line in a CSV or TSV file, its row in a Parquet file, counted from 1.
        path: As it is written.
        label: Its class, in Unicode's composed form (NFC).
        split: `train`, `validation` or `test`; empty where the manifest has no such column.
        group: What must stay on one side, NFC; empty where nothing is grouped.
        weight: How much it counts in the training loss, above 0; 1 where the manifest does not say.
    """

    number: int
    path: str
    label: str
    split: str
    group: str
    weight: float = 1.0


@dataclass(frozen=True)
class Manifest:
    """A table that was read.

    Attributes:
        file: Where it lies.
        rows: At least one.
        faults: What is wrong with rows, by their numbers; empty in a manifest that can be used.
        notes: What was made of its columns, a sentence each.
    """

    file: Path
    rows: tuple[ManifestRow, ...]
    errors: tuple[tuple[int, str], ...]
    notes: tuple[str, ...]

    @property
    def roles(self) -> tuple[str, ...]:
        """The splits that its rows name, `train` first; none where it has no column `split`."""
        named = {row.split for row in self.rows}
        return tuple(role for role in SPLIT_NAMES if role in named)

    def row_label(self, number: int) -> str:
        """Where a row stands, for people."""
        unit = "row" if self.file.suffix.lower() == ".parquet" else "line"
        return f"{printable(self.file.name)}, {unit} {number}"

    def raise_errors(self, faults: Sequence[tuple[int, str]]) -> None:
        """Raises a `DataError` that names the first 20 faults, where there are any."""
        if not faults:
            return
        lines = [f"  {self.row_label(number)}: {fault}" for number, fault in sorted(faults)]
        more = [f"  ... and {len(lines) - MAX_LISTED} more"] if len(lines) > MAX_LISTED else []
        raise DataError(
            f"{len(lines)} things are wrong in the manifest {printable(self.file)}:\n"
            + "\n".join([*lines[:MAX_LISTED], *more])
        )


@dataclass
class _Table:
    """The columns that matter, as text.

    Attributes:
        head: The names of all columns.
        cells: Number and cells by column, for each row.
        faults: Rows that are no rows of this table.
    """

    head: list[str]
    cells: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    faults: list[tuple[int, str]] = field(default_factory=list)


def is_manifest(source: str) -> bool:
    """Whether a source's name says that it is a manifest.

    >>> is_manifest("photos.CSV"), is_manifest("https://host/a.parquet?sig=1"), is_manifest("photos.zip")
    (True, True, False)
    """
    path = urlsplit(source).path if "://" in source else source
    return PurePosixPath(path).suffix.lower() in SUFFIXES


def read_manifest(file: Path, group_by: str | None = None) -> Manifest:
    """Reads a table of images.

    Args:
        file: Ends in `.csv` (commas), `.tsv` (tabs) or `.parquet`; text is UTF-8, and its first line names
            the columns: `path` and `label`, perhaps `split` and `weight`; others are left alone.
        group_by: A column that is needed too.

    Returns:
        Its rows; what is wrong with single rows is told, not raised.

    Raises:
        DataError: It is no such table, lacks a column, or has no rows.
    """
    wanted = ["path", "label", *([group_by] if group_by else [])]
    if file.suffix.lower() == ".parquet":
        table = _parquet(file, wanted)
    else:
        table = _text(file, DELIMITERS[file.suffix.lower()])
    table = _named_as_usual(table, group_by)
    _refuse_columns(file, table.head, wanted, group_by)
    if not table.cells and not table.faults:
        raise DataError(f"the manifest {printable(file)} has no rows below its head")
    rows = [_row(number, cells, group_by) for number, cells in table.cells]
    faults = [*table.faults, *_faults(table, wanted)]
    return Manifest(file, tuple(rows), tuple(faults), tuple(_notes(table)))


def _text(file: Path, delimiter: str) -> _Table:
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            return _parsed(csv.reader(stream, delimiter=delimiter, strict=True))
    except UnicodeDecodeError as error:
        raise DataError(
            f"the manifest {printable(file)} is no UTF-8 text (byte {error.start}); save it as UTF-8"
        ) from error
    except csv.Error as error:
        raise DataError(f"the manifest {printable(file)} cannot be read: {error}; see its quotes") from error
    except OSError as error:
        raise DataError(f"the manifest {printable(file)} cannot be read: {error.strerror}") from error


def _parsed(reader: Iterator[list[str]]) -> _Table:
    table = _Table([name.strip() for name in next(reader, [])])
    number = reader.line_num + 1  # type: ignore[attr-defined]
    for cells in reader:
        if cells and len(cells) != len(table.head):
            table.faults.append((number, f"has {len(cells)} cells, but the head has {len(table.head)}"))
        elif cells:
            table.cells.append((number, dict(zip(table.head, cells, strict=True))))
        number = reader.line_num + 1  # type: ignore[attr-defined]
    return table


def _parquet(file: Path, wanted: Sequence[str]) -> _Table:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        head = list(parquet.read_schema(file).names)
        near = {*wanted, *STANDARD_COLUMNS}
        columns = sorted({name for name in head if head.count(name) == 1 and {name, name.casefold()} & near})
        read = parquet.ParquetFile(file).read(columns=columns)
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"the manifest {printable(file)} is no Parquet file, or a damaged one: {error}"
        ) from error
    texts: dict[str, list[str | None]] = {}
    for name in columns:
        try:
            texts[name] = read[name].cast(pa.string()).to_pylist()
        except pa.ArrowException as error:
            raise DataError(
                f"the column {name!r} of the manifest {printable(file)} is {read[name].type}, but must be text "
                "or numbers"
            ) from error
    cells = [{name: texts[name][place] or "" for name in columns} for place in range(read.num_rows)]
    return _Table(head, list(enumerate(cells, 1)))


def _named_as_usual(table: _Table, group_by: str | None) -> _Table:
    """`Path` and `SPLIT` are `path` and `split`, where there is no such column already."""
    names = {
        name: name.casefold()
        for name in table.head
        if name.casefold() in STANDARD_COLUMNS and name.casefold() not in table.head and name != group_by
    }
    if len(set(names.values())) < len(names):
        return table
    return _Table(
        [names.get(name, name) for name in table.head],
        [
            (number, {names.get(name, name): cell for name, cell in cells.items()})
            for number, cells in table.cells
        ],
        table.faults,
    )


def _refuse_columns(file: Path, head: Sequence[str], wanted: Sequence[str], group_by: str | None) -> None:
    there = ", ".join(map(repr, head)) or "none"
    faults = [
        f"it has no column {name!r}{' (dataset.group_by)' * (name == group_by)}{did_you_mean(name, head)}"
        for name in wanted
        if name not in head
    ]
    faults += [
        f"the column {name!r} stands there {count} times"
        for name, count in Counter(head).items()
        if count > 1
    ]
    if faults:
        separated = DELIMITERS.get(file.suffix.lower())
        how = {",": "; cells are separated by commas", "\t": "; cells are separated by tabs"}
        if len(head) == 1 and ";" in head[0]:
            how = dict.fromkeys(how, "; its cells are separated by semicolons: save it with commas")
        raise DataError(
            f"the manifest {printable(file)} cannot be used: {'; '.join(faults)}; its columns are {there}"
            + how.get(separated or "", "")
        )


def _row(number: int, cells: dict[str, str], group_by: str | None) -> ManifestRow:
    return ManifestRow(
        number,
        cells["path"],
        _composed(cells["label"]),
        split_for_name(cells.get("split", "")),
        _composed(cells[group_by]) if group_by else "",
        _weight(cells) or 1.0,
    )


def _faults(table: _Table, wanted: Sequence[str]) -> Iterator[tuple[int, str]]:
    words = [word for each in SPLIT_NAMES.values() for word in each]
    for number, cells in table.cells:
        yield from ((number, f"its {name!r} is empty") for name in wanted if not cells[name].strip())
        if "split" in cells and not split_for_name(word := cells["split"].strip()):
            near = did_you_mean(word.lower(), words)
            yield number, f"its split is {word!r}, but must be train, validation or test{near}"
        if "weight" in cells and _weight(cells) is None:
            yield number, f"its weight is {cells['weight']!r}, but must be a number above 0"


def _notes(table: _Table) -> Iterator[str]:
    said = Counter(cells["split"].strip() for _, cells in table.cells if "split" in cells)
    for word, count in sorted(said.items()):
        if word != (role := split_for_name(word)):
            yield f"the split {word!r} of {count} rows is read as {role}"
    for name in table.head:
        words = {cells[name].strip() for _, cells in table.cells if name in cells}
        if name not in STANDARD_COLUMNS and words and all(map(split_for_name, words)):
            yield f"the column {name!r} is not used, though it looks like splits; if it is, call it 'split'"
    weights = [weight for _, cells in table.cells if "weight" in cells and (weight := _weight(cells))]
    if weights:
        yield (
            "the column 'weight' says how much a training image counts in the loss: "
            f"{min(weights):g} to {max(weights):g}"
        )


def _weight(cells: dict[str, str]) -> float | None:
    """A row's weight; None for what is none. Images that are held out need none, as theirs is not used."""
    text = cells.get("weight", "1").strip()
    if not text and split_for_name(cells.get("split", "")) in ("validation", "test"):
        return 1.0
    try:
        weight = float(text)
    except ValueError:
        return None
    return weight if 0 < weight < math.inf else None


def _composed(text: str) -> str:
    return unicodedata.normalize("NFC", text.strip())
