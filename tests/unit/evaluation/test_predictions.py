"""Tables of predictions."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from transfer_platform.evaluation.predictions import MAX_PROBABILITY_COLUMNS, Predictions


def predictions(classes: int, images: int) -> Predictions:
    probabilities = np.random.default_rng(0).dirichlet(np.ones(classes), images).astype(np.float32)
    names = tuple(f"class {index}" for index in range(classes))
    paths = [Path(f"/images/{index}.png") for index in range(images)]
    return Predictions(names, paths, np.arange(images) % classes, probabilities)


def test_the_probability_of_every_class_is_listed_if_there_are_few() -> None:
    table = predictions(3, 4).table()
    assert list(table)[:5] == ["file", "label", "predicted", "probability", "label probability"]
    assert list(table)[5:] == ["probability of class 0", "probability of class 1", "probability of class 2"]
    assert table["label probability"][3] == table["probability of class 0"][3]
    assert table["probability"][3] == max(table[f"probability of class {index}"][3] for index in range(3))


@pytest.mark.parametrize("classes", [MAX_PROBABILITY_COLUMNS + 1, 2000])
def test_the_size_of_the_table_does_not_grow_with_the_number_of_classes(classes: int) -> None:
    table = predictions(classes, 200).table()
    assert len(json.dumps(table)) < 200 * 150
