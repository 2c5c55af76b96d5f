"""Solved heads on the features of real networks: their networks are trained, saved and served like any other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from transfer_model.architecture import Architecture
from transfer_model.classifier import Classifier
from transfer_platform.data.dataset import open_dataset
from transfer_platform.data.splits import Splits
from transfer_platform.errors import TrainingError
from transfer_platform.inspection.preflight import preflight, require_valid
from transfer_platform.recipe.schema import Recipe
from transfer_platform.sources.weights import fetch_weights
from transfer_platform.training.artifact import write_artifact
from transfer_platform.training.solved_head import SOLVERS
from transfer_platform.training.trial_trainer import TrialTrainer


def solved(folder: Path, kind: str, validation: object, backbone: str = "efficientnet_lite0") -> tuple[Recipe, Splits]:
    recipe = Recipe.model_validate(
        {
            "name": "solved",
            "dataset": {
                "source": str(folder),
                "splits": {"train": "train", "validation": validation, "test": "val"},
                "image_size": 64,
            },
            "backbone": {"name": backbone},
            "head": {"kind": kind},
        }
    )
    return recipe, require_valid(*preflight(open_dataset(recipe.dataset, folder)))


def make_trainer(recipe: Recipe, splits: Splits) -> TrialTrainer:
    backbone = recipe.backbone.architecture
    weights = fetch_weights(backbone, "default", Path()).path if backbone.name.startswith("efficientnet_lite") else None
    return TrialTrainer(splits, {Architecture.of(backbone): weights}, torch.device("cpu"))


@pytest.mark.parametrize("validation", [0.25, {"folds": 3}], ids=["split", "folds"])
@pytest.mark.parametrize("kind", SOLVERS)
def test_the_served_model_is_the_solution(kind: str, validation: object, few: Path, tmp_path: Path) -> None:
    recipe, splits = solved(few, kind, validation)
    trainer = make_trainer(recipe, splits)
    result = trainer.train(recipe, lambda _: None)
    network = trainer.finalize(recipe, result)
    images = [image.path for image in splits.validation or splits.train]
    classifier = Classifier.load(write_artifact(trainer, recipe, result, network, tmp_path))
    served = classifier.predict_proba(images)
    if splits.validation:
        expected = (result.logits / classifier.config.temperature).softmax(dim=1)
        np.testing.assert_allclose(served, expected, atol=1e-3)  # of the path, and of one value
    else:  # refitted on these images
        labels = [splits.classes.index(image.label) for image in splits.train]
        assert np.mean(served.argmax(axis=1) == labels) >= np.mean(result.logits.argmax(dim=1).numpy() == labels) - 0.05


def test_the_refitted_head_is_logistic_regression_on_all_images(few: Path) -> None:
    recipe, splits = solved(few, "logistic", {"folds": 3})
    trainer = make_trainer(recipe, splits)
    result = trainer.train(recipe, lambda _: None)
    features = trainer.pretrained_features(recipe).numpy()
    labels = [splits.classes.index(image.label) for image in splits.train]
    expected = LogisticRegression(C=result.best.metrics["head/C"], max_iter=10_000, tol=1e-7)
    expected.fit(features, labels)
    network = trainer.finalize(recipe, result)
    positions = range(len(splits.train))
    heads = [module for module in network.modules() if isinstance(module, torch.nn.Linear)]
    with torch.inference_mode():
        logits = heads[-1](trainer.features(recipe, network, positions))
    np.testing.assert_allclose(logits.softmax(dim=1), expected.predict_proba(features), atol=1e-4)


def test_a_network_that_pools_after_its_classifier_is_refused_before_the_first_trial(few: Path) -> None:
    recipe, splits = solved(few, "ridge", 0.25, "squeezenet1_1")
    with pytest.raises(TrainingError, match=r"squeezenet1_1 are not the output of a single head; use head"):
        make_trainer(recipe, splits).dry_run(recipe)
