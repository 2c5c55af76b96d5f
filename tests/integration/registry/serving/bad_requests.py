"""What clients get wrong around their images: requests by name, and a strategy that makes more of them."""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st

from .bad_images import GOOD
from .bad_images import image as encoded_image

if TYPE_CHECKING:
    from collections.abc import Callable

JSON, CSV = "application/json", "text/csv"


@dataclass(frozen=True)
class Request:
    """One request; its `headers` are as the client sends them."""

    body: bytes | None
    headers: tuple[tuple[str, str], ...] = (("Content-Type", JSON),)
    method: str = "POST"
    path: str = "/invocations"

    @property
    def sent(self) -> bytes:
        """All of it that could come back in an answer."""
        return repr((self.method, self.path, self.headers)).encode() + (self.body or b"")


def as_json(content: object) -> Request:
    """Without spaces: what a client sends never looks like the examples in the server's own sentences."""
    return Request(json.dumps(content, separators=(",", ":")).encode())


def of_type(content_type: str, body: bytes = b"") -> Request:
    return Request(body, (("Content-Type", content_type),))


FORMS: dict[str, Callable[[list[str]], Request]] = {
    "records": lambda images: as_json({"inputs": [{"image": image} for image in images]}),
    "values": lambda images: as_json({"inputs": images}),
    "column": lambda images: as_json({"inputs": {"image": images}, "params": {"top_k": 1}}),
    "instances": lambda images: as_json({"instances": [{"image": image} for image in images]}),
    "split": lambda images: as_json({"dataframe_split": {"columns": ["id", "image"], "data": list(enumerate(images))}}),
    "records of a table": lambda images: as_json({"dataframe_records": [{"image": i} for i in images]}),
}
"""Every way of MLflow's scoring protocol to say a column `image` of texts, in JSON."""


def _bad_params() -> dict[str, Request]:
    top_k = [
        "0", "-1", "-3", "1e30", "-1e30", "2.5", "2.0", "true", "false", '"3"', '""', "null", "[3]", "{}",
        "NaN", "Infinity", "-Infinity", "1e400", "1" * 30, "-" + "1" * 30, "9" * 4_000, "-" + "9" * 4_000,
    ]  # fmt: skip
    threshold = ("-0.1", "2.1", "1e30", "-1", "true", '"0.3"', "null", "[0.3]", "{}", "NaN", "Infinity", "9" * 400)
    params = (
        *("[]", '"top_k"', "3", "true", "NaN", "[1]"),
        *(f'{{"top_k":{value}}}' for value in top_k),
        *(f'{{"threshold":{value}}}' for value in threshold),
    )
    return {
        f"params {value[:40]} ({len(value)})": Request(f'{{"inputs":["{GOOD}"],"params":{value}}}'.encode())
        for value in params
    }


def _bad_json() -> dict[str, Request]:
    good = f'{{"inputs":["{GOOD}"]}}'
    bodies: dict[str, str | bytes] = {
        "no body": b"",
        "a space": " ",
        "a text": "the quick brown fox jumps over the lazy dog",
        "a form": f"image={GOOD}",
        "JSON of another time": good.replace('"', "'"),
        "a comma too many": good.replace("]", ",]"),
        "a bracket too few": good[:-1],
        "two objects": good + good,
        "a comment": good + "// good",
        "a name without quotes": good.replace('"inputs"', "inputs"),
        "a new line in a text": '{"inputs":["\n"]}',
        "a broken escape": '{"inputs":["\\ud8"]}',
        "half a character": '{"inputs":["\\ud800"]}',
        "half a character for a column": f'{{"inputs":[{{"image":"{GOOD}","\\udc00":1}}]}}',
        "half a character for a key": f'{{"inputs":["{GOOD}"],"\\udc00":1}}',
        "half a character in a table": '{"dataframe_split":{"columns":["image"],"data":[["\\udfff"]]}}',
        "half a character in an instance": '{"instances":[{"image":"\\ud800"}]}',
        "half a character in a record": '{"dataframe_records":[{"image":"\\ud800"}]}',
        "NaN": '{"inputs":[{"image":NaN}]}',
        "NaN for all": '{"inputs":NaN}',
        "Infinity": '{"instances":[Infinity]}',
        "a number of 5,000 digits": '{"inputs":' + "9" * 5_000 + "}",
        "a number too large": '{"inputs":[1e999999]}',
        "200,000 brackets": "[" * 200_000,
        "100,000 objects": '{"inputs":' * 100_000,
        "500 brackets, closed": '{"inputs":' + "[" * 500 + "]" * 500 + "}",
        "the same key again": good[:-1] + ',"inputs":[]}',
        "the same column again": f'{{"inputs":[{{"image":"{GOOD}","image":null}}]}}',
        "the same param again": good[:-1] + ',"params":{"top_k":1,"top_k":0}}',
        "UTF-16": good.encode("utf-16"),
        "UTF-32": good.encode("utf-32"),
        "UTF-8 with a mark": good.encode("utf-8-sig"),
        "Latin-1": '{"inputs":["Hautflügler"]}'.encode("latin-1"),
        "gzip": gzip.compress(good.encode(), mtime=0),
        "an image": encoded_image("JPEG"),
        "half of a character": b'{"inputs":["\xe8\x9a"]}',
    }
    return {
        f"JSON: {name}": Request(body if isinstance(body, bytes) else body.encode()) for name, body in bodies.items()
    }


def _bad_shapes() -> dict[str, Request]:
    table = {"columns": ["image"], "data": [[GOOD]]}
    contents: dict[str, object] = {
        "null": None,
        "true": True,
        "a number": 7,
        "a list": [GOOD],
        "a list of records": [{"image": GOOD}],
        "an empty object": {},
        "no form": {"images": [GOOD]},
        "a form in capitals": {"INPUTS": [GOOD]},
        "params alone": {"params": {"top_k": 1}},
        "two forms": {"inputs": [GOOD], "instances": [GOOD]},
        "a misspelt params": {"inputs": [GOOD], "param": {"top_k": 1}},
        "a signature": {"inputs": [GOOD], "signature_name": "serving_default"},
        "a chat": {"inputs": [GOOD], "messages": [{"role": "user", "content": "hello"}]},
        "a prompt": {"inputs": [GOOD], "prompt": "hello", "image": GOOD},
        "an embedding": {"inputs": [GOOD], "input": ["hello"], "image": GOOD},
        **{f"{form} {number}": {form: value}
           for form in ("inputs", "instances") for number, value in enumerate((
            None, True, 7, GOOD, [], {}, [[]], [{}], [None], [7], [[GOOD]], [True], [{"photo": GOOD}],
            {"image": GOOD}, {"image": []}, {"image": [None]}, {"image": [[GOOD]]}, {"photo": [GOOD]},
            [{"image": GOOD}, {}], [{"image": GOOD}, GOOD], [{"image": None}], [{"image": {"b64": GOOD}}],
            {"image": [GOOD, GOOD], "id": [1]},
        ))},
        "instances of different columns": {"instances": [{"image": GOOD, "id": 1}, {"image": GOOD}]},
        **{f"records {number}": {"dataframe_records": value} for number, value in enumerate((
            None, 7, GOOD, [], {}, [[GOOD]], [GOOD], [None], [{"photo": GOOD}], {"image": [GOOD]},
            [{"image": GOOD}, {}], [{"image": GOOD}, [GOOD]], [{"image": 7}],
        ))},
        **{f"split {number}": {"dataframe_split": value} for number, value in enumerate((
            None, 7, GOOD, [[GOOD]], {}, {"data": [[GOOD]]}, {"columns": ["image"]}, {**table, "more": 1},
            {**table, "columns": "image"}, {**table, "columns": ["photo"]}, {**table, "columns": []},
            {**table, "columns": ["image", "image"]}, {**table, "data": []}, {**table, "data": [[]]},
            {**table, "data": GOOD}, {**table, "data": [GOOD]}, {**table, "data": [[GOOD], [GOOD, GOOD]]},
            {**table, "data": [[None]]}, {**table, "data": [[[GOOD]]]}, {**table, "data": {"image": GOOD}},
            {"columns": ["image", ["id"]], "data": [[GOOD, 1]]},
            {"columns": ["image", {"id": 1}], "data": [[GOOD, 1]]},
            {**table, "index": [1, 2, 3]}, {**table, "index": []}, {**table, "index": "a"},
            {**table, "index": {"a": 1}}, {**table, "index": [["a", "b"]]}, {**table, "index": 7},
        ))},
        "257 images": {"inputs": [GOOD] * 257},
        "257 images, as CSV would": {"inputs": {"image": ["!"] * 257}},
        "the second of two": {"inputs": [GOOD, GOOD[:100]]},
        "the last of ten": {"dataframe_records": [{"image": image} for image in [GOOD] * 9 + ["!"]]},
        "null in the middle": {"inputs": [GOOD, None, GOOD]},
    }  # fmt: skip
    return {f"shape: {name}": as_json(content) for name, content in contents.items()}


def _bad_csv() -> dict[str, Request]:
    tables: dict[str, str] = {
        "no body": "",
        "empty lines": "\n\n\n",
        "zeros": "\0" * 100,
        "a header alone": "image\n",
        "no header": GOOD,
        "another column": f"photo\n{GOOD}\n",
        "a column in capitals": f"IMAGE\n{GOOD}\n",
        "a column after a space": f"id, image\n1,{GOOD}\n",
        "semicolons": f"id;image\n1;{GOOD}\n",
        "tabs": f"id\timage\n1\t{GOOD}\n",
        "a quotation mark too few": f'image\n"{GOOD}\n',
        "a quotation mark in the header": f'"image\n{GOOD}\n',
        "a zero in the header": f"ima\0ge\n{GOOD}\n",
        "a zero in a cell": f"image\n{GOOD[:40]}\0{GOOD[40:]}\n",
        "an empty cell": f"image,id\n{GOOD},1\n,2\n",
        "a missing cell": "id,image\n1\n",
        "NA": "image\nNA\n",
        "a row too long": f"image\n{GOOD}\n{GOOD},{GOOD},1\n",
        "a label before the row": f"image\nant.jpg,{GOOD}\n",
        "100 columns, none right": ",".join(f"c{i}" for i in range(100)) + "\n" + ",".join("x" * 100) + "\n",
        "100 columns of one name": ",".join(["image"] * 100) + "\n" + ",".join("x" * 100) + "\n",
        "257 rows": "image\n" + f"{GOOD}\n" * 257,
        "a cell of 100,000 characters": "image\n" + "ä" * 100_000 + "\n",
        "JSON": f'{{"inputs":["{GOOD}"]}}',
    }
    named = {f"CSV: {name}": of_type(CSV, body.encode()) for name, body in tables.items()}
    named["CSV: Latin-1"] = of_type(CSV, "image\nHautflügler\n".encode("latin-1"))
    named["CSV: UTF-16"] = of_type(CSV, f"image\n{GOOD}\n".encode("utf-16"))
    return named


def _bad_http() -> dict[str, Request]:
    good = as_json({"inputs": [GOOD]}).body
    types = [
        "", "text/plain", "text/html", "text/json", "image/png", "application/octet-stream", "json", "*/*",
        "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/jsonp",
        "application/vnd.apache.parquet", "application/x-parquet", "APPLICATION/JSON", "Text/CSV",
        "application/json; charset=latin-1", "application/json; charset=utf-16", "application/json;",
        'application/json; charset="utf-8"', "application/json; CHARSET=utf-8", "application/json; v=1",
        "application/json, text/csv", f"application/json; {'a' * 3_000}", "b" * 3_000, "application/jsön",
    ]  # fmt: skip
    methods = ("GET", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW")
    paths = [
        "/", "/docs", "/redoc", "/openapi.json", "/metrics", "/predict", "/.env", "/INVOCATIONS",
        "/invocations/", "/invocations/1", "//invocations", "/invocations%00", "/ping/",
        "/api/2.0/mlflow/runs/search", "/../../etc/passwd", "/static/%2e%2e", "/%00", "/%ff%zz", "*", "http://example.com/docs",
        "/" + "a" * 3_000,
    ]  # fmt: skip
    encoded = ("gzip", "deflate", "br", "zstd", "identity, gzip", "x" * 3_000)
    plain = (("Content-Type", JSON),)
    return {
        "no content type": Request(good, ()),
        **{f"content type {name[:40]!r}": of_type(name, good or b"") for name in types},
        **{f"content encoding {name[:20]}": Request(good, (*plain, ("Content-Encoding", name)))
           for name in encoded},
        **{f"{method} /invocations": Request(good, method=method) for method in methods},
        **{f"{method} /ping": Request(good, method=method, path="/ping") for method in ("POST", "PUT")},
        **{f"POST {path[:40]}": Request(good, path=path) for path in paths},
        **{f"GET {path[:40]}": Request(None, (), "GET", path) for path in paths},
        "a long header": Request(b"{}", (*plain, ("X-Long", "x" * 50_000))),
        "a hundred headers": Request(b"{}", (*plain, *((f"X-{i}", "x" * 100) for i in range(100)))),
        "a header that is not ASCII": Request(b"{}", (*plain, ("X-Name", "Hautflügler" * 5))),
        "a body larger than 32 MB": Request(b" " * (32 * 2**20 + 1)),
    }  # fmt: skip


BAD_REQUESTS: dict[str, Request] = {**_bad_params(), **_bad_json(), **_bad_shapes(), **_bad_csv(), **_bad_http()}
"""Requests around images that are good, mostly."""


def any_json() -> st.SearchStrategy[Any]:
    leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=40)
    return st.recursive(leaves, lambda inner: st.lists(inner) | st.dictionaries(_keys(), inner), max_leaves=12)


def _keys() -> st.SearchStrategy[str]:
    known = ("inputs", "instances", "dataframe_split", "dataframe_records", "params", "top_k", "image")
    return st.sampled_from((*known, "columns", "index", "data")) | st.text(max_size=20)


def any_requests() -> st.SearchStrategy[Request]:
    """Any JSON, any JSON in a form, any `top_k`, any bytes, any CSV: nothing that could be answered."""
    forms = st.sampled_from(("inputs", "instances", "dataframe_split", "dataframe_records"))
    bad_top_k = any_json().filter(lambda value: type(value) is not int or not 1 <= value < 2**31)
    cells = st.sampled_from(("image", "id", "", '"', "\0", "1")) | st.text(max_size=20)
    return st.one_of(
        any_json().map(as_json),
        st.builds(lambda form, value: as_json({form: value}), forms, any_json()),
        bad_top_k.map(lambda value: as_json({"inputs": [GOOD], "params": {"top_k": value}})),
        st.binary(max_size=200).map(Request),
        st.binary(max_size=200).map(lambda body: of_type(CSV, body)),
        st.lists(st.lists(cells)).map(_table),
    )


def _table(rows: list[list[str]]) -> Request:
    return of_type(CSV, "\n".join(",".join(row) for row in rows).encode("utf-8", "surrogatepass"))
