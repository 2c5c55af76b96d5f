"""More than a thousand bad requests over HTTP: each is rejected with one sentence, and the servers survive.

`platform serve` refuses them all. `mlflow models serve` does so where the model is asked: where a request
has one of the protocol's forms with a column `image` of Unicode texts, whatever they say, and a `top_k`
that is an integer or null. What it makes of the others by itself is a table in docs/serving.md, measured
here.
"""

from __future__ import annotations

import gzip
import json
import socket
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from .bad_images import BAD_IMAGES, GOOD, any_texts, damaged_images
from .bad_requests import BAD_REQUESTS, FORMS, Request, any_requests, as_json, of_type

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from conftest import Server

DOCUMENT = Path(__file__).parents[4] / "docs" / "serving.md"
LONGEST = 1000
"""Bytes of an answer to a bad request."""
ECHO = 20
"""Characters in a row that are an echo of the request."""

THE_SAME_EVERY_TIME = settings(derandomize=True, database=None)


@pytest.fixture(params=["guarded", "plain"])
def either(request: pytest.FixtureRequest) -> Server:
    server: Server = request.getfixturevalue(request.param)
    return server


def answer(server: Server, sent: Request) -> tuple[int, bytes]:
    return server.request(sent.method, sent.path, sent.body, dict(sent.headers))


def echoes(sent: bytes, body: bytes) -> bool:
    """True if a response repeats the request, as sent or as Python's repr of bytes, ignoring backslashes."""
    sent = sent.rstrip()
    message = body.decode().replace("\\", "")
    known = (sent.decode("utf-8", "replace") + repr(sent)).replace("\\", "")
    return any(message[start : start + ECHO] in known for start in range(len(message) - ECHO + 1))


def refusal(server: Server, sent: Request) -> str:
    """Sends a bad request, checks the guarantees for error responses, and returns the message."""
    status, body = answer(server, sent)
    shown = (sent.sent[:300], status, body[:300])
    assert 400 <= status < 500, shown
    assert len(body) <= LONGEST, shown
    assert b"Traceback" not in body, shown
    assert not echoes(sent.sent, body), shown
    content = json.loads(body)
    assert content.keys() == {"error_code", "message"}, shown
    return str(content["message"])


@contextmanager
def unharmed(server: Server) -> Iterator[None]:
    """Checks that a good request has the same response before and after the block."""
    good = as_json({"inputs": [GOOD]})
    before = answer(server, good)
    assert before[0] == 200
    yield
    assert answer(server, good) == before


def all_of(strategy: st.SearchStrategy[Request], holds: Callable[[Request], None], number: int) -> None:
    """Checks at least `number` different requests."""
    tried = set()

    @settings(THE_SAME_EVERY_TIME, max_examples=number + number // 4)
    @given(strategy)
    def each(request: Request) -> None:
        holds(request)
        tried.add(request)

    each()
    assert len(tried) >= number


def in_some_form(images: st.SearchStrategy[str]) -> st.SearchStrategy[Request]:
    """A bad image alone or after a good one, in any of the forms."""
    before = st.sampled_from([[], [], [], [GOOD]])
    return st.builds(
        lambda form, before, image: form([*before, image]), st.sampled_from([*FORMS.values()]), before, images
    )


def refused_by_the_model(server: Server, sent: Request) -> None:
    """MLflow has no row in its own sentences, so this one was asked for by the model."""
    assert refusal(server, sent).startswith(("row 0", "row 1"))


@pytest.mark.parametrize("form", FORMS)
def test_bad_images_are_rejected_in_every_format(form: str, either: Server) -> None:
    assert len(BAD_IMAGES) >= 100
    with unharmed(either):
        for image in BAD_IMAGES.values():
            refused_by_the_model(either, FORMS[form]([image]))


def test_damaged_images_are_refused(either: Server) -> None:
    with unharmed(either):
        all_of(in_some_form(damaged_images()), lambda sent: refused_by_the_model(either, sent), 150)


def test_texts_are_refused(either: Server) -> None:
    with unharmed(either):
        all_of(in_some_form(any_texts()), lambda sent: refused_by_the_model(either, sent), 80)


def test_damaged_images_in_a_table_are_refused(either: Server) -> None:
    tables = damaged_images().map(lambda image: of_type("text/csv", f"image\n{image}\n".encode()))
    with unharmed(either):
        all_of(tables, lambda sent: refused_by_the_model(either, sent), 40)


def test_bad_requests_are_refused(guarded: Server) -> None:
    assert len(set(BAD_REQUESTS.values())) >= 280
    with unharmed(guarded):
        for sent in BAD_REQUESTS.values():
            refusal(guarded, sent)


def test_random_requests_are_rejected(guarded: Server) -> None:
    with unharmed(guarded):
        all_of(any_requests(), lambda sent: refusal(guarded, sent), 200)


@pytest.mark.parametrize("top_k", [0, -1, -(10**30), -(10**4000), None])
def test_a_top_k_below_one_is_rejected_by_the_model(top_k: int | None, plain: Server) -> None:
    with unharmed(plain):
        message = refusal(plain, as_json({"inputs": [GOOD], "params": {"top_k": top_k}}))
    assert message == "top_k must be a whole number of at least 1"


@pytest.mark.parametrize("threshold", [-0.1, 2.5, -(10**30), float("nan"), None])
def test_a_threshold_outside_the_range_is_rejected_by_the_model(threshold: float | None, plain: Server) -> None:
    message = refusal(plain, as_json({"inputs": [GOOD], "params": {"threshold": threshold}}))
    assert message.startswith("threshold must be a number from 0 to 2, but is ")


def exchange(server: Server, sent: bytes) -> bytes:
    """All that comes back until the server hangs up."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
        connection.sendall(sent)
        return b"".join(iter(lambda: connection.recv(65536), b""))


BODY = as_json({"inputs": [GOOD]}).body or b""
HEAD = b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
NOT_HTTP = {
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 10 + b"\r\n\r\n",
    "no version": b"POST /invocations\r\n\r\n",
    "no host": b"GET /ping HTTP/1.1\r\n\r\n",
    "negative length": HEAD + b"Content-Length: -1\r\n\r\n" + BODY,
    "length in words": HEAD + b"Content-Length: many\r\n\r\n" + BODY,
    "two lengths": HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n" + BODY,
    "chunk of no size": HEAD + b"Transfer-Encoding: chunked\r\n\r\nmany\r\n" + BODY,
    "unknown transfer": HEAD + b"Transfer-Encoding: gzip\r\n\r\n" + BODY,
}


@pytest.mark.parametrize("case", NOT_HTTP)
def test_bytes_that_are_not_http_are_rejected_by_uvicorn(case: str, either: Server) -> None:
    with unharmed(either):
        came = exchange(either, NOT_HTTP[case])
    assert came.startswith(b"HTTP/1.1 400 ")
    assert b"Invalid HTTP request received." in came
    assert len(came) <= LONGEST


def test_chunked_bodies_are_read_completely(guarded: Server) -> None:
    ending = b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in b'{"inputs":[]}') + b"0\r\n\r\n"
    with unharmed(guarded):
        assert b"the request contains no images" in exchange(guarded, HEAD + ending + chunks)


def test_a_client_that_disconnects_does_not_affect_others(either: Server) -> None:
    with unharmed(either):
        for _ in range(5):
            with socket.create_connection(("127.0.0.1", either.port), timeout=60) as connection:
                connection.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % (2 * len(BODY)) + BODY)


def in_inputs(*images: object) -> Request:
    return as_json({"inputs": [{"image": image} for image in images]})


def beside_good(**more: object) -> Request:
    return as_json({"inputs": [{"image": GOOD}], **more})


def split(**more: object) -> Request:
    return as_json({"dataframe_split": {"columns": ["image"], "data": [[GOOD]], **more}})


def of_csv(*lines: str) -> Request:
    return of_type("text/csv", "\n".join(lines).encode())


MLFLOW_ITSELF: dict[str, list[Request]] = {
    "no content type": [Request(BODY, ())],
    "another content type, another parameter of it": [
        of_type("application/octet-stream", BODY),
        of_type("multipart/form-data; boundary-of-the-parts=1", BODY),
    ],
    "a charset other than UTF-8": [of_type("application/json; charset=latin-1", BODY)],
    "damaged Parquet": [of_type("application/vnd.apache.parquet", b"PAR1")],
    "`Content-Encoding: gzip`": [
        Request(gzip.compress(BODY), (("Content-Type", "application/json"), ("Content-Encoding", "gzip")))
    ],
    "broken JSON, or not in UTF-8": [
        Request(BODY[:-1]),
        Request(b"image=" + GOOD.encode()),
        Request(b'{"inputs": ["Hautfl\xfcgler, wie die Wespen auch"]}'),
    ],
    "JSON in UTF-16, or with a byte order mark": [
        Request(BODY.decode().encode("utf-16")),
        Request(BODY.decode().encode("utf-8-sig")),
    ],
    "200,000 opening brackets, a number of 5,000 digits": [
        Request(b"[" * 200_000),
        Request(b'{"inputs":' + b"9" * 5_000 + b"}"),
    ],
    "none of the forms, or two": [as_json({"images": [GOOD]}), as_json({"inputs": [GOOD], "instances": [GOOD]})],
    "`messages`, `prompt` or `input` beside the form": [
        beside_good(**{key: "hello"}) for key in ("messages", "prompt", "input")
    ],
    "any other key beside the form": [beside_good(param={"top_k": 1})],
    "`params` that are no object, a `top_k` that is no integer, a `threshold` that is no number": [
        beside_good(params={"threshold": "0.3"}),
        beside_good(params={"threshold": True}),
        beside_good(params=[1]),
        beside_good(params={"top_k": "3"}),
        beside_good(params={"top_k": 2.5}),
        beside_good(params={"top_k": True}),
    ],
    "another column, columns of different lengths": [
        as_json({"inputs": [{"photo": GOOD}]}),
        as_json({"inputs": {"image": [GOOD, GOOD], "id": [1]}}),
    ],
    "half a character, such as `\\ud800`": [in_inputs(GOOD + "\ud800")],
    "a number, `true` or an object for an image": [in_inputs(7), in_inputs(True), in_inputs({"b64": GOOD})],
    "a list or an object for the name of a column": [
        split(columns=["image", ["id"]], data=[[GOOD, 1]]),
        split(columns=["image", {"id": 1}], data=[[GOOD, 1]]),
    ],
    "three labels for one row": [split(index=[1, 2, 3])],
    "an empty CSV, a quotation mark too few, a row too long": [
        of_csv(""),
        of_csv("image", f'"{GOOD}'),
        of_csv("image", GOOD, f"{GOOD},1,2"),
    ],
    "a CSV row with one field before the image": [of_csv("image", f"ant.jpg,{GOOD}")],
    "more than 32 MB": [Request(BODY + b" " * 2**25)],
    "`/docs`, `/redoc`, `/openapi.json`": [
        Request(None, (), "GET", path) for path in ("/docs", "/redoc", "/openapi.json")
    ],
    "another path": [Request(None, (), "GET", "/"), Request(BODY, path="/predict")],
    "another method": [Request(None, (), "GET"), Request(BODY, path="/ping")],
}
"""Requests that need not reach the model, under the names that they have in the table of the document."""


def table_of_the_document() -> dict[str, list[str]]:
    """What is asked -> what MLflow answers, what `platform serve` answers."""
    errors = DOCUMENT.read_text().partition("\n## Errors\n")[2].partition("\n## ")[0]
    lines = [line for line in errors.splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[1:]]
    return {asked: answers for asked, *answers in cells}


def described(server: Server, sent: Request) -> str:
    status, body = answer(server, sent)
    trace = " with a stack trace" if b"Traceback" in body else ""
    echo = " with the request in it" if echoes(sent.sent, body) else ""
    return f"{status}{trace}{echo}"


def test_the_document_lists_all_measured_requests() -> None:
    assert list(table_of_the_document()) == list(MLFLOW_ITSELF)


@pytest.mark.parametrize("asked", MLFLOW_ITSELF)
def test_both_servers_respond_as_documented(asked: str, plain: Server, guarded: Server) -> None:
    with unharmed(plain), unharmed(guarded):
        for sent in MLFLOW_ITSELF[asked]:
            answers = [described(plain, sent), described(guarded, sent)]
            assert answers == table_of_the_document()[asked], sent.sent[:300]
            refusal(guarded, sent)
