"""`platform serve` and `platform ui`: MLflow's scoring server and UI."""

import signal
import socket
import sys
from collections.abc import Callable
from contextlib import suppress

import uvicorn
from mlflow import MlflowClient
from mlflow.pyfunc import scoring_server
from starlette.types import ASGIApp

from transfer_model.errors import cause
from transfer_model.safe_path import safe_environment
from transfer_registry import mlflow_server
from transfer_registry.errors import StorageError
from transfer_registry.model_files import open_folder
from transfer_registry.model_uri import model_uri
from transfer_registry.serving.loaded_model import load_pyfunc
from transfer_registry.serving.middleware import RequestGuard
from transfer_registry.serving.ports import LOOPBACK, wait_for_port
from transfer_registry.serving.supervision import supervised

_ANY_ADDRESS = ("0.0.0.0", "::", "")  # noqa: S104 - compared, not bound
_START_TIMEOUT = 120.0
"""Seconds to wait for MLflow's UI to start."""
_GRACE_SECONDS = 30
"""Seconds that running requests have to finish when the server is stopped."""


def create_app(uri: str) -> ASGIApp:
    """Loads a model and returns MLflow's app for it, wrapped in `RequestGuard`; later alias changes have no effect."""
    return RequestGuard(scoring_server.init(load_pyfunc(uri, open_folder(uri))))


def serve(model: str, host: str = "127.0.0.1", port: int = 5001, say: Callable[[str], None] = print) -> None:
    """Serves a model (see `model_uri`) until interrupted; port 0 selects a free port.

    Calls `say` with the address and an example command once the server is ready.

    Raises:
        RegistryError: The model does not exist or cannot be loaded.
        StorageError: The address is not available.
    """
    uri = model_uri(model)
    with _listener(host, port) as listener:
        app = create_app(uri)
        say(serving_banner(uri, _url(host, listener.getsockname()[1])))
        with suppress(KeyboardInterrupt):
            config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=_GRACE_SECONDS)
            uvicorn.Server(config).run(sockets=[listener])


def serving_banner(uri: str, url: str) -> str:
    """Returns a message with the server address and an example shell command that posts an image."""
    return (
        f"Serving {uri} at {url}/invocations; press Ctrl-C to stop. Try:\n\n"
        """  printf '{"inputs":[{"image":"%s"}]}' "$(base64 < IMAGE.jpg | tr -d '\\n')" |\n"""
        f"    curl {url}/invocations -H 'Content-Type: application/json' -d @-\n"
    )


def ui(host: str = "127.0.0.1", port: int = 5000, say: Callable[[str], None] = print) -> None:
    """Runs MLflow's UI until interrupted. If the tracking server is remote, no local UI is started.

    Calls `say` with a link to the most recently updated experiment once the UI is ready.

    Raises:
        StorageError: The address is not available, or MLflow does not start.
    """
    mlflow_server.require_server()
    mlflow_server.create_database()
    tracking = mlflow_server.tracking_uri()
    page = f"#/experiments/{_latest_experiment()}/runs?workflowType=machine_learning"
    if tracking.startswith(("http://", "https://")):
        say(f"MLflow UI: {tracking.rstrip('/')}/{page}")
        return
    _listener(host, port).close()
    command = [sys.executable, "-P", "-m", "mlflow", "ui", "--backend-store-uri", tracking]
    command += ["--host", host, "--port", str(port), "--workers", "1", "--uvicorn-opts=--log-level warning"]
    # job execution would start a dozen more processes for features not used here
    environment = {**safe_environment(), "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    # systemd and Docker send SIGTERM, which by default would leave MLflow running
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with suppress(KeyboardInterrupt), supervised(command, environment) as server:
        if not wait_for_port(server, _connectable(host), port, _START_TIMEOUT):
            raise StorageError(f"the MLflow UI did not start within {_START_TIMEOUT:.0f} s; see its output above")
        say(f"MLflow UI: {_url(host, port)}/{page}; press Ctrl-C to stop")
        server.wait()


def _latest_experiment() -> str:
    experiments = MlflowClient().search_experiments(max_results=1, order_by=["last_update_time DESC"])
    return str(experiments[0].experiment_id) if experiments else "0"


def _listener(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        problem = f"cannot listen on {host}, port {port}: {cause(error)}"
        raise StorageError(f"{problem}; choose another port with --port") from error


def _connectable(host: str) -> str:
    return LOOPBACK if host in _ANY_ADDRESS else host


def _url(host: str, port: int) -> str:
    name = _connectable(host)
    return f"http://[{name}]:{port}" if ":" in name else f"http://{name}:{port}"
