"""A registered model loaded into this process, with a fixed class order."""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import mlflow.pyfunc
import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException
from numpy.typing import NDArray

from transfer_model.errors import cause
from transfer_registry.candidate import ServedOutput, parse_predictions
from transfer_registry.errors import RegistryError
from transfer_registry.model_files import CHECKSUMS_FILE, REMEDY, classes_of, open_folder
from transfer_registry.model_uri import model_uri


@dataclass(frozen=True)
class LoadedModel:
    """A registered model, loaded using the code that was registered with it.

    `uri` may contain an alias. Probabilities have one column per class, in the order of `classes` (C).
    """

    uri: str
    classes: tuple[str, ...]
    pyfunc: Any

    def predict(self, images: Sequence[Path]) -> ServedOutput:
        """Classifies images.

        Raises:
            RegistryError: The model rejects an image; the message gives the row and the reason.
        """
        frame = pd.DataFrame({"image": [path.read_bytes() for path in images]})
        try:
            predictions = self.pyfunc.predict(frame, params={"top_k": len(self.classes)})
        except MlflowException as error:
            raise RegistryError(f"{self.uri} rejected an image: {error.message}") from error
        return parse_predictions(predictions, self.classes)

    def predict_proba(self, images: Sequence[Path]) -> NDArray[np.float32]:
        """Returns only the probabilities (N, C) from `predict`."""
        return self.predict(images).probabilities


def load_model(name: str) -> LoadedModel:
    """Loads a model; `name` is any model reference accepted by `model_uri`.

    Raises:
        RegistryError: The model does not exist, cannot be loaded, or is not a classifier created by this platform.
    """
    uri = model_uri(name)
    pyfunc = load_pyfunc(uri, open_folder(uri))
    return LoadedModel(uri, classes_of(pyfunc.metadata.metadata, uri), pyfunc)


def load_pyfunc(uri: str, folder: Path) -> Any:  # noqa: ANN401 - MLflow has no types
    """Loads an MLflow `PyFuncModel` and its registered code from a folder returned by `open_folder`.

    From this call on, Python reads no `__pycache__` in this process, because the model's bytecode has no checksums.

    Raises:
        RegistryError: The model cannot be loaded; the message names `uri`, the folder and the cause.
    """
    try:
        import_module("transfer_model.pyfunc")  # imports the libraries of the model while bytecode is still used
        sys.pycache_prefix = os.devnull  # no bytecode file can be below this path
        return mlflow.pyfunc.load_model(str(folder))
    except Exception as error:  # the model's own code raises its own exceptions
        advice = "" if (folder / CHECKSUMS_FILE).exists() else f"; if a file is damaged, {REMEDY}"
        raise RegistryError(f"cannot load {uri} from {folder}: {cause(error)}{advice}") from error
