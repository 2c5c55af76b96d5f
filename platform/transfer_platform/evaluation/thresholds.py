"""What becomes of a model's answers where only sure ones count: thresholds by class, and coverage.

Thresholds are chosen on images that ranked the trials, never on test images; what they are worth is then
measured on these.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import precision_recall_curve

from transfer_platform.evaluation.predictions import Predictions

CONFIDENCES = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
"""Largest probabilities below which an answer is refused, for the table of coverage."""


def class_thresholds(chosen: Predictions, judged: Predictions) -> dict[str, list[object]]:
    """For each class against all others, the threshold of its probability with the best F1.

    Args:
        chosen: The predictions on which thresholds are chosen.
        judged: Those on which they are measured, of the same classes.

    Returns:
        Columns `class`, `ood_threshold`, and `precision`, `recall` on both; one row per class.
    """
    columns: dict[str, list[object]] = {
        name: [] for name in ("class", "threshold", "precision", "recall", "test precision", "test recall")
    }
    for index, name in enumerate(chosen.classes):
        threshold = _best(chosen.labels == index, chosen.probabilities[:, index])
        here = _at(chosen.labels == index, chosen.probabilities[:, index], threshold)
        there = _at(judged.labels == index, judged.probabilities[:, index], threshold)
        for column, cell in zip(columns.values(), (name, threshold, *here, *there), strict=True):
            column.append(cell)
    return columns


def coverage(judged: Predictions) -> dict[str, list[object]]:
    """How many images are decided, and how well, where less sure answers are refused.

    Returns:
        Columns `confidence`, `decided` (share of the images) and `accuracy` among them, None where none is.
    """
    sure = judged.probabilities.max(axis=1)
    right = judged.predicted == judged.labels
    decided = [sure >= confidence for confidence in CONFIDENCES]
    return {
        "confidence": list(CONFIDENCES),
        "decided": [float(each.mean()) for each in decided],
        "accuracy": [float(right[each].mean()) if each.any() else None for each in decided],
    }


def _best(own: NDArray[np.bool_], probabilities: NDArray[np.floating]) -> float:
    precision, recall, thresholds = precision_recall_curve(own, probabilities)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    return float(thresholds[int(f1[:-1].argmax())])


def _at(own: NDArray[np.bool_], probabilities: NDArray[np.floating], threshold: float) -> tuple[float, float]:
    """Precision and recall; 0 where there was nothing to divide by."""
    called = probabilities >= threshold
    hits = float((called & own).sum())
    return hits / max(1.0, float(called.sum())), hits / max(1.0, float(own.sum()))
