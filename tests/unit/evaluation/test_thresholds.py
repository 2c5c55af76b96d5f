"""Decision thresholds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from transfer_platform.evaluation.predictions import Predictions
from transfer_platform.evaluation.thresholds import class_thresholds, coverage


def predictions(labels: list[int], probabilities_of_bee: list[float]) -> Predictions:
    bee = np.array(probabilities_of_bee, dtype=np.float32)
    paths = [Path(f"{place}.jpg") for place in range(len(labels))]
    return Predictions(("ant", "bee"), paths, np.array(labels), np.stack([1 - bee, bee], axis=1))


def test_thresholds_are_chosen_on_one_set_and_measured_on_the_other() -> None:
    validation = predictions([0, 0, 1, 1], [0.1, 0.3, 0.4, 0.9])
    test = predictions([0, 0, 1, 1], [0.1, 0.6, 0.45, 0.95])
    table = class_thresholds(validation, test)
    bee = {name: column[1] for name, column in table.items()}
    assert bee["threshold"] == pytest.approx(0.4)
    assert (bee["precision"], bee["recall"]) == (1.0, 1.0)
    assert (bee["test precision"], bee["test recall"]) == (pytest.approx(2 / 3), 1.0)


def test_a_class_that_is_never_predicted_has_no_precision() -> None:
    table = class_thresholds(predictions([0, 1], [0.2, 0.9]), predictions([0, 1], [0.1, 0.2]))
    assert (table["test precision"][1], table["test recall"][1]) == (0.0, 0.0)


def test_a_class_without_validation_images_has_no_threshold() -> None:
    table = class_thresholds(predictions([0, 0], [0.2, 0.9]), predictions([0, 1], [0.1, 0.2]))
    assert {name: column[1] for name, column in table.items()} == dict.fromkeys(table, None) | {"class": "bee"}
    assert table["recall"][0] == 1.0


def test_coverage_falls_and_accuracy_is_that_of_the_covered_images() -> None:
    table = coverage(predictions([0, 1, 1], [0.45, 0.65, 0.08]))
    rows = dict(zip(table["confidence"], zip(table["decided"], table["accuracy"], strict=True), strict=True))
    assert rows[0.0] == (1.0, pytest.approx(2 / 3))
    assert rows[0.6] == (pytest.approx(2 / 3), 0.5)
    assert rows[0.9] == (pytest.approx(1 / 3), 0.0)
    assert rows[0.99] == (0.0, None)
