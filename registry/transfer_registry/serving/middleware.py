"""The thin layer before MLflow's scoring application: limits on what goes in, no leaks in what comes out.

GET  /ping /health /version     MLflow's
POST /invocations               checked, then MLflow's
whatever is not a 2xx           {"error_code": ..., "message": ...}, short, without trace or echo
"""

from __future__ import annotations

import asyncio
import json
import logging
from http import HTTPStatus
from typing import TYPE_CHECKING

from starlette.datastructures import Headers

from transfer_registry.serving.request import BadRequestError, validate_request

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

BODY_LIMIT = 32 * 1024 * 1024
"""Bytes of one request."""

_PATH = "/invocations"
_PATHS = (_PATH, "/ping", "/health", "/version")
_MESSAGES = {
    HTTPStatus.METHOD_NOT_ALLOWED: f"images are posted to {_PATH}; /ping, /health and /version are read",
    HTTPStatus.GATEWAY_TIMEOUT: "the model took too long; send fewer images at once",
}
_logger = logging.getLogger(__name__)


class RequestGuard:
    """An ASGI application that guards another.

    Args:
        app: MLflow's scoring application.
        body_limit: Largest request in bytes.
    """

    def __init__(self, app: ASGIApp, body_limit: int = BODY_LIMIT) -> None:
        self._app = app
        self._body_limit = body_limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one connection; see the ASGI specification."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        answer = _Answer(send)
        try:
            if scope["path"] not in _PATHS:
                raise BadRequestError(
                    HTTPStatus.NOT_FOUND, f"nothing is served here; images are posted to {_PATH}"
                )
            if scope["path"] == _PATH and scope["method"] == "POST":
                receive = await self._checked(scope, receive)
            await self._app(scope, receive, answer.pass_on)
        except BadRequestError as refusal:
            await answer.refuse(refusal.status, str(refusal))
        except ConnectionAbortedError:
            return
        except Exception:
            # Whatever it was, the client gets a plain 500, the log gets the rest, and the server lives.
            _logger.exception("the scoring application failed")
            await answer.refuse(HTTPStatus.INTERNAL_SERVER_ERROR)

    async def _checked(self, scope: Scope, receive: Receive) -> Receive:
        """Reads and checks the body; gives it back as something that can be received once more."""
        headers = Headers(scope=scope)  # of two content types it gives the first, as it does to MLflow
        body = await self._body(receive)
        if headers.get("content-encoding", "identity").lower() != "identity":
            raise BadRequestError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "the body must not be compressed")
        await asyncio.to_thread(validate_request, headers.get("content-type", ""), body)
        messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def again() -> Message:
            return messages.pop() if messages else await receive()

        return again

    async def _body(self, receive: Receive) -> bytes:
        """What exceeds the limit is read but not kept: a client that is still sending sees no answer."""
        body, size, more = bytearray(), 0, True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ConnectionAbortedError
            chunk, more = message.get("body", b""), message.get("more_body", False)
            size += len(chunk)
            if size <= self._body_limit:
                body += chunk
        if size > self._body_limit:
            limit = f"{self._body_limit / 1024 / 1024:.3g} MB"
            raise BadRequestError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the request is larger than {limit}")
        return bytes(body)


class _Answer:
    """Passes a 2xx on as it comes; holds anything else back and says it in its own words."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._started = False
        self._held: HTTPStatus | None = None
        self._body = b""

    async def pass_on(self, message: Message) -> None:
        if message["type"] == "http.response.start" and not 200 <= message["status"] < 300:
            self._held = HTTPStatus(message["status"])
        elif self._held is None:
            self._started = True
            await self._send(message)
        elif message["type"] == "http.response.body":
            self._body += message.get("body", b"")
            if not message.get("more_body", False):
                await self.refuse(self._held, *_told_by_the_model(self._body))

    async def refuse(self, status: HTTPStatus, message: str = "", error_code: str = "") -> None:
        """Sends an error, unless something was sent already."""
        if self._started:
            return
        self._started = True
        content = json.dumps(
            {"error_code": error_code or status.name, "message": message or _message(status)}
        )
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(content))]
        await self._send({"type": "http.response.start", "status": status.value, "headers": headers})
        await self._send({"type": "http.response.body", "body": content.encode()})


def _told_by_the_model(body: bytes) -> tuple[str, str]:
    """Message and code of an error that the model raised; empty for MLflow's own, which echo the request.

    The model answers with exactly these two keys (`transfer_model.pyfunc.RequestError`), MLflow with more.
    """
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        return "", ""
    if not isinstance(content, dict) or set(content) != {"error_code", "message"}:
        return "", ""
    return str(content["message"])[:500], str(content["error_code"])[:100]


def _message(status: HTTPStatus) -> str:
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return _MESSAGES.get(status, "the model failed; the server's log says why")
    return _MESSAGES.get(status, "the request does not fit the model's input")
