"""Gets predictions over HTTP from a model served by `mlflow models serve`.

The server runs in an isolated process. It cannot import this project or any script in the current folder, and MLflow's
unpickling is disabled.
"""

import base64
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import Any

import mlflow
import numpy as np
import requests
from numpy.typing import NDArray
from requests.adapters import HTTPAdapter

from transfer_model.safe_path import safe_environment
from transfer_registry import mlflow_server
from transfer_registry.candidate import ServedOutput, parse_predictions
from transfer_registry.errors import RegistryError
from transfer_registry.model_files import classes_of, open_folder, read_metadata
from transfer_registry.serving.ports import LOOPBACK, free_port, wait_for_port
from transfer_registry.serving.supervision import supervised

PARITY_IMAGES = 32
"""Number of test images used to check served predictions before a promotion."""
CONCURRENT_IMAGES = 15
"""Number of concurrent one-image requests; together, their images stay within the pixel limit of one request."""

_HIDDEN_PACKAGES = ("transfer_platform", "transfer_registry", "transfer_model")
_START_TIMEOUT = 180.0
"""Seconds to wait for a server to load its model; importing torch takes most of this time."""
_REQUEST_TIMEOUT = 120.0
"""Seconds to wait for the response to one image."""


def predict_over_http(model_uri: str, images: Sequence[Path], classes: Sequence[str]) -> ServedOutput:
    """Serves a model with `mlflow models serve` and returns the predictions for images posted over HTTP.

    The files of the model are first compared with their recorded checksums, which MLflow does not do.

    Args:
        model_uri: URI resolved by this process's tracking server, or a path relative to this process's current folder.
        images: Image files (N).
        classes: Class order of the returned probabilities (C).

    Raises:
        RegistryError: The files of the model are damaged (see `open_folder`), or the server does not start or rejects
            an image. The message includes the server's response or the last lines of its output.
    """
    with TemporaryDirectory() as temporary:
        open_folder(model_uri, temporary)
    with serve_isolated(model_uri) as address:
        return post_images(address, images, classes)


def predict_proba_over_http(model_uri: str, images: Sequence[Path]) -> NDArray[np.float32]:
    """Returns the probabilities (N, C) from `predict_over_http`, in the model's own class order."""
    classes = classes_of(read_metadata(model_uri), model_uri)  # also compares the files
    with serve_isolated(model_uri) as address:
        return post_images(address, images, classes).probabilities


def post_images(address: str, images: Sequence[Path], classes: Sequence[str]) -> ServedOutput:
    """Posts images to a running server and returns the predictions; see `predict_over_http`."""
    with requests.Session() as session, ThreadPoolExecutor(CONCURRENT_IMAGES) as pool:
        session.trust_env = False  # requests to localhost must not go through a proxy
        session.mount(address, HTTPAdapter(pool_maxsize=CONCURRENT_IMAGES))
        outputs = list(pool.map(lambda image: _post_image(session, address, image, classes), images))
    outputs.append(parse_predictions([], classes))  # sets shapes and types if there are no images
    return ServedOutput(
        np.concatenate([output.probabilities for output in outputs]),
        np.concatenate([output.ood_scores for output in outputs]),
        tuple(flag for output in outputs for flag in output.unknown),
    )


@contextmanager
def serve_isolated(model_uri: str) -> Iterator[str]:
    """Serves a model in an isolated process for the duration of a `with` block; yields the server address."""
    with (
        TemporaryDirectory(dir=_temporary_parent()) as folder,
        Path(folder, "output").open("w+", errors="replace") as output,
    ):
        port = free_port()
        command = [sys.executable, "-P", "-m", "mlflow", "models", "serve", "--model-uri", model_uri]
        command += ["--env-manager", "local", "--host", LOOPBACK, "--port", str(port)]
        with supervised(command, _environment(Path(folder)), output) as server:
            if not wait_for_port(server, LOOPBACK, port, _START_TIMEOUT):
                text = Path(output.name).read_text(encoding="utf-8", errors="replace")
                raise _start_error(server, model_uri, text)
            yield f"http://{LOOPBACK}:{port}"


def _temporary_parent() -> Path | None:
    """Returns the current folder if MLflow would URL-decode the default temporary folder's path, otherwise None.

    MLflow copies the model into a temporary folder and loads it from there.
    """
    return Path.cwd() if mlflow_server.encoded_character(Path(gettempdir())) else None


def _environment(folder: Path) -> dict[str, str]:
    """Returns the server's environment; writes modules to `folder` that prevent imports of this project's packages."""
    for name in _HIDDEN_PACKAGES:
        (folder / f"{name}.py").write_text(f"raise ImportError('{name} is hidden from served models')\n")
    return {
        **safe_environment(folder),
        "TMPDIR": str(folder),
        "MLFLOW_TRACKING_URI": mlflow.get_tracking_uri(),
        "MLFLOW_REGISTRY_URI": mlflow.get_registry_uri(),
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        "MLFLOW_DEFAULT_PREDICTION_DEVICE": "cpu",
        # `mlflow models serve` needs uvicorn on PATH, but the virtual environment may not be activated
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
    }


def _start_error(server: subprocess.Popen[bytes], model_uri: str, output: str) -> RegistryError:
    status = server.poll()
    problem = "did not respond" if status is None else f"exited with status {status}"
    # the last traceback comes from MLflow's command line, which only reports that the server exited
    errors = output.rpartition("Traceback (most recent call last):")[0] or output
    if not errors.strip():
        return RegistryError(
            f"`mlflow models serve` for {model_uri} {problem} and wrote no output; if {gettempdir()} is full, free "
            "some space, or set TMPDIR to a folder on another disk"
        )
    last_lines = "\n".join(f"    {line}" for line in errors.strip().splitlines()[-5:])
    return RegistryError(f"`mlflow models serve` for {model_uri} {problem}:\n{last_lines}")


def _post_image(session: requests.Session, address: str, image: Path, classes: Sequence[str]) -> ServedOutput:
    content = base64.b64encode(image.read_bytes()).decode()
    body: Any = {"inputs": [{"image": content}], "params": {"top_k": len(classes)}}
    try:
        response = session.post(f"{address}/invocations", json=body, timeout=_REQUEST_TIMEOUT)
        if not response.ok:
            status = f"HTTP {response.status_code}: {response.text[:500]}"
            raise RegistryError(f"the served model rejected {image} with {status}")
        return parse_predictions(response.json()["predictions"][:1], classes)
    except (requests.RequestException, KeyError, IndexError) as error:
        raise RegistryError(f"no valid response from the served model for {image}: {error!r}") from error
