"""Metrics compared with manual results and with scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from sklearn.metrics import f1_score, log_loss, recall_score

from transfer_platform.evaluation.metrics import cross_entropy, macro_f1, macro_recall, per_class, scores

LABELS = np.array([0, 0, 1, 1, 2])
PROBABILITIES = np.array([[0.9, 0.05, 0.05], [0.2, 0.7, 0.1], [0.1, 0.8, 0.1], [0.3, 0.6, 0.1], [0.25, 0.25, 0.5]])


def test_scores_by_hand() -> None:
    metrics = scores(LABELS, PROBABILITIES)
    assert metrics["accuracy"] == 0.8
    assert metrics["loss"] == pytest.approx(-np.log([0.9, 0.2, 0.8, 0.6, 0.5]).mean())
    # F1: class 0 2*1/(2+1), class 1 2*2/(2+3), class 2 1
    assert metrics["macro_f1"] == pytest.approx((2 / 3 + 4 / 5 + 1) / 3)


def test_a_class_without_images_or_predictions_has_zeros() -> None:
    metrics = per_class(np.array([0, 0]), np.array([0, 0]), 3)
    assert metrics["support"].tolist() == [2, 0, 0]
    assert metrics["f1"].tolist() == [1, 0, 0]


def test_an_impossible_label_has_a_finite_loss() -> None:
    assert np.isfinite(cross_entropy(np.array([0]), np.array([[0.0, 1.0]])))


@given(
    arrays.arrays(np.float64, (7, 4), elements=st.floats(0.01, 1)), st.lists(st.integers(0, 3), min_size=7, max_size=7)
)
def test_cross_entropy_agrees_with_scikit_learn(raw: np.ndarray, labels: list[int]) -> None:
    probabilities = raw / raw.sum(axis=1, keepdims=True)
    expected = log_loss(labels, probabilities, labels=range(4))
    assert cross_entropy(np.array(labels), probabilities) == pytest.approx(expected)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=12))
def test_macro_metrics_agree_with_scikit_learn(pairs: list[tuple[int, int]]) -> None:
    labels, predicted = np.array(pairs).T
    assert macro_f1(labels, predicted) == pytest.approx(f1_score(labels, predicted, average="macro"))
    recalls = recall_score(labels, predicted, labels=np.unique(labels), average="macro", zero_division=0)
    assert macro_recall(labels, predicted) == pytest.approx(recalls)
