"""Reads the tables of manifests: CSV, TSV, JSON Lines or Parquet files.

Text files are parsed with `csv` instead of pandas, because pandas drops line numbers, accepts rows with missing cells
or malformed quotes, and stops at the first row with extra cells.
"""

import csv
import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from transfer_model.errors import cause
from transfer_platform.errors import DataError
from transfer_platform.file_problems import printable

DELIMITERS = {".csv": ",", ".tsv": "\t"}
JSON_LINES = ".jsonl"
PARQUET = ".parquet"
SUFFIXES = (*DELIMITERS, JSON_LINES, PARQUET)
"""File extensions of manifests."""
METADATA_FILES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
"""Names of the metadata files in image folders; the `datasets` library uses the same names."""
_MAX_EXACT_INTEGER = 2**53
"""Largest float up to which every integer is a float."""


@dataclass
class Table:
    """Rows of a table as text.

    Attributes:
        columns: Column names, as written in the file.
        rows: The line or row number and the cells of each valid row, which has one cell per column.
        errors: The line or row number and the error message of each invalid row.
    """

    columns: list[str]
    rows: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    errors: list[tuple[int, str]] = field(default_factory=list)


def read_table(file: Path, columns: Collection[str]) -> Table:
    """Reads a table; errors in individual rows are returned rather than raised.

    Args:
        file: A `.csv` (comma-separated), `.tsv` (tab-separated), `.jsonl` or `.parquet` file; text must be UTF-8.
        columns: Columns to read from a Parquet file; names are case-insensitive.

    Raises:
        DataError: The file cannot be read.
    """
    suffix = file.suffix.lower()
    if suffix == PARQUET:
        return _read_parquet(file, columns)
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            if suffix == JSON_LINES:
                return _parse_json(stream, columns)
            return _parse_text(csv.reader(stream, delimiter=DELIMITERS[suffix], strict=True))
    except UnicodeDecodeError as error:
        raise DataError(
            f"the manifest {printable(file)} is not valid UTF-8 (at byte {error.start}); save it as UTF-8"
        ) from error
    except csv.Error as error:
        message = f"the manifest {printable(file)} cannot be read: {cause(error)}; check its quotation marks"
        raise DataError(message) from error
    except OSError as error:
        raise DataError(f"the manifest {printable(file)} cannot be read: {cause(error)}") from error


def read_columns(file: Path) -> list[str]:
    """Returns the column names of a table without checking its rows or encoding; an empty file has no columns.

    Raises:
        DataError: The file cannot be opened, or is a damaged Parquet file.
    """
    suffix = file.suffix.lower()
    if suffix == PARQUET:
        return _read_parquet(file, ()).columns
    try:
        with file.open(encoding="utf-8-sig", errors="replace", newline="") as stream:
            if suffix == JSON_LINES:
                return _parse_json(stream, ()).columns
            header = csv.reader([stream.readline()], delimiter=DELIMITERS[suffix])
            return [name.strip() for name in next(header, [])]
    except csv.Error:  # for example, if a field exceeds the length limit
        return []
    except OSError as error:
        raise DataError(f"the manifest {printable(file)} cannot be read: {cause(error)}") from error


def _parse_text(reader: Iterator[list[str]]) -> Table:
    table = Table([name.strip() for name in next(reader, [])])
    number = reader.line_num + 1  # type: ignore[attr-defined]  # csv does not export the reader's type
    for cells in reader:
        if cells and len(cells) != len(table.columns):
            table.errors.append((number, f"has {len(cells)} cells, but the header has {len(table.columns)}"))
        elif cells:
            table.rows.append((number, dict(zip(table.columns, cells, strict=True))))
        number = reader.line_num + 1  # type: ignore[attr-defined]  # csv does not export the reader's type
    return table


def _parse_json(lines: Iterator[str], used: Collection[str]) -> Table:
    """Parses one JSON object per line; missing values become empty cells. Values of `used` columns must be scalars."""
    table = Table([])
    objects = list[tuple[int, dict[str, object]]]()
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            found = json.loads(line)
        except (ValueError, RecursionError) as error:
            table.errors.append((number, f"is not valid JSON: {cause(error)}"))
            continue
        if isinstance(found, dict):
            objects.append((number, found))
        else:
            table.errors.append((number, 'is not a JSON object (example: {"file_name": "a.png", "label": "ant"})'))
    table.columns = list(dict.fromkeys(name for _, found in objects for name in found))
    for number, found in objects:
        if errors := [*_value_errors(found, used)]:
            table.errors += [(number, error) for error in errors]
        else:
            table.rows.append((number, {name: _as_text(found.get(name)) for name in table.columns}))
    return table


def _value_errors(found: dict[str, object], used: Collection[str]) -> Iterator[str]:
    for name, value in found.items():
        if name not in used and name.casefold() not in used:
            continue
        if isinstance(value, list | dict):
            yield f"its {name!r} is {json.dumps(value)[:60]}, but must be text or a number"
        elif isinstance(value, str) and any("\ud800" <= each <= "\udfff" for each in value):
            yield f"its {name!r} is {json.dumps(value)[:60]}, which contains an unpaired surrogate"


def _as_text(value: object) -> str:
    """Converts a scalar to text; an equal integer replaces a float, because 1 and 1.0 are the same number in JSON."""
    if isinstance(value, float) and value.is_integer() and abs(value) <= _MAX_EXACT_INTEGER:
        value = int(value)
    return "" if value is None else value if isinstance(value, str) else json.dumps(value)


def _read_parquet(file: Path, used: Collection[str]) -> Table:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        names = list(parquet.read_schema(file).names)
        columns = sorted({name for name in names if names.count(name) == 1 and {name, name.casefold()} & {*used}})
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
    return Table(names, list(enumerate(rows, 1)))
