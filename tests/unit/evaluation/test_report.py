"""Markdown reports on evaluations."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from transfer_platform.evaluation.predictions import Predictions
from transfer_platform.evaluation.report import class_table, evaluation_report, threshold_report


def test_classes_without_images_have_dashes() -> None:
    probabilities = np.array([[0.9, 0.1, 0, 0], [0.1, 0.9, 0, 0], [0.1, 0, 0.9, 0]], dtype=np.float32)
    labels = np.array([0, 1, 1])
    predictions = Predictions(("ant", "bee", "cat", "dog"), [Path("x")] * 3, labels, probabilities)
    lines = evaluation_report("Evaluation", {}, predictions, {}).splitlines()
    assert lines[-4:] == [
        "| ant | 1 | 1.0000 | 1.0000 | 1.0000 |",
        "| bee | 2 | 1.0000 | 0.5000 | 0.6667 |",
        "| cat | 0 | 0.0000 | - | - |",  # one image is predicted as cat
        "| dog | 0 | - | - | - |",
    ]
    assert class_table(predictions)["recall"] == [1, 0.5, 0, 0]


def test_a_class_without_threshold_has_dashes() -> None:
    text = threshold_report({"class": ["ant", "bee"], "threshold": [0.5, None]}, {}, 3)
    assert "| bee | - |" in text
