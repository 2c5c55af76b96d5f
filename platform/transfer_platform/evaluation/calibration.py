"""Makes probabilities mean what they say: temperature scaling, fitted on images that taught nothing."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

MIN_TEMPERATURE, MAX_TEMPERATURE = 0.05, 20.0


def fit_temperature(logits: NDArray[np.floating], labels: NDArray[np.integer]) -> float:
    """What logits are to be divided by, so that their softmax says how often they are right.

    The temperature of least cross-entropy ("On Calibration of Modern Neural Networks", Guo et al., 2017),
    with one further image, shared by all classes alike, as evidence beside each (in the manner of Platt,
    1999): a few dozen images without a mistake would otherwise ask for endless confidence.

    Args:
        logits: Of images that the network has not learned from (N, C), N at least 1.
        labels: Their class indices (N,).

    Returns:
        Between 0.05 and 20; above 1 it makes a network less confident than it was.
    """
    count, classes = logits.shape
    targets = np.full((count, classes), 1 / (classes * (count + 1)))
    targets[np.arange(count), labels] += count / (count + 1)

    def cross_entropy(log_temperature: float) -> float:
        scaled = log_softmax(logits.astype(np.float64) / np.exp(log_temperature), axis=1)
        return float(-(targets * scaled).sum(axis=1).mean())

    bounds = (float(np.log(MIN_TEMPERATURE)), float(np.log(MAX_TEMPERATURE)))
    return float(np.exp(minimize_scalar(cross_entropy, bounds=bounds, method="bounded").x))


def remove_temperature(probabilities: NDArray[np.floating], temperature: float) -> NDArray[np.float64]:
    """What probabilities (N, C) were before logits were divided by a temperature."""
    tiny = np.finfo(np.float32).tiny
    logits = np.log(np.maximum(probabilities.astype(np.float64), tiny)) * temperature
    before: NDArray[np.float64] = np.exp(log_softmax(logits, axis=1))
    return before
