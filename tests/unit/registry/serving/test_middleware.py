"""The middleware around an application that fails in the ways MLflow's application can fail."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import pytest

from transfer_registry.serving.middleware import RequestGuard

GOOD = b'{"inputs": ["aa"]}'
JSON = [(b"content-type", b"application/json")]


class Application:
    """Sends a fixed response and records the request body."""

    def __init__(self, status: int, body: bytes, *, fails: bool = False) -> None:
        self.status, self.body, self.fails = status, body, fails
        self.received: bytes | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.received = (await receive())["body"]
        if self.fails:
            raise RuntimeError("the secret of the application")
        await send({"type": "http.response.start", "status": self.status, "headers": []})
        half = len(self.body) // 2
        await send({"type": "http.response.body", "body": self.body[:half], "more_body": True})
        await send({"type": "http.response.body", "body": self.body[half:]})


def answer(
    app: Application,
    *chunks: bytes,
    path: str = "/invocations",
    method: str = "POST",
    headers: list[tuple[bytes, bytes]] = JSON,
    gone: bool = False,
) -> tuple[int, bytes]:
    sent: list[dict[str, Any]] = []
    last = {"type": "http.disconnect"} if gone else {"type": "http.request", "body": b"", "more_body": False}
    parts = [{"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks] + [last]

    async def receive() -> dict[str, Any]:
        return parts.pop(0)

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {"type": "http", "path": path, "method": method, "headers": headers}
    asyncio.run(RequestGuard(app, body_limit=100)(scope, receive, send))
    if not sent:
        return 0, b""
    return sent[0]["status"], b"".join(message["body"] for message in sent[1:])


def error_message(body: bytes) -> str:
    content = json.loads(body)
    assert set(content) == {"error_code", "message"}
    return str(content["message"])


def test_a_good_request_passes_with_its_whole_body() -> None:
    app = Application(200, b'{"predictions": []}')
    assert answer(app, GOOD[:5], GOOD[5:]) == (200, b'{"predictions": []}')
    assert app.received == GOOD


@pytest.mark.parametrize("path", ["/ping", "/health", "/version"])
def test_get_requests_are_forwarded(path: str) -> None:
    assert answer(Application(200, b"3.17"), path=path, method="GET") == (200, b"3.17")


@pytest.mark.parametrize("path", ["/", "/docs", "/openapi.json", "/invocations/", "/../etc/passwd"])
def test_other_paths_are_a_404(path: str) -> None:
    app = Application(200, b"secret")
    status, body = answer(app, GOOD, path=path)
    assert status == 404
    assert "post images to /invocations" in error_message(body)
    assert app.received is None


def test_a_large_body_is_a_413_and_never_arrives() -> None:
    app = Application(200, b"")
    status, body = answer(app, *[b"x" * 60] * 50)
    assert status == 413
    assert "larger than" in error_message(body)
    assert app.received is None


def test_a_client_that_leaves_gets_no_answer() -> None:
    app = Application(200, b"")
    assert answer(app, GOOD, gone=True) == (0, b"")
    assert app.received is None


def test_a_refused_request_never_arrives() -> None:
    app = Application(200, b"")
    status, body = answer(app, b"{}")
    assert status == 400
    assert "exactly one of the keys" in error_message(body)
    assert app.received is None


def test_the_content_type_is_required() -> None:
    assert answer(Application(200, b""), GOOD, headers=[])[0] == 415


def test_the_first_of_two_content_types_is_used_as_in_mlflow() -> None:
    csv = (b"content-type", b"text/csv")
    assert answer(Application(200, b""), GOOD, headers=[*JSON, csv])[0] == 200
    assert answer(Application(200, b""), GOOD, headers=[csv, *JSON])[0] == 400


def test_a_compressed_body_is_a_415() -> None:
    status, body = answer(Application(200, b""), GOOD, headers=[*JSON, (b"content-encoding", b"gzip")])
    assert status == 415
    assert error_message(body) == "the body must not be compressed"


@pytest.mark.parametrize(
    "body",
    [
        b'{"error_code": "BAD_REQUEST", "message": "Failed to predict SECRET", "stack_trace": "Traceback"}',
        b"SECRET " * 100_000,
        b'"SECRET"',
        b"[" * 100_000 + b"SECRET",
        b"",
    ],
)
@pytest.mark.parametrize("status", [307, 400, 404, 500, 504])
def test_errors_of_mlflow_are_replaced(status: int, body: bytes) -> None:
    answered, content = answer(Application(status, body), GOOD)
    assert answered == status
    assert error_message(content)
    assert len(content) < 1000
    assert b"SECRET" not in content


def test_errors_of_the_model_are_forwarded() -> None:
    body = b'{"error_code": "INVALID_PARAMETER_VALUE", "message": "row 0: the image is missing"}'
    assert answer(Application(400, body), GOOD) == (400, body)


def test_an_exception_is_logged_and_becomes_a_500(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        status, body = answer(Application(200, b"", fails=True), GOOD)
    assert status == 500
    assert error_message(body) == "the model failed; see the server log"
    assert "secret of the application" in caplog.text
