"""Classification metrics of labels, class indices (N,), and probabilities (N, C)."""

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import precision_recall_fscore_support

Labels = NDArray[np.integer]
Probabilities = NDArray[np.floating]

CALIBRATION_BINS = 15


def scores(labels: Labels, probabilities: Probabilities) -> dict[str, float]:
    """Returns `loss` in nats, and `accuracy`, `macro_f1`, `macro_recall` and `ece`, each from 0 to 1."""
    predicted = probabilities.argmax(axis=1)
    return {
        "loss": cross_entropy(labels, probabilities),
        "accuracy": float(np.mean(predicted == labels)),
        "macro_f1": macro_f1(labels, predicted),
        "macro_recall": macro_recall(labels, predicted),
        "ece": expected_calibration_error(labels, probabilities),
    }


def cross_entropy(labels: Labels, probabilities: Probabilities) -> float:
    """Returns the mean negative log-likelihood in nats; 0 is replaced by the smallest positive float."""
    assigned = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    return float(-np.log(np.maximum(assigned, np.finfo(np.float64).tiny)).mean())


def macro_f1(labels: Labels, predicted: Labels) -> float:
    """Returns the mean F1 of the classes that occur in labels or predictions.

    Equals scikit-learn's, whose argument checks take longer than an epoch on stored features.
    """
    occurrences = np.bincount(np.concatenate([labels, predicted]))
    correct = np.bincount(labels[labels == predicted], minlength=len(occurrences))
    present = occurrences > 0
    return float(np.mean(2 * correct[present] / occurrences[present]))


def macro_recall(labels: Labels, predicted: Labels) -> float:
    """Returns the mean recall of the classes that occur in the labels, also known as balanced accuracy."""
    occurrences = np.bincount(labels)
    correct = np.bincount(labels[labels == predicted], minlength=len(occurrences))
    present = occurrences > 0
    return float(np.mean(correct[present] / occurrences[present]))


def per_class(labels: Labels, predicted: Labels, classes: int) -> dict[str, NDArray[np.float64]]:
    """Returns `precision`, `recall`, `f1` and `support` by class, (C,) each; undefined values are 0."""
    metrics = precision_recall_fscore_support(labels, predicted, labels=range(classes), zero_division=0)
    return dict(zip(("precision", "recall", "f1", "support"), map(np.asarray, metrics), strict=True))


def calibration_curve(
    labels: Labels, probabilities: Probabilities, bins: int = CALIBRATION_BINS
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """Returns mean confidence, accuracy and number of images of each non-empty bin of equal width."""
    confidence = probabilities.max(axis=1).astype(np.float64)
    correct = (probabilities.argmax(axis=1) == labels).astype(np.float64)
    index = np.minimum((confidence * bins).astype(int), bins - 1)
    counts = np.bincount(index, minlength=bins)
    filled = counts > 0
    mean_confidence = np.bincount(index, confidence, bins)[filled] / counts[filled]
    accuracy = np.bincount(index, correct, bins)[filled] / counts[filled]
    return mean_confidence, accuracy, counts[filled]


def expected_calibration_error(labels: Labels, probabilities: Probabilities) -> float:
    """Returns the mean difference between confidence and accuracy over 15 bins (Guo et al., 2017)."""
    confidence, accuracy, counts = calibration_curve(labels, probabilities)
    return float(np.abs(confidence - accuracy) @ counts / counts.sum())
