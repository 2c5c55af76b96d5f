"""`platform serve` and `platform ui`: MLflow's own applications, with the settings that suit them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

import mlflow
import uvicorn
from mlflow import MlflowClient
from mlflow.pyfunc import scoring_server

from transfer_registry import mlflow_server
from transfer_registry.errors import StorageError
from transfer_registry.model_uri import model_uri
from transfer_registry.serving.middleware import RequestGuard
from transfer_registry.serving.ports import LOOPBACK, wait_for_port

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import ASGIApp

_EVERYWHERE = ("0.0.0.0", "::", "")  # noqa: S104 - recognised, not bound
_START = 120.0
"""Seconds that MLflow's pages may take to start; creating a database is most of them."""


def create_app(uri: str) -> ASGIApp:
    """Loads a model and returns the ASGI application that serves it: MLflow's, behind `RequestGuard`.

    Args:
        uri: Anything that `mlflow.pyfunc.load_model` takes. An alias is resolved now, once.
    """
    return RequestGuard(scoring_server.init(mlflow.pyfunc.load_model(uri)))


def serve(model: str, host: str = "127.0.0.1", port: int = 5001, say: Callable[[str], None] = print) -> None:
    """Serves a model until it is interrupted.

    Args:
        model: A name, `name/3`, `name@alias`, a URI or a folder.
        host: Address to listen on.
        port: 0 takes a free one.
        say: Given the address and a command line to try, once requests are taken.

    Raises:
        RegistryError: There is no such model.
        StorageError: Nobody can listen there.
    """
    uri = model_uri(model)
    with _listener(host, port) as listener:
        app = create_app(uri)
        say(serving_banner(uri, _link(host, listener.getsockname()[1])))
        with suppress(KeyboardInterrupt):
            uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listener])


def serving_banner(uri: str, link: str) -> str:
    """What `serve` says: what is served where, and a line for the shell that sends a photograph."""
    return (
        f"{uri} is served at {link}/invocations; Ctrl-C ends it. Try:\n\n"
        """  printf '{"inputs":[{"image":"%s"}]}' "$(base64 < PHOTO.jpg | tr -d '\\n')" |\n"""
        f"    curl {link}/invocations -H 'Content-Type: application/json' -d @-\n"
    )


def ui(host: str = "127.0.0.1", port: int = 5000, say: Callable[[str], None] = print) -> None:
    """Shows the runs in MLflow's own pages until it is interrupted.

    Where the runs are on a tracking server, that server has the pages, and only its link is said.

    Args:
        host: Address to listen on.
        port: Must be free.
        say: Given the link to the experiment that was used last, once it works.

    Raises:
        StorageError: Nobody can listen there, or MLflow does not start.
    """
    mlflow_server.require_server()
    mlflow_server.create_database()
    tracking = mlflow.get_tracking_uri()
    page = f"#/experiments/{_latest_experiment()}/runs?workflowType=machine_learning"
    if tracking.startswith(("http://", "https://")):
        say(f"the runs are at {tracking.rstrip('/')}/{page}")
        return
    _listener(host, port).close()
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", tracking]
    command += ["--host", host, "--port", str(port), "--workers", "1", "--uvicorn-opts=--log-level warning"]
    # Job execution would start a dozen more processes, for features that are not used here.
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    # systemd and docker stop with SIGTERM, which would leave MLflow behind.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with suppress(KeyboardInterrupt), subprocess.Popen(command, env=environment) as pages:
        try:
            if not wait_for_port(pages, _reachable(host), port, _START):
                raise StorageError(
                    f"MLflow's pages did not start within {_START:.0f} s; what it wrote stands above"
                )
            say(f"the runs are at {_link(host, port)}/{page}; Ctrl-C ends it")
            pages.wait()
        finally:
            pages.terminate()


def _latest_experiment() -> str:
    found = MlflowClient().search_experiments(max_results=1, order_by=["last_update_time DESC"])
    return str(found[0].experiment_id) if found else "0"


def _listener(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise StorageError(
            f"nobody can listen on {host}, port {port}: {error.strerror}; choose another with --port"
        ) from error


def _reachable(host: str) -> str:
    return LOOPBACK if host in _EVERYWHERE else host


def _link(host: str, port: int) -> str:
    name = _reachable(host)
    return f"http://[{name}]:{port}" if ":" in name else f"http://{name}:{port}"
