"""Per-class decision thresholds, and coverage by minimum confidence."""

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import precision_recall_curve

from transfer_platform.evaluation.predictions import Predictions

CONFIDENCES = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
"""Minimum confidences, one per row of the coverage table."""


def class_thresholds(validation: Predictions, test: Predictions) -> dict[str, list[object]]:
    """Returns a table of the one-vs-rest thresholds that maximize F1 on the validation images, with one row per class.

    The columns are `class`, `threshold`, and the precision and recall on the validation images and on the test images.
    For a class without validation images, all values except its name are None.
    """
    columns: dict[str, list[object]] = {
        name: [] for name in ("class", "threshold", "precision", "recall", "test precision", "test recall")
    }
    for index, name in enumerate(validation.classes):
        positive, probabilities = validation.labels == index, validation.probabilities[:, index]
        if not positive.any():
            for column, value in zip(columns.values(), (name, *[None] * 5), strict=True):
                column.append(value)
            continue
        threshold = _best_threshold(positive, probabilities)
        on_validation = _precision_recall(positive, probabilities, threshold)
        on_test = _precision_recall(test.labels == index, test.probabilities[:, index], threshold)
        for column, cell in zip(columns.values(), (name, threshold, *on_validation, *on_test), strict=True):
            column.append(cell)
    return columns


def coverage(test: Predictions) -> dict[str, list[object]]:
    """Returns a table of `confidence`, `decided` and `accuracy` with one row per minimum confidence in `CONFIDENCES`.

    `decided` is the fraction of images with at least this confidence; `accuracy` is None if there are no such images.
    """
    confidence = test.probabilities.max(axis=1)
    correct = test.predicted == test.labels
    covered = [confidence >= minimum for minimum in CONFIDENCES]
    return {
        "confidence": list(CONFIDENCES),
        "decided": [float(mask.mean()) for mask in covered],
        "accuracy": [float(correct[mask].mean()) if mask.any() else None for mask in covered],
    }


def _best_threshold(positive: NDArray[np.bool_], probabilities: NDArray[np.floating]) -> float:
    precision, recall, thresholds = precision_recall_curve(positive, probabilities)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    return float(thresholds[int(f1[:-1].argmax())])


def _precision_recall(
    positive: NDArray[np.bool_], probabilities: NDArray[np.floating], threshold: float
) -> tuple[float, float]:
    """Returns the precision and recall at a threshold; undefined values are 0."""
    predicted = probabilities >= threshold
    hits = float((predicted & positive).sum())
    return hits / max(1.0, float(predicted.sum())), hits / max(1.0, float(positive.sum()))
