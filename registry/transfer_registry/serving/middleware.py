"""ASGI middleware that validates requests and replaces MLflow's error responses.

GET  /ping /health /version     answered by MLflow
POST /invocations               validated, then answered by MLflow
any error                       {"error_code": ..., "message": ...}, without a stack trace or request content
"""

import asyncio
import json
import logging
from http import HTTPStatus

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from transfer_registry.serving.request import BadRequestError, validate_request

BODY_LIMIT = 32 * 1024 * 1024
"""Maximum size of a request body in bytes."""

_INVOCATIONS = "/invocations"
_PATHS = (_INVOCATIONS, "/ping", "/health", "/version")
_MESSAGES = {
    HTTPStatus.METHOD_NOT_ALLOWED: f"use POST for {_INVOCATIONS}, and GET for /ping, /health and /version",
    HTTPStatus.GATEWAY_TIMEOUT: "the model took too long; send fewer images per request",
}
_logger = logging.getLogger(__name__)


class RequestGuard:
    """ASGI application that wraps MLflow's scoring application `app`; `body_limit` is in bytes."""

    def __init__(self, app: ASGIApp, body_limit: int = BODY_LIMIT) -> None:
        self._app, self._body_limit = app, body_limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one connection; see the ASGI specification."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        response = _SafeResponse(send)
        try:
            if scope["path"] not in _PATHS:
                raise BadRequestError(HTTPStatus.NOT_FOUND, f"path not found; post images to {_INVOCATIONS}")
            if scope["path"] == _INVOCATIONS and scope["method"] == "POST":
                receive = await self._validated(scope, receive)
            await self._app(scope, receive, response.forward)
        except BadRequestError as error:
            await response.send_error(error.status, str(error))
        except ConnectionAbortedError:
            return
        except Exception:
            _logger.exception("the scoring application failed")
            await response.send_error(HTTPStatus.INTERNAL_SERVER_ERROR)

    async def _validated(self, scope: Scope, receive: Receive) -> Receive:
        """Reads and validates the body; returns a `receive` callable that passes the body on to MLflow."""
        headers = Headers(scope=scope)  # if the content type header is repeated, the first is used, as in MLflow
        body = await self._read_body(receive)
        if headers.get("content-encoding", "identity").lower() != "identity":
            raise BadRequestError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "the body must not be compressed")
        await asyncio.to_thread(validate_request, headers.get("content-type", ""), body)
        messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive_again() -> Message:
            return messages.pop() if messages else await receive()

        return receive_again

    async def _read_body(self, receive: Receive) -> bytes:
        """Reads the entire body even if it is too large, because clients send all of it before they read a response."""
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


class _SafeResponse:
    """Forwards 2xx responses and replaces all others with a short JSON error."""

    def __init__(self, send: Send) -> None:
        self._send, self._started = send, False
        self._error_status: HTTPStatus | None = None
        self._error_body = b""

    async def forward(self, message: Message) -> None:
        if message["type"] == "http.response.start" and not 200 <= message["status"] < 300:
            self._error_status = HTTPStatus(message["status"])
        elif self._error_status is None:
            self._started = True
            await self._send(message)
        elif message["type"] == "http.response.body":
            self._error_body += message.get("body", b"")
            if not message.get("more_body", False):
                await self.send_error(self._error_status, *_model_error(self._error_body))

    async def send_error(self, status: HTTPStatus, message: str = "", error_code: str = "") -> None:
        """Sends an error, unless a response has already started."""
        if self._started:
            return
        self._started = True
        content = json.dumps({"error_code": error_code or status.name, "message": message or _default_message(status)})
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(content))]
        await self._send({"type": "http.response.start", "status": status.value, "headers": headers})
        await self._send({"type": "http.response.body", "body": content.encode()})


def _model_error(body: bytes) -> tuple[str, str]:
    """Returns the message and code of a model error; empty for an MLflow error, which may quote the request.

    A model error (`transfer_model.pyfunc.RequestError`) is recognized by its two keys, `error_code` and `message`.
    """
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        return "", ""
    if not isinstance(content, dict) or set(content) != {"error_code", "message"}:
        return "", ""
    return str(content["message"])[:500], str(content["error_code"])[:100]


def _default_message(status: HTTPStatus) -> str:
    failed = status >= HTTPStatus.INTERNAL_SERVER_ERROR
    default = "the model failed; see the server log" if failed else "the request does not match the model's input"
    return _MESSAGES.get(status, default)
