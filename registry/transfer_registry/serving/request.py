"""Validation of scoring requests before MLflow parses them.

MLflow's error messages quote invalid JSON and rejected rows. For an empty CSV table, they contain a stack trace.
Requests that would cause such errors are rejected here, with a message that does not quote the request.
"""

import json
from http import HTTPStatus
from io import StringIO
from typing import NoReturn, TypeGuard

import pandas as pd

from transfer_model.model_json import MAX_OOD_SCORE

JSON = "application/json"
CSV = "text/csv"
FORMATS = ("inputs", "instances", "dataframe_split", "dataframe_records")
"""Data keys in MLflow's scoring protocol; a JSON request must contain exactly one."""

_COLUMN = "image"
_MAX_DEPTH = 5
_MAX_TOP_K = 2**31 - 1


class BadRequestError(Exception):
    """Error for a request that is rejected before the model is called; has a 4xx HTTP status and a short message."""

    def __init__(self, status: HTTPStatus, message: str) -> None:
        self.status = status
        super().__init__(message)


def validate_request(content_type: str, body: bytes) -> None:
    """Checks that a request has an `image` column with at least one value, and that all values are text.

    Raises:
        BadRequestError: The request is invalid.
    """
    media_type = _media_type(content_type)
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError:
        _reject("the body is not UTF-8 text")
    values = _csv_values(text) if media_type == CSV else _json_values(text)
    if not values:
        _reject("the request contains no images; expected at least one")
    for row, value in enumerate(values):
        if not isinstance(value, str):
            _reject(f"row {row}: the image is missing; expected base64 text")


def _reject(message: str) -> NoReturn:
    raise BadRequestError(HTTPStatus.BAD_REQUEST, message)


def _media_type(content_type: str) -> str:
    """Returns the media type without changing its case, because MLflow's comparison is case-sensitive."""
    media_type, *parameters = (part.strip() for part in content_type.split(";"))
    if media_type not in (JSON, CSV) or set(parameters) - {"charset=utf-8", "charset=UTF-8"}:
        raise BadRequestError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"the content type must be {JSON} or {CSV}, in UTF-8")
    return media_type


def _csv_values(text: str) -> list[object]:
    try:
        table = pd.read_csv(StringIO(text), dtype=str)
    except ValueError:  # base class of pandas' EmptyDataError and ParserError
        _reject(f"the body is not a CSV table with an {_COLUMN!r} column")
    if _COLUMN not in table:
        _reject(f"the CSV table has no {_COLUMN!r} column")
    if not isinstance(table.index, pd.RangeIndex):  # pandas used the first fields as row labels
        _reject("the CSV table has rows with more fields than columns")
    values: list[object] = table[_COLUMN].tolist()
    return values


def _json_values(text: str) -> list[object]:
    try:
        content = json.loads(text)
        too_deep = _deeper_than(_MAX_DEPTH, content)
    except RecursionError:
        too_deep = True
    except ValueError:  # invalid JSON, or a number with thousands of digits
        _reject("the body is not valid JSON")
    if too_deep:
        _reject("the JSON is nested too deeply")
    return _values_of_format(content)


def _deeper_than(levels: int, value: object) -> bool:
    if not isinstance(value, (dict, list)):
        return False
    items = value.values() if isinstance(value, dict) else value
    return levels == 0 or any(_deeper_than(levels - 1, item) for item in items)


def _values_of_format(content: object) -> list[object]:
    """Returns the images. Rejects unknown keys, because `messages` or `prompt` would make MLflow ignore the images."""
    entries = dict(content) if isinstance(content, dict) else {}
    params = entries.pop("params", None)
    if len(entries) != 1 or not entries.keys() <= set(FORMATS):
        keys = ", ".join(FORMATS)
        _reject(f"the JSON must be an object with exactly one of the keys {keys}, and optionally the key params")
    _check_params(params)
    ((name, value),) = entries.items()
    values = _split_values(value) if name == "dataframe_split" else _column_values(value)
    if values is None:
        _reject(f'{name} must contain images in an {_COLUMN!r} column; for example: {{"inputs": [{{"image": "..."}}]}}')
    return values


def _check_params(params: object) -> None:
    if params is None:
        return
    if not isinstance(params, dict):
        _reject("params must be an object")
    top_k = params.get("top_k", 1)
    if type(top_k) is not int or not 1 <= top_k <= _MAX_TOP_K:
        _reject("top_k must be a whole number of at least 1")
    threshold = params.get("threshold", 0.0)
    if type(threshold) not in (int, float) or not 0 <= threshold <= MAX_OOD_SCORE:
        _reject(f"threshold must be a number from 0 to {MAX_OOD_SCORE:g}")


def _column_values(value: object) -> list[object] | None:
    """Returns the images from a list of records, a dictionary of columns or a list of images; None for other values."""
    if isinstance(value, dict):
        value = value.get(_COLUMN)
        return value if isinstance(value, list) else None
    if not isinstance(value, list):
        return None
    if not any(isinstance(item, dict) for item in value):
        return value
    if not all(isinstance(item, dict) and _COLUMN in item for item in value):
        return None
    return [item[_COLUMN] for item in value]


def _split_values(value: object) -> list[object] | None:
    if not isinstance(value, dict) or set(value) - {"columns", "data", "index"}:
        return None
    columns, rows, index = value.get("columns"), value.get("data"), value.get("index")
    if not _are_labels(columns) or not isinstance(rows, list) or columns.count(_COLUMN) != 1:
        return None
    if not all(isinstance(row, list) and len(row) == len(columns) for row in rows):
        return None
    # with three index labels, pandas would repeat a single row three times
    if index is not None and not (_are_labels(index) and len(index) == len(rows)):
        return None
    return [row[columns.index(_COLUMN)] for row in rows]


def _are_labels(value: object) -> TypeGuard[list[object]]:
    """Returns True if a list has no nested list or dictionary, because pandas reads these as multi-level labels."""
    return isinstance(value, list) and not any(isinstance(label, (list, dict)) for label in value)
