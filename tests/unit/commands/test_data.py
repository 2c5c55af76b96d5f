"""Inspection of a dataset with features."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from transfer_platform.commands import data
from transfer_platform.training.trial_trainer import TrialTrainer


def test_findings_do_not_depend_on_how_fast_each_precision_is(
    isolated: Path, write_image: Callable[[Path, str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [f"{label}/{number}" for label in "ab" for number in range(8)]:
        write_image(isolated / "images" / f"{name}.png", name)
    recipe = isolated / "recipe.yaml"
    recipe.write_text(
        "name: two\n"
        "dataset: {source: images, image_size: 32, splits: {train: ., validation: 0.34, test: 0.31}}\n"
        "backbone: {name: efficientnet_lite0}\n",
        encoding="utf-8",
    )
    fastest = itertools.cycle(["bfloat16", "float32"])
    monkeypatch.setattr(TrialTrainer, "select_precision", lambda *_: next(fastest))
    features: list[np.ndarray] = []
    monkeypatch.setattr(data, "find_outliers", lambda _, extracted: features.append(extracted) or [])
    for _ in range(2):
        report = data.inspect_dataset(recipe, device="cpu")
        assert features, report.text
    assert np.array_equal(*features)
