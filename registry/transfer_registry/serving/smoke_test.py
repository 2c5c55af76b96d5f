"""A registered version behind a real `mlflow models serve`, asked over HTTP: what a client of it would get.

The server runs where the project cannot be imported, even where it is installed, and without pickle.
"""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import requests

from transfer_registry.candidate import parse_predictions
from transfer_registry.errors import RegistryError
from transfer_registry.serving.ports import LOOPBACK, free_port, wait_for_port
from transfer_registry.serving.stranger import environment, last_lines

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from transfer_registry.candidate import ServedOutput

PARITY_IMAGES = 32
"""How many test photographs a candidate is sent before the alias moves."""

_ATTENDED = Path(__file__).with_name("_supervised.py")
_HIDDEN = ("transfer_platform", "transfer_registry", "transfer_model")
_START = 180.0
"""Seconds that a server may take to load a model; most of them are spent on importing torch."""
_ANSWER = 120.0
"""Seconds that one photograph may take."""


def predict_over_http(model_uri: str, images: Sequence[Path], classes: Sequence[str]) -> ServedOutput:
    """Serves a model, posts every image to it, and stops it again.

    Args:
        model_uri: Anything that `mlflow models serve -m` takes; it is looked for in the tracking server and
            the current folder of this process.
        images: Paths of image files, N of them.
        classes: The order of the columns of the probabilities (C).

    Raises:
        RegistryError: The server does not start, or refuses an image; the message ends with the last lines
            that it wrote, or with its answer.
    """
    with _served(model_uri) as address:
        return post_images(address, images, classes)


def post_images(address: str, images: Sequence[Path], classes: Sequence[str]) -> ServedOutput:
    """Posts images to a server at an address, as `predict_over_http` does."""
    with requests.Session() as session:
        session.trust_env = False  # photographs for this machine are no business of a proxy's
        return parse_predictions((_asked(session, address, image, len(classes)) for image in images), classes)


@contextmanager
def _served(model_uri: str) -> Iterator[str]:
    """The address of a server that answers, until the `with` block ends."""
    with TemporaryDirectory() as folder, Path(folder, "output").open("w+", errors="replace") as output:
        port = free_port()
        command = [sys.executable, "-I", str(_ATTENDED)]
        command += [sys.executable, "-m", "mlflow", "models", "serve", "--model-uri", model_uri]
        command += ["--env-manager", "local", "--host", LOOPBACK, "--port", str(port)]
        server = subprocess.Popen(
            command,
            env=_environment(Path(folder)),
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            start_new_session=True,  # a signal to our group must not end it before it has ended the server
        )
        try:
            if not wait_for_port(server, LOOPBACK, port, _START):
                written = Path(output.name).read_text(encoding="utf-8", errors="replace")
                raise _refusal(server, model_uri, written)
            yield f"http://{LOOPBACK}:{port}"
        finally:
            assert server.stdin, "it was started with a pipe"
            server.stdin.close()
            server.wait()


def _environment(folder: Path) -> dict[str, str]:
    """Packages that cannot be imported stand in front of those that could be."""
    for name in _HIDDEN:
        (folder / f"{name}.py").write_text(f"raise ImportError('{name} is hidden from a served model')\n")
    search = [str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {
        **environment("cpu"),
        "PYTHONPATH": os.pathsep.join(search),
        # `mlflow models serve` looks for uvicorn there, and a virtual environment need not be activated.
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
    }


def _refusal(server: subprocess.Popen[bytes], model_uri: str, output: str) -> RegistryError:
    ended = server.poll()
    why = "does not answer" if ended is None else f"ended with exit status {ended}"
    # The last traceback is that of MLflow's command line, which says that the server has ended.
    cause = output.rpartition("Traceback (most recent call last):")[0] or output
    return RegistryError(f"`mlflow models serve` of {model_uri} {why}:\n{last_lines(cause)}")


def _asked(session: requests.Session, address: str, image: Path, classes: int) -> dict[str, Any]:
    content = base64.b64encode(image.read_bytes()).decode()
    body: Any = {"inputs": [{"image": content}], "params": {"top_k": classes}}
    try:
        answer = session.post(f"{address}/invocations", json=body, timeout=_ANSWER)
        if not answer.ok:
            said = f"HTTP {answer.status_code}: {answer.text[:500]}"
            raise RegistryError(f"the served model answers {image} with {said}")
        prediction: dict[str, Any] = answer.json()["predictions"][0]
    except (requests.RequestException, KeyError, IndexError) as error:
        raise RegistryError(f"the served model does not answer {image}: {error!r}") from error
    return prediction
