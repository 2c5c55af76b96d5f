"""What a request must look like before MLflow sees it.

MLflow shows broken JSON and rejected rows back to the client whole, and a stack trace for an empty CSV; so
what would not reach the model is refused here, in a sentence that shows none of it.
"""

from __future__ import annotations

import json
from http import HTTPStatus
from io import StringIO
from typing import NoReturn, TypeGuard

import pandas as pd

from transfer_model.config import MAX_OOD_SCORE

JSON = "application/json"
CSV = "text/csv"
FORMS = ("inputs", "instances", "dataframe_split", "dataframe_records")
"""The keys of MLflow's scoring protocol, of which a JSON request has exactly one."""

_COLUMN = "image"
_DEEPEST = 5
_LARGEST_TOP_K = 2**31 - 1


class BadRequestError(Exception):  # noqa: N818 - it is an answer; the mistake is the client's
    """A request that is answered without asking the model.

    Args:
        status: The HTTP status, a 4xx.
        message: One sentence for the client.
    """

    def __init__(self, status: HTTPStatus, message: str) -> None:
        self.status = status
        super().__init__(message)


def validate_request(content_type: str, body: bytes) -> None:
    """Accepts a request that holds at least one image in a column `image`, as text.

    Raises:
        Refusal: What is wrong with it.
    """
    media_type = _media_type(content_type)
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError:
        _refuse("the body is not UTF-8 text")
    cells = _csv_cells(text) if media_type == CSV else _json_cells(text)
    if not cells:
        _refuse("the request holds no images; expected at least one")
    for row, cell in enumerate(cells):
        if not isinstance(cell, str):
            _refuse(f"row {row}: the image is missing; expected base64 text")


def _refuse(message: str) -> NoReturn:
    raise BadRequestError(HTTPStatus.BAD_REQUEST, message)


def _media_type(content_type: str) -> str:
    """MLflow compares letter by letter, so this does: what passes here is not refused there."""
    media_type, *parameters = (part.strip() for part in content_type.split(";"))
    if media_type not in (JSON, CSV) or set(parameters) - {"charset=utf-8", "charset=UTF-8"}:
        raise BadRequestError(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"the content type must be {JSON} or {CSV}, in UTF-8"
        )
    return media_type


def _csv_cells(text: str) -> list[object]:
    try:
        table = pd.read_csv(StringIO(text), dtype=str)
    except ValueError:  # pandas' EmptyDataError and ParserError are both
        _refuse(f"the body is no CSV table with a column {_COLUMN!r}")
    if _COLUMN not in table:
        _refuse(f"the CSV table has no column {_COLUMN!r}")
    if not isinstance(table.index, pd.RangeIndex):  # pandas took the first fields for the rows' labels
        _refuse("the CSV table has rows of more fields than there are columns")
    cells: list[object] = table[_COLUMN].tolist()
    return cells


def _json_cells(text: str) -> list[object]:
    try:
        content = json.loads(text)
        too_deep = _deeper_than(_DEEPEST, content)
    except RecursionError:
        too_deep = True
    except ValueError:  # broken JSON, or a number of thousands of digits
        _refuse("the body is not valid JSON")
    if too_deep:
        _refuse("the JSON is nested too deeply")
    return _cells_of_one_form(content)


def _deeper_than(levels: int, value: object) -> bool:
    if isinstance(value, dict):
        return levels == 0 or any(_deeper_than(levels - 1, item) for item in value.values())
    if isinstance(value, list):
        return levels == 0 or any(_deeper_than(levels - 1, item) for item in value)
    return False


def _cells_of_one_form(content: object) -> list[object]:
    """Other keys are refused: with `messages`, `prompt` or `input` beside it, no form is read."""
    entries = dict(content) if isinstance(content, dict) else {}
    params = entries.pop("params", None)
    if len(entries) != 1 or not entries.keys() <= set(FORMS):
        _refuse(
            f"the JSON must be an object with exactly one of the keys {', '.join(FORMS)}, "
            "and no other than params"
        )
    _check_params(params)
    ((form, value),) = entries.items()
    cells = _split_cells(value) if form == "dataframe_split" else _cells(value)
    if cells is None:
        _refuse(
            f'{form} must hold images in a column {_COLUMN!r}, such as {{"inputs": [{{"image": "..."}}]}}'
        )
    return cells


def _check_params(params: object) -> None:
    if params is None:
        return
    if not isinstance(params, dict):
        _refuse("params must be an object")
    top_k = params.get("top_k", 1)
    if type(top_k) is not int or not 1 <= top_k <= _LARGEST_TOP_K:
        _refuse("top_k must be a whole number of at least 1")
    threshold = params.get("threshold", 0.0)
    if type(threshold) not in (int, float) or not 0 <= threshold <= MAX_OOD_SCORE:
        _refuse(f"threshold must be a number from 0 to {MAX_OOD_SCORE:g}")


def _cells(value: object) -> list[object] | None:
    """Of a list of records, a column of values, or, there being only one column, the bare values."""
    if isinstance(value, dict):
        column = value.get(_COLUMN)
        return column if isinstance(column, list) else None
    if not isinstance(value, list):
        return None
    if not any(isinstance(item, dict) for item in value):
        return value
    if not all(isinstance(item, dict) and _COLUMN in item for item in value):
        return None
    return [item[_COLUMN] for item in value]


def _split_cells(value: object) -> list[object] | None:
    if not isinstance(value, dict) or set(value) - {"columns", "data", "index"}:
        return None
    columns, rows, index = value.get("columns"), value.get("data"), value.get("index")
    if not _are_labels(columns) or not isinstance(rows, list) or columns.count(_COLUMN) != 1:
        return None
    if not all(isinstance(row, list) and len(row) == len(columns) for row in rows):
        return None
    # Under three labels, pandas would show a single row three times.
    if index is not None and not (_are_labels(index) and len(index) == len(rows)):
        return None
    return [row[columns.index(_COLUMN)] for row in rows]


def _are_labels(value: object) -> TypeGuard[list[object]]:
    """Of rows or columns; lists among them would be labels of several levels, and objects are none."""
    return isinstance(value, list) and not any(isinstance(label, (list, dict)) for label in value)
