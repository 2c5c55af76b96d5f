"""A registered model loaded into this process, with a fixed class order."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow.pyfunc
import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException
from numpy.typing import NDArray

from transfer_registry.candidate import ServedOutput, parse_predictions
from transfer_registry.errors import RegistryError
from transfer_registry.model_uri import loadable_uri, model_uri
from transfer_registry.packaging import classes_of


@dataclass(frozen=True)
class LoadedModel:
    """A registered model, loaded with the code that was registered with it.

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
    try:
        pyfunc = mlflow.pyfunc.load_model(loadable_uri(uri))
    except MlflowException as error:
        raise RegistryError(f"cannot load {uri}: {error.message}") from error
    return LoadedModel(uri, classes_of(pyfunc.metadata.metadata, uri), pyfunc)
