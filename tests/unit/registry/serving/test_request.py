from __future__ import annotations

import json

import pytest

from transfer_registry.serving.request import BadRequestError, validate_request


@pytest.mark.parametrize(
    "content",
    [
        {"inputs": [{"image": "aa"}, {"image": "bb"}]},
        {"inputs": [{"image": "aa", "name": "a.jpg"}], "params": {"top_k": 1}},
        {"inputs": {"image": ["aa", "bb"]}},
        {"inputs": ["aa", "bb"], "params": None},
        {"instances": [{"image": "aa"}], "params": {}},
        {"dataframe_split": {"columns": ["image"], "data": [["aa"], ["bb"]]}},
        {"dataframe_split": {"columns": ["id", "image"], "index": [7], "data": [[1, "aa"]]}},
        {"dataframe_records": [{"image": "aa"}]},
    ],
)
def test_mlflows_formats_are_accepted(content: object) -> None:
    validate_request("application/json; charset=UTF-8", json.dumps(content).encode())


def test_csv_is_accepted() -> None:
    validate_request("text/csv", b"id,image\n1,aa\n2,bb\n")


ONE_OF = "exactly one of the keys inputs"
IN_A_COLUMN = "must contain images in an 'image' column"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], ONE_OF),
        ("inputs", ONE_OF),
        (None, ONE_OF),
        ({}, ONE_OF),
        ({"images": []}, ONE_OF),
        ({"inputs": ["aa"], "instances": ["aa"]}, ONE_OF),
        ({"inputs": ["aa"], "prompt": "hello", "image": "aa"}, ONE_OF),
        ({"inputs": ["aa"], "signature_name": "default"}, "and optionally the key params"),
        ({"inputs": []}, "contains no images"),
        ({"inputs": {"image": []}}, "contains no images"),
        ({"dataframe_split": {"columns": ["image"], "data": []}}, "contains no images"),
        ({"dataframe_records": []}, "contains no images"),
        ({"inputs": None}, IN_A_COLUMN),
        ({"inputs": "aa"}, IN_A_COLUMN),
        ({"inputs": [{"photo": "aa"}]}, IN_A_COLUMN),
        ({"inputs": [{"image": "aa"}, "bb"]}, IN_A_COLUMN),
        ({"inputs": {"image": "aa"}}, IN_A_COLUMN),
        ({"dataframe_split": [["aa"]]}, IN_A_COLUMN),
        ({"dataframe_split": {"data": [["aa"]]}}, IN_A_COLUMN),
        ({"dataframe_split": {"columns": ["image", "image"], "data": [["aa", "bb"]]}}, IN_A_COLUMN),
        ({"dataframe_split": {"columns": ["image"], "data": [["aa", "bb"]]}}, IN_A_COLUMN),
        ({"dataframe_split": {"columns": ["image"], "data": [["aa"]], "more": 1}}, IN_A_COLUMN),
        ({"dataframe_split": {"columns": ["image", ["id"]], "data": [["aa", 1]]}}, IN_A_COLUMN),
        ({"dataframe_split": {"columns": ["image", {"id": 1}], "data": [["aa", 1]]}}, IN_A_COLUMN),
        ({"dataframe_split": {"columns": ["image"], "index": [1, 2, 3], "data": [["aa"]]}}, IN_A_COLUMN),
        ({"dataframe_split": {"columns": ["image"], "index": [["a", "b"]], "data": [["aa"]]}}, IN_A_COLUMN),
        ({"dataframe_split": {"columns": ["image"], "index": {"a": 1}, "data": [["aa"]]}}, IN_A_COLUMN),
        ({"inputs": [{"image": "aa"}, {"image": None}]}, "row 1: the image is missing"),
        ({"inputs": [{"image": 3}]}, "row 0: the image is missing"),
        ({"inputs": [None]}, "row 0: the image is missing"),
        ({"inputs": ["aa"], "params": [1]}, "params must be an object"),
        ({"inputs": ["aa"], "params": {"top_k": -3}}, "top_k must be a whole number of at least 1"),
        ({"inputs": ["aa"], "params": {"top_k": 0}}, "top_k must be"),
        ({"inputs": ["aa"], "params": {"top_k": True}}, "top_k must be"),
        ({"inputs": ["aa"], "params": {"top_k": "5"}}, "top_k must be"),
        ({"inputs": ["aa"], "params": {"top_k": 1e300}}, "top_k must be"),
        ({"inputs": ["aa"], "params": {"top_k": 10**30}}, "top_k must be"),
        ({"inputs": [{"image": [[[["aa"]]]]}]}, "nested too deeply"),
    ],
)
def test_other_json_is_a_400(content: object, message: str) -> None:
    assert refused("application/json", json.dumps(content).encode()) == (400, message)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "not valid JSON"),
        (b"hello", "not valid JSON"),
        (b'{"inputs": [', "not valid JSON"),
        (b'{"inputs": ' + b"9" * 5000 + b"}", "not valid JSON"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"inputs":' * 100_000, "nested too deeply"),
        (b'{"inputs": ["\xff"]}', "not UTF-8"),
        ("{}".encode("utf-16"), "not UTF-8"),
    ],
)
def test_invalid_json_is_a_400(body: bytes, message: str) -> None:
    assert refused("application/json", body) == (400, message)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "is not a CSV table"),
        (b"\n\n", "is not a CSV table"),
        (b"photo\naa\n", "no 'image' column"),
        (b"image\n", "contains no images"),
        (b"image,id\n,1\n", "row 0: the image is missing"),
        (b"image\naa\nbb,cc,dd\n", "is not a CSV table"),
        (b"image\ncat.jpg,aa\n", "rows with more fields than columns"),
        (b'image\n"aa\n', "is not a CSV table"),
        (b"image\n\xff\xfe\n", "not UTF-8"),
    ],
)
def test_other_csv_is_a_400(body: bytes, message: str) -> None:
    assert refused("text/csv", body) == (400, message)


@pytest.mark.parametrize(
    "content_type",
    [
        "",
        "text/plain",
        "image/jpeg",
        "application/jsonp",
        "application/json; charset=latin-1",
        "application/json; version=1",
        # RFC 9110 would allow these three; MLflow does not.
        "Application/JSON",
        'application/json; charset="utf-8"',
        "application/json;",
    ],
)
def test_other_content_types_are_a_415(content_type: str) -> None:
    assert refused(content_type, b"{}") == (415, "the content type must be application/json or text/csv")


class _Part(str):
    """Equal to any text that it is a part of."""

    __slots__ = ()
    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, str) and (str(other) in str(self))


def refused(content_type: str, body: bytes) -> tuple[int, str]:
    with pytest.raises(BadRequestError) as refusal:
        validate_request(content_type, body)
    assert len(str(refusal.value)) < 200
    return refusal.value.status.value, _Part(refusal.value)
