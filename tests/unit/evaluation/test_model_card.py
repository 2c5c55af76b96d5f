from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from transfer_model.model_json import MAX_OOD_SCORE, ModelConfig, OodThreshold
from transfer_model.network import NetworkSpec
from transfer_model.preprocessing import Preprocessing
from transfer_platform.evaluation.model_card import model_card
from transfer_platform.evaluation.predictions import Predictions
from transfer_platform.recipe.schema import Recipe


def card(threshold: float, folder: Path) -> str:
    recipe = Recipe.model_validate(
        {
            "name": "insects",
            "dataset": {"source": str(folder)},
            "backbone": {"name": "resnet18", "weights": "none", "freeze_through": "layer2"},
            "promotion": {"model": "ants-bees"},
        }
    )
    half = (0.5, 0.5, 0.5)
    config = ModelConfig(
        NetworkSpec("resnet18", 2, 0.0, 224),
        ("ants", "bees"),
        Preprocessing(224, 0.875, "bilinear", half, half),
        precision="float32",
        temperature=1.5,
        unknown=OodThreshold(threshold, 0.05),
    )
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7]], dtype=np.float32)
    predictions = Predictions(("ants", "bees"), [Path("x")] * 3, np.array([0, 1, 1]), probabilities)
    images = {"train": (200, "a1"), "test": (3, "b2")}
    return model_card(
        recipe, config, images, predictions, {"test/accuracy": 2 / 3}, "validation/loss 0.0712 ± 0.0031 (5 seeds)"
    )


def test_it_contains_metrics_training_and_preprocessing(tmp_path: Path) -> None:
    text = card(0.4, tmp_path)
    assert text.startswith("# ants-bees\n\nClassifies images into 2 classes: ants, bees.")
    for line in (
        "| test/accuracy | 0.6667 |",
        "| bees | 2 | 1.0000 | 0.5000 |",
        "- 200 train images, fingerprint `a1`",
        "`resnet18` with weights `none`, frozen through `layer2`",
        "- best trial: validation/loss 0.0712 ± 0.0031 (5 seeds)",
        "0.875 times the image's shorter side is resized to 224 x 224 pixels",
        "out-of-distribution score exceeds 0.4, which corresponds to a false alarm rate of 5.0% on images",
    ):
        assert line in text


def test_it_states_that_no_image_is_flagged_as_unknown(tmp_path: Path) -> None:
    assert "No image is flagged as unknown, because no threshold guarantees a false alarm rate of 5.0%" in card(
        MAX_OOD_SCORE, tmp_path
    )


@pytest.mark.parametrize("heading", ["Evaluation", "Training", "Preprocessing", "Limitations"])
def test_its_sections_are_headings(tmp_path: Path, heading: str) -> None:
    headings = [line for line in card(0.4, tmp_path).splitlines() if line.startswith("## ")]
    assert any(line.endswith(heading) for line in headings)
