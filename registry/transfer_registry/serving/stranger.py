"""A registered model as a stranger meets it: in a fresh process where this project cannot be imported.

What the model answers there, without pickle and through the same base64 column that a client fills, is what
it will answer when it is served.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import mlflow
import numpy as np

from transfer_registry.errors import RegistryError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_SCRIPT = Path(__file__).with_name("_isolated_predict.py")
_LAST_LINES = 5


@dataclass(frozen=True)
class Answers:
    """What a model says of some images.

    Attributes:
        classes: The names of the columns (C), in the model's own order.
        probabilities: (N, C), float32.
    """

    classes: tuple[str, ...]
    probabilities: NDArray[np.float32]

    @property
    def labels(self) -> tuple[str, ...]:
        """The most probable class of each image (N)."""
        return tuple(self.classes[index] for index in self.probabilities.argmax(axis=1))


def predict(model_uri: str, images: Sequence[Path]) -> NDArray[np.float32]:
    """The probabilities of `ask`: (N, C), in the model's own order of classes."""
    return ask(model_uri, images).probabilities


def ask(model_uri: str, images: Sequence[Path], device: str = "cpu") -> Answers:
    """Loads a model in a process of its own and classifies images there.

    Args:
        model_uri: Anything that `mlflow.pyfunc.load_model` takes; it is looked for in the tracking server
            and the current folder of this process.
        images: Paths of image files.
        device: Where it computes.

    Raises:
        RegistryError: It does not load, or cannot classify one of the images; the message ends with the
            last lines that the process wrote.
    """
    with TemporaryDirectory() as folder:
        request, answer = Path(folder, "request.json"), Path(folder, "answer.json")
        request.write_text(
            json.dumps({"model_uri": model_uri, "images": [str(image) for image in images]}), encoding="utf-8"
        )
        command = [sys.executable, "-I", "-B", str(_SCRIPT), str(request), str(answer)]
        ended = subprocess.run(
            command, env=environment(device), capture_output=True, text=True, errors="replace", check=False
        )
        if ended.returncode != 0:
            raise RegistryError(_failure(model_uri, ended.returncode, ended.stderr))
        content = json.loads(answer.read_text(encoding="utf-8"))
    classes = tuple(content["classes"])
    probabilities = np.array(content["probabilities"], dtype=np.float32)
    return Answers(classes, probabilities.reshape(len(images), len(classes)))


def environment(device: str) -> dict[str, str]:
    """Of a process that loads models from this one's registry, without pickle, and computes on a device."""
    return {
        **os.environ,
        "MLFLOW_TRACKING_URI": mlflow.get_tracking_uri(),
        "MLFLOW_REGISTRY_URI": mlflow.get_registry_uri(),
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        "MLFLOW_DEFAULT_PREDICTION_DEVICE": device,
    }


def last_lines(output: str) -> str:
    """The end of what a process wrote, indented."""
    return "\n".join(f"    {line}" for line in output.strip().splitlines()[-_LAST_LINES:])


def _failure(model_uri: str, code: int, output: str) -> str:
    return (
        f"{model_uri} does not predict in a fresh process, which ended with exit status {code}:\n"
        f"{last_lines(output)}"
    )
