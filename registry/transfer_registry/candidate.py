"""Promotion candidates, their test predictions, and served predictions."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from transfer_registry.errors import RegistryError
from transfer_registry.version_files import StoredPredictions


@dataclass(frozen=True)
class ServedOutput:
    """Predictions of a served model for N images.

    Attributes:
        probabilities: Class probabilities (N, C), float32.
        ood_scores: Out-of-distribution scores (N,), 0 to 2; NaN if the model does not compute them.
        unknown: Flags (N,): True if the image's score exceeds the threshold, None if the image has no score.
    """

    probabilities: NDArray[np.float32]
    ood_scores: NDArray[np.float32]
    unknown: tuple[bool | None, ...]


Predict = Callable[[str, Sequence[Path]], NDArray[np.float32]]
"""Function that takes a model URI and N image files, and computes probabilities (N, C) in an isolated process."""
Serve = Callable[[str, Sequence[Path], Sequence[str]], ServedOutput]
"""Function that takes a model URI, N image files and C class names, and requests predictions over HTTP."""


def parse_predictions(predictions: Iterable[Mapping[str, Any]], classes: Sequence[str]) -> ServedOutput:
    """Converts pyfunc output to a `ServedOutput` with columns in the order of `classes` (C).

    `predictions` has one mapping per image, with `top` and, if the model computes scores, `ood_score` and `unknown`.
    """
    rows = list(predictions)
    top = ({guess["label"]: guess["probability"] for guess in row["top"]} for row in rows)
    probabilities = np.array([[by_label[name] for name in classes] for by_label in top], dtype=np.float32)
    return ServedOutput(
        probabilities.reshape(len(rows), len(classes)),
        np.array([row.get("ood_score", np.nan) for row in rows], dtype=np.float32),
        tuple(row.get("unknown") for row in rows),
    )


@dataclass(frozen=True)
class Candidate:
    """The best model of a study, logged to MLflow but not yet registered.

    Attributes:
        model: Registered model to which the candidate will be added as a version.
        model_uri: URI of the logged model, `models:/m-...`.
        run_id: MLflow run of the study.
        artifact_digest: SHA-256 of the served files (`packaging.artifact_digest`). Together with `run_id` and
            `trial`, it identifies the version.
        precision: Precision in which the model is served: float32, bfloat16 or float16.
        training_sha256: Content hashes of all training and validation images.
    """

    model: str
    model_uri: str
    run_id: str
    trial: int
    artifact_digest: str
    recipe_fingerprint: str
    train_fingerprint: str
    precision: str = "float32"
    training_sha256: tuple[str, ...] = ()


@dataclass(frozen=True)
class Evaluation:
    """A candidate's predictions for N test images and C classes.

    Attributes:
        metrics: Metrics by name, such as `test/accuracy`.
        classes: Class names (C), in the column order of `probabilities`.
        sha256: Content hashes of the images (N,).
        labels: True class names (N,).
        probabilities: Class probabilities (N, C), float32.
        ood_scores: Out-of-distribution scores (N,); None if the candidate does not compute them.
        threshold: Out-of-distribution score above which an image is flagged as unknown.

    Raises:
        RegistryError: There are no images, the array sizes do not match, or a label is not in `classes`.
    """

    metrics: Mapping[str, float]
    classes: tuple[str, ...]
    images: tuple[Path, ...]
    sha256: tuple[str, ...]
    labels: tuple[str, ...]
    probabilities: NDArray[np.float32]
    fingerprint: str
    ood_scores: NDArray[np.float32] | None = None
    threshold: float = np.inf

    def __post_init__(self) -> None:
        shape = (len(self.images), len(self.classes))
        if not self.images or self.probabilities.shape != shape or {len(self.sha256), len(self.labels)} != {shape[0]}:
            raise RegistryError(
                f"invalid evaluation: it has {shape[0]} images and {shape[1]} classes, but {len(self.labels)} labels, "
                f"{len(self.sha256)} content hashes and probabilities of shape {self.probabilities.shape}"
            )
        if unknown := sorted(set(self.labels) - set(self.classes)):
            raise RegistryError(f"the test label {unknown[0]!r} is not one of the classes {', '.join(self.classes)}")

    @property
    def predicted(self) -> tuple[str, ...]:
        """Name of the most probable class for each image (N,)."""
        return tuple(self.classes[best] for best in self.probabilities.argmax(axis=1))

    def served_output(self, indices: Sequence[int]) -> ServedOutput:
        """Returns the candidate's predictions for the images at `indices`."""
        rows = list(indices)
        if self.ood_scores is None:
            missing = np.full(len(rows), np.nan, np.float32)
            return ServedOutput(self.probabilities[rows], missing, (None,) * len(rows))
        scores = self.ood_scores[rows]
        return ServedOutput(self.probabilities[rows], scores, tuple((scores > self.threshold).tolist()))

    def sample(self, count: int) -> tuple[int, ...]:
        """Returns the indices of up to `count` images, balanced across classes and selected by content hash."""
        per_class = Counter[str]()
        ranks: dict[int, int] = {}
        for index in sorted(range(len(self.images)), key=self.sha256.__getitem__):
            ranks[index] = per_class[self.labels[index]]
            per_class[self.labels[index]] += 1
        return tuple(sorted(ranks, key=ranks.__getitem__)[:count])

    @property
    def stored_predictions(self) -> StoredPredictions:
        """Predictions in the format stored with the version."""
        return StoredPredictions(self.classes, self.sha256, self.probabilities)
