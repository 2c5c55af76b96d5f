"""The model as MLflow sees it: base64 images in a column `image`, labels, probabilities and novelty out.

Whoever sends a request reads its errors, so they are one short sentence that names the row and shows none
of the content. What a client did wrong is a 400; everything else is logged here and is a bare 500.
"""

from __future__ import annotations

import base64
import json
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INTERNAL_ERROR, INVALID_PARAMETER_VALUE
from mlflow.pyfunc.model import PythonModel, PythonModelContext

from .classifier import Classifier
from .config import MAX_OOD_SCORE
from .errors import UnreadableImageError
from .preprocessing import pixel_count

if TYPE_CHECKING:
    from numpy.typing import NDArray

IMAGE_COLUMN = "image"
ARTIFACT = "model"
DEFAULT_TOP_K = 5
MAX_IMAGES = 256
"""Images in one request."""
MAX_PIXELS = 1_000_000_000
"""Pixels of all images in one request: some twenty seconds of decoding."""

_NOT_AN_IMAGE = ("", "None", "null", "nan", "NaN")
"""What MLflow makes of a missing value on its way through JSON, CSV and pandas."""

_logger = logging.getLogger(__name__)


class RequestError(MlflowException):
    """An answer to the client that stays as short as it was raised.

    MLflow's scoring server puts the whole request in front of every error's `message`, and reports
    `serialize_as_json`; so this reports the original sentence.
    """

    def serialize_as_json(self) -> str:
        """The body of the HTTP response: `error_code` and `message`, nothing else."""
        return json.dumps({"error_code": self.error_code, "message": self.args[0]})


class ImageClassifier(PythonModel):
    """Serves a `Classifier` through MLflow.

    The device is MLflow's `MLFLOW_DEFAULT_PREDICTION_DEVICE`, the CPU by default.
    """

    classifier: Classifier

    def load_context(self, context: PythonModelContext) -> None:
        """Called by MLflow once, when the model is loaded."""
        device = os.environ.get("MLFLOW_DEFAULT_PREDICTION_DEVICE", "cpu")
        self.classifier = Classifier.load(Path(context.artifacts[ARTIFACT]), device)

    def predict(
        self,
        context: PythonModelContext,  # noqa: ARG002 - MLflow calls it by position
        model_input: pd.DataFrame,
        params: dict[str, Any] | None = None,
    ) -> list[dict[str, Any]]:
        """Classifies the images in the column `image`.

        Args:
            context: Unused; `load_context` has read it.
            model_input: Base64 text, a base64 `data:` URI, or, called from Python, the file's bytes.
            params: `top_k`, how many of the most probable classes to list, 5 by default; `ood_threshold`, the
                novelty above which an image is called unknown, the model's own by default.

        Returns:
            For each row `label` and `probability` of the most probable class, in `top` the `top_k` most
            probable ones, best first; how unlike the training images it is, `novelty` from 0 to 2, and
            `unknown`, whether that is above the threshold.

        Raises:
            RequestError: What is wrong with the request, or that the model failed.
        """
        try:
            top_k, threshold = _top_k(params or {}), self._threshold(params or {})
            images = [_content(value, row) for row, value in enumerate(_column(model_input))]
            _refuse_hours_of_work(images)
            answers = self.classifier.predict(images)
            return [
                {**self._guesses(probabilities, top_k), **_strangeness(float(novelty), threshold)}
                for probabilities, novelty in zip(answers.probabilities, answers.ood_scores, strict=True)
            ]
        except UnreadableImageError as error:
            _refuse(str(error))
        except RequestError:
            raise
        except Exception as error:
            # The last line of defence: MLflow would show the stack trace to the client, as a 400.
            _logger.exception("the model failed")
            raise RequestError("the model failed; the server's log says why", INTERNAL_ERROR) from error

    def _threshold(self, params: dict[str, Any]) -> float:
        threshold = params.get("threshold", self.classifier.config.unknown.threshold)
        if not isinstance(threshold, float) or not 0 <= threshold <= MAX_OOD_SCORE:
            _refuse(f"threshold must be a number from 0 to {MAX_OOD_SCORE:g}, but is {threshold!s:.20}")
        return threshold

    def _guesses(self, probabilities: NDArray[np.float32], top_k: int) -> dict[str, Any]:
        best = np.argsort(-probabilities, kind="stable")[:top_k]
        top = [
            {"label": self.classifier.classes[index], "probability": float(probabilities[index])}
            for index in best
        ]
        return {**top[0], "top": top}


def _strangeness(novelty: float, threshold: float) -> dict[str, Any]:
    return {"unknown": novelty > threshold, "ood_score": novelty}


def _refuse(message: str) -> NoReturn:
    raise RequestError(message, INVALID_PARAMETER_VALUE)


def _top_k(params: dict[str, Any]) -> int:
    """MLflow has checked the type, but lets null pass; and a number may have thousands of digits."""
    top_k = params.get("top_k", DEFAULT_TOP_K)
    if top_k is None or top_k < 1:
        _refuse("top_k must be a whole number of at least 1")
    return int(top_k)


def _column(model_input: pd.DataFrame) -> list[object]:
    if not isinstance(model_input, pd.DataFrame) or IMAGE_COLUMN not in model_input:
        _refuse(f"expected a table with a column {IMAGE_COLUMN!r}")
    values: list[object] = model_input[IMAGE_COLUMN].tolist()
    if not values:
        _refuse("the request holds no images; expected at least one")
    if len(values) > MAX_IMAGES:
        _refuse(f"the request holds {len(values)} images, more than the {MAX_IMAGES} allowed at once")
    return values


def _refuse_hours_of_work(images: list[bytes]) -> None:
    """Images that are small as files may be large as pixels, and others are waiting."""
    total = sum(pixel_count(image, f"row {row}") for row, image in enumerate(images))
    if total > MAX_PIXELS:
        _refuse(f"the images have {total:,} pixels together, more than the {MAX_PIXELS:,} allowed at once")


def _content(value: object, row: int) -> bytes:
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    if not isinstance(value, str) or value.strip() in _NOT_AN_IMAGE:
        _refuse(f"row {row}: the image is missing; expected base64 text")
    text = value.partition(",")[2] if value.startswith("data:") else value
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except ValueError:
        _refuse(f"row {row}: the image is not base64 text")
