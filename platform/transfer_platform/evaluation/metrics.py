"""Figures from labels and probabilities; the same for validation, test and `platform evaluate`.

Pure functions of numpy arrays. Labels are class indices (N,), probabilities (N, C).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import precision_recall_fscore_support

Labels = NDArray[np.integer]
Probabilities = NDArray[np.floating]

CALIBRATION_BINS = 15


def scores(labels: Labels, probabilities: Probabilities) -> dict[str, float]:
    """Every scalar metric that a search or a gate may ask for.

    Returns:
        `loss` (mean cross-entropy, nats), `accuracy`, `macro_f1`, `macro_recall` and `ece` (each 0 to 1).
    """
    predicted = probabilities.argmax(axis=1)
    return {
        "loss": cross_entropy(labels, probabilities),
        "accuracy": float(np.mean(predicted == labels)),
        "macro_f1": macro_f1(labels, predicted),
        "macro_recall": macro_recall(labels, predicted),
        "ece": expected_calibration_error(labels, probabilities),
    }


def cross_entropy(labels: Labels, probabilities: Probabilities) -> float:
    """Mean negative log-likelihood in nats; a probability of 0 counts as the smallest positive float."""
    assigned = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    return float(-np.log(np.maximum(assigned, np.finfo(np.float64).tiny)).mean())


def macro_f1(labels: Labels, predicted: Labels) -> float:
    """Mean F1 of the classes that occur among labels or predictions.

    As scikit-learn's, which checks its arguments for longer than an epoch on stored features takes.
    """
    occurrences = np.bincount(np.concatenate([labels, predicted]))
    correct = np.bincount(labels[labels == predicted], minlength=len(occurrences))
    occurring = occurrences > 0
    return float(np.mean(2 * correct[occurring] / occurrences[occurring]))


def macro_recall(labels: Labels, predicted: Labels) -> float:
    """Mean recall of the classes that occur among the labels; scikit-learn calls it balanced accuracy."""
    occurrences = np.bincount(labels)
    correct = np.bincount(labels[labels == predicted], minlength=len(occurrences))
    occurring = occurrences > 0
    return float(np.mean(correct[occurring] / occurrences[occurring]))


def per_class(labels: Labels, predicted: Labels, classes: int) -> dict[str, NDArray[np.float64]]:
    """Precision, recall, F1 and support of each class, (C,) each; 0 where there was nothing to divide by."""
    figures = precision_recall_fscore_support(labels, predicted, labels=range(classes), zero_division=0)
    return dict(zip(("precision", "recall", "f1", "support"), map(np.asarray, figures), strict=True))


def calibration_curve(
    labels: Labels, probabilities: Probabilities, bins: int = CALIBRATION_BINS
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """Mean confidence, accuracy and number of images of each non-empty bin of equal width."""
    confidence = probabilities.max(axis=1).astype(np.float64)
    correct = (probabilities.argmax(axis=1) == labels).astype(np.float64)
    index = np.minimum((confidence * bins).astype(int), bins - 1)
    counts = np.bincount(index, minlength=bins)
    filled = counts > 0
    mean_confidence = np.bincount(index, confidence, bins)[filled] / counts[filled]
    accuracy = np.bincount(index, correct, bins)[filled] / counts[filled]
    return mean_confidence, accuracy, counts[filled]


def expected_calibration_error(labels: Labels, probabilities: Probabilities) -> float:
    """Mean distance between confidence and accuracy over 15 bins (Guo et al., 2017)."""
    confidence, accuracy, counts = calibration_curve(labels, probabilities)
    return float(np.abs(confidence - accuracy) @ counts / counts.sum())
