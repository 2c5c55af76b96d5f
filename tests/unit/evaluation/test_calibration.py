from __future__ import annotations

import numpy as np
import pytest
from scipy.special import log_softmax

from transfer_platform.evaluation.calibration import (
    calibration_curve,
    expected_calibration_error,
    fit_temperature,
    remove_temperature,
)
from transfer_platform.evaluation.metrics import cross_entropy

LABELS = np.array([0, 0, 1, 1, 2])
PROBABILITIES = np.array([[0.9, 0.05, 0.05], [0.2, 0.7, 0.1], [0.1, 0.8, 0.1], [0.3, 0.6, 0.1], [0.25, 0.25, 0.5]])


def overconfident_logits(temperature: float, count: int = 20_000) -> tuple[np.ndarray, np.ndarray]:
    """Logits that are calibrated after division by a temperature, and labels sampled accordingly."""
    random = np.random.default_rng(0)
    calibrated = random.normal(scale=2, size=(count, 4))
    probabilities = np.exp(log_softmax(calibrated, axis=1))
    labels = (probabilities.cumsum(axis=1) < random.random((count, 1))).sum(axis=1).clip(0, 3)
    return calibrated * temperature, labels


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_temperature_is_recovered(temperature: float) -> None:
    assert fit_temperature(*overconfident_logits(temperature)) == pytest.approx(temperature, rel=0.03)


def test_it_lowers_the_cross_entropy() -> None:
    logits, labels = overconfident_logits(3.0, 500)
    temperature = fit_temperature(logits, labels)
    before, after = (np.exp(log_softmax(logits / divisor, axis=1)) for divisor in (1, temperature))
    assert cross_entropy(labels, after) < cross_entropy(labels, before) - 0.1


def test_a_few_images_without_a_mistake_do_not_lead_to_unlimited_confidence() -> None:
    logits, labels = np.array([[2.0, -2.0], [-2.0, 2.0]] * 10), np.array([0, 1] * 10)
    calibrated = np.exp(log_softmax(logits / fit_temperature(logits, labels), axis=1)).max()
    assert calibrated == pytest.approx(20.5 / 21, abs=1e-3)


def test_a_nearly_perfect_network_of_many_classes_stays_confident() -> None:
    random = np.random.default_rng(0)
    labels = np.arange(200) % 10
    logits = random.normal(scale=1, size=(200, 10))
    logits[np.arange(200), labels] += 9
    calibrated = np.exp(log_softmax(logits / fit_temperature(logits, labels), axis=1))
    assert calibrated[np.arange(200), labels].mean() > 0.985


def test_calibration_can_be_removed() -> None:
    logits, _ = overconfident_logits(1.0, 50)
    before, after = (np.exp(log_softmax(logits / divisor, axis=1)) for divisor in (1, 2.5))
    np.testing.assert_allclose(remove_temperature(after.astype(np.float32), 2.5), before, rtol=1e-4)


def test_calibration_error_by_hand() -> None:
    # Two bins of five: confidences 0.5 | 0.9, 0.7, 0.8, 0.6, with 0.7 being the mistake.
    error = (1 * abs(0.5 - 1) + 1 * abs(0.6 - 1) + 1 * abs(0.7 - 0) + 1 * abs(0.8 - 1) + 1 * abs(0.9 - 1)) / 5
    assert expected_calibration_error(LABELS, PROBABILITIES) == pytest.approx(error)


def test_full_confidence_belongs_to_the_last_bin() -> None:
    confidence, accuracy, counts = calibration_curve(np.array([0]), np.array([[1.0, 0.0]]))
    assert (confidence.tolist(), accuracy.tolist(), counts.tolist()) == ([1.0], [1.0], [1])
