"""Temperature scaling and the expected calibration error."""

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

MIN_TEMPERATURE, MAX_TEMPERATURE = 0.05, 20.0
CALIBRATION_BINS = 15


def fit_temperature(logits: NDArray[np.floating], labels: NDArray[np.integer]) -> float:
    """Returns the temperature that minimizes the cross-entropy of `logits / temperature`.

    See "On Calibration of Modern Neural Networks" (Guo et al., 2017). Labels are smoothed as if one additional image
    were spread evenly over all classes (cf. Platt, 1999). Without smoothing, the confidence would grow without bound
    if every image were classified correctly, which can happen with only a few dozen images.

    Args:
        logits: Logits (N, C) of images not used for training, with N >= 1.
        labels: Class indices (N,) of the same images.

    Returns:
        The temperature, between 0.05 and 20; values above 1 lower the confidence.
    """
    count, classes = logits.shape
    targets = np.full((count, classes), 1 / (classes * (count + 1)))
    targets[np.arange(count), labels] += count / (count + 1)

    def cross_entropy(log_temperature: float) -> float:
        scaled = log_softmax(logits.astype(np.float64) / np.exp(log_temperature), axis=1)
        return float(-(targets * scaled).sum(axis=1).mean())

    bounds = (float(np.log(MIN_TEMPERATURE)), float(np.log(MAX_TEMPERATURE)))
    return float(np.exp(minimize_scalar(cross_entropy, bounds=bounds, method="bounded").x))


def calibrated_losses(logits: NDArray[np.floating], labels: NDArray[np.integer]) -> NDArray[np.float64]:
    """Returns the cross-entropy (N,) of each image in nats, after temperature scaling that is fitted to all images."""
    log_probabilities = log_softmax(logits.astype(np.float64) / fit_temperature(logits, labels), axis=1)
    losses: NDArray[np.float64] = -log_probabilities[np.arange(len(labels)), labels]
    return losses


def remove_temperature(probabilities: NDArray[np.floating], temperature: float) -> NDArray[np.float64]:
    """Converts probabilities (N, C) back to those that the network predicts without temperature scaling."""
    positive = np.maximum(probabilities.astype(np.float64), np.finfo(np.float32).tiny)
    logits = np.log(positive) * temperature
    uncalibrated: NDArray[np.float64] = np.exp(log_softmax(logits, axis=1))
    return uncalibrated


def calibration_curve(
    labels: NDArray[np.integer], probabilities: NDArray[np.floating], bins: int = CALIBRATION_BINS
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """Returns the mean confidence, accuracy and image count of each non-empty confidence bin; bins have equal width."""
    confidence = probabilities.max(axis=1).astype(np.float64)
    correct = (probabilities.argmax(axis=1) == labels).astype(np.float64)
    index = np.minimum((confidence * bins).astype(int), bins - 1)
    counts = np.bincount(index, minlength=bins)
    filled = counts > 0
    mean_confidence = np.bincount(index, confidence, bins)[filled] / counts[filled]
    accuracy = np.bincount(index, correct, bins)[filled] / counts[filled]
    return mean_confidence, accuracy, counts[filled]


def expected_calibration_error(labels: NDArray[np.integer], probabilities: NDArray[np.floating]) -> float:
    """Returns the mean gap between confidence and accuracy in 15 bins, weighted by image count (Guo et al., 2017)."""
    confidence, accuracy, counts = calibration_curve(labels, probabilities)
    return float(np.abs(confidence - accuracy) @ counts / counts.sum())
