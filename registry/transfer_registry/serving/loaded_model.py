"""A registered model in this process: images in, probabilities in a fixed order of classes out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow.pyfunc
from mlflow.exceptions import MlflowException

from transfer_registry.candidate import ServedOutput, parse_predictions
from transfer_registry.errors import RegistryError
from transfer_registry.model_uri import model_uri
from transfer_registry.packaging import CLASSES_KEY

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class LoadedModel:
    """A model that runs by the code that was registered with it.

    Attributes:
        uri: What was loaded; an alias stays an alias.
        classes: In the order of the columns of `probabilities`.
    """

    uri: str
    classes: tuple[str, ...]
    pyfunc: Any

    def predict_proba(self, images: Sequence[Path]) -> NDArray[np.float32]:
        """The probability of every class for every image, (N, C); raises what `answers` does."""
        return self.predict(images).probabilities

    def predict(self, images: Sequence[Path]) -> ServedOutput:
        """What the model says of images.

        Raises:
            RegistryError: The model refuses an image; the message says which and why.
        """
        import pandas as pd

        frame = pd.DataFrame({"image": [path.read_bytes() for path in images]})
        try:
            answers = self.pyfunc.predict(frame, params={"top_k": len(self.classes)})
        except MlflowException as error:
            raise RegistryError(f"{self.uri} refused an image: {error.message}") from error
        return parse_predictions(answers, self.classes)


def load_model(name: str) -> LoadedModel:
    """Loads what a user names: `ants-bees`, `ants-bees/3`, `ants-bees@alias`, a URI or a folder.

    Raises:
        RegistryError: There is no such model, or it was not registered by this platform.
    """
    uri = model_uri(name)
    try:
        pyfunc = mlflow.pyfunc.load_model(uri)
    except MlflowException as error:
        raise RegistryError(f"{uri} cannot be loaded: {error.message}") from error
    classes = (pyfunc.metadata.metadata or {}).get(CLASSES_KEY)
    if not classes:
        raise RegistryError(f"{uri} is no classifier of this platform: its metadata names no classes")
    return LoadedModel(uri, tuple(classes), pyfunc)
