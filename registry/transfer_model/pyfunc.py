"""MLflow pyfunc that maps base64 images to labels, probabilities and OOD scores.

Error messages are sent to the client, so they are short, contain no image data, and name the row of any invalid image.
Invalid requests result in HTTP 400; all other errors are logged and result in HTTP 500 without details.
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
from .decode import pixel_count
from .errors import UnreadableImageError
from .model_json import MAX_OOD_SCORE

if TYPE_CHECKING:
    from numpy.typing import NDArray

IMAGE_COLUMN = "image"
ARTIFACT = "model"
DEFAULT_TOP_K = 5
MAX_IMAGES = 256
"""Maximum number of images per request."""
MAX_PIXELS = 1_000_000_000
"""Maximum total number of pixels per request; decoding that many pixels takes about 20 seconds."""

_MISSING = ("", "None", "null", "nan", "NaN")
"""Strings that MLflow substitutes for missing values when it reads JSON, CSV or pandas input."""

_logger = logging.getLogger(__name__)


class RequestError(MlflowException):
    """Error whose HTTP response does not contain the request data, which MLflow would add by default."""

    def serialize_as_json(self) -> str:
        """Returns the HTTP response body, which contains `error_code` and `message`."""
        return json.dumps({"error_code": self.error_code, "message": self.args[0]})


class ImageClassifier(PythonModel):
    """Serves a `Classifier` on the device set by `MLFLOW_DEFAULT_PREDICTION_DEVICE`, which defaults to the CPU."""

    classifier: Classifier

    def load_context(self, context: PythonModelContext) -> None:
        """Loads the classifier; MLflow calls this once."""
        device = os.environ.get("MLFLOW_DEFAULT_PREDICTION_DEVICE", "cpu")
        self.classifier = Classifier.load(Path(context.artifacts[ARTIFACT]), device)

    def predict(
        self,
        context: PythonModelContext,  # noqa: ARG002 - MLflow passes it by position
        model_input: pd.DataFrame,
        params: dict[str, Any] | None = None,
    ) -> list[dict[str, Any]]:
        """Classifies the images in the `image` column.

        Args:
            context: Ignored.
            model_input: Table with a column of base64 strings, base64 `data:` URIs or, in calls from Python, bytes.
            params: `top_k` is the number of classes to list (default: 5). `threshold` is the out-of-distribution score
                above which an image is flagged as unknown (default: the model's threshold).

        Returns:
            For each row: `label` and `probability` of the most probable class; `top`, the `top_k` most probable
            classes, best first; `unknown`, True if `ood_score` exceeds the threshold; `ood_score`, 0 to 2.

        Raises:
            RequestError: The request is invalid, or the model failed.
        """
        try:
            top_k, threshold = _top_k(params or {}), self._threshold(params or {})
            images = [_image_bytes(value, row) for row, value in enumerate(_image_column(model_input))]
            _check_total_pixels(images)
            output = self.classifier.predict(images)
            rows = zip(output.probabilities, output.ood_scores.tolist(), strict=True)
            return [
                {**self._top_classes(probabilities, top_k), "unknown": score > threshold, "ood_score": score}
                for probabilities, score in rows
            ]
        except UnreadableImageError as error:
            _reject(str(error))
        except RequestError:
            raise
        except Exception as error:
            # Without this, MLflow would send the stack trace to the client with HTTP 400.
            _logger.exception("the model failed")
            raise RequestError("the model failed; see the server log", INTERNAL_ERROR) from error

    def _threshold(self, params: dict[str, Any]) -> float:
        threshold = params.get("threshold", self.classifier.config.unknown.threshold)
        if not isinstance(threshold, float) or not 0 <= threshold <= MAX_OOD_SCORE:
            _reject(f"threshold must be a number from 0 to {MAX_OOD_SCORE:g}, but is {threshold!s:.20}")
        return threshold

    def _top_classes(self, probabilities: NDArray[np.float32], top_k: int) -> dict[str, Any]:
        best = np.argsort(-probabilities, kind="stable")[:top_k]
        top = [{"label": self.classifier.classes[index], "probability": float(probabilities[index])} for index in best]
        return {**top[0], "top": top}


def _reject(message: str) -> NoReturn:
    raise RequestError(message, INVALID_PARAMETER_VALUE)


def _top_k(params: dict[str, Any]) -> int:
    """Validates and returns `top_k`. This is necessary because MLflow accepts null and integers below 1."""
    top_k = params.get("top_k", DEFAULT_TOP_K)
    if top_k is None or top_k < 1:
        _reject("top_k must be a whole number of at least 1")
    return int(top_k)


def _image_column(model_input: pd.DataFrame) -> list[object]:
    if not isinstance(model_input, pd.DataFrame) or IMAGE_COLUMN not in model_input:
        _reject(f"expected a table with an {IMAGE_COLUMN!r} column")
    values: list[object] = model_input[IMAGE_COLUMN].tolist()
    if not values:
        _reject("the request contains no images; expected at least one")
    if len(values) > MAX_IMAGES:
        _reject(f"the request has {len(values)} images, more than the {MAX_IMAGES} allowed")
    return values


def _check_total_pixels(images: list[bytes]) -> None:
    """Rejects images with more than `MAX_PIXELS` pixels in total because decoding them would take too long."""
    total = sum(pixel_count(image, f"row {row}") for row, image in enumerate(images))
    if total > MAX_PIXELS:
        _reject(f"the images have {total:,} pixels in total, more than the {MAX_PIXELS:,} allowed")


def _image_bytes(value: object, row: int) -> bytes:
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    if not isinstance(value, str) or value.strip() in _MISSING:
        _reject(f"row {row}: the image is missing; expected base64 text")
    text = value.partition(",")[2] if value.startswith("data:") else value
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except ValueError:
        _reject(f"row {row}: the image is not base64 text")
