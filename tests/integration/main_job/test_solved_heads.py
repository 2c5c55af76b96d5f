"""Solved heads on the features of real networks: their networks are trained, saved and served like any other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

from transfer_model.architecture import Architecture
from transfer_model.classifier import Classifier
from transfer_platform.commands._trainer import network_variants
from transfer_platform.data.dataset import open_dataset
from transfer_platform.data.splits import Splits
from transfer_platform.errors import TrainingError
from transfer_platform.inspection.preflight import preflight, require_valid
from transfer_platform.recipe.schema import Recipe
from transfer_platform.solvers.neighbors import SMOOTHING
from transfer_platform.sources.weights import fetch_weights
from transfer_platform.training import neighbor_size
from transfer_platform.training.artifact import write_artifact
from transfer_platform.training.dry_run import dry_run_serving, dry_run_training
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


def test_the_served_neighbors_are_those_of_scikit_learn(few: Path, tmp_path: Path) -> None:
    recipe, splits = solved(few, "knn", {"folds": 3})
    trainer = make_trainer(recipe, splits)
    result = trainer.train(recipe, lambda _: None)
    classifier = Classifier.load(
        write_artifact(trainer, recipe, result, trainer.finalize(recipe, result), tmp_path / "model")
    )
    features = trainer.pretrained_features(recipe).numpy()
    labels = [splits.classes.index(image.label) for image in splits.train]
    k = int(result.best.metrics["head/k"])
    expected = KNeighborsClassifier(k, metric="cosine", weights=lambda distance: np.exp((1 - distance) / 0.07))
    votes = expected.fit(features, labels).predict_proba(features)
    smooth = (1 - SMOOTHING) * votes + SMOOTHING / len(splits.classes)
    powers = smooth ** (1 / classifier.config.temperature)
    served = classifier.predict([image.path for image in splits.train])
    np.testing.assert_allclose(served.probabilities, powers / powers.sum(axis=1, keepdims=True), atol=1e-3)
    assert served.ood_scores.max() < 1e-3  # every image is one of the reference
    assert classifier.config.network.neighbors is not None
    assert (classifier.config.network.neighbors.images, classifier.config.network.neighbors.k) == (len(labels), k)


def test_kinds_of_heads_share_a_network_without_changing_it(few: Path) -> None:
    neighbors, splits = solved(few, "knn", 0.25)
    ridge = neighbors.model_copy(update={"head": neighbors.head.model_copy(update={"kind": "ridge"})})
    trainer = make_trainer(neighbors, splits)
    before = trainer.train(ridge, lambda _: None)
    trainer.finalize(neighbors, trainer.train(neighbors, lambda _: None))
    after = trainer.train(ridge, lambda _: None)
    assert torch.equal(before.logits, after.logits)
    assert before.weights.keys() == after.weights.keys() > set()
    assert trainer.finalize(ridge, after).spec.neighbors is None


def test_the_dry_run_serves_a_head_of_each_form(few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe, splits = solved(few, "knn", 0.25)
    searched = Recipe.model_validate(
        {**recipe.model_dump(), "head": {"kind": {"choices": ["ridge", "logistic", "knn"]}}, "search": {"trials": 3}}
    )
    trainer = make_trainer(recipe, splits)
    forms: list[object] = []
    load = Classifier.load
    monkeypatch.setattr(Classifier, "load", lambda folder: forms.append((loaded := load(folder)).config) or loaded)
    recipes = dry_run_training(trainer, network_variants(searched), pytest.fail)
    assert [each.head.kind for each in recipes] == ["ridge", "knn"]
    dry_run_serving(trainer, recipes, tmp_path)
    linear, stored = (config.network.neighbors for config in forms)
    assert linear is None
    assert stored.images == len(splits.train)


def test_too_many_images_are_refused_before_the_first_trial(few: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe, splits = solved(few, "knn", 0.25)
    monkeypatch.setattr(neighbor_size, "MAX_BYTES", 100_000)
    message = (
        "head.kind: knn would store 1,280 features of efficientnet_lite0 for each of 30 training images: 153.6 kB, but "
        "at most 100.0 kB are allowed; use head.kind: logistic or ridge, or a backbone with fewer features"
    )
    with pytest.raises(TrainingError) as caught:
        make_trainer(recipe, splits).dry_run(recipe)
    assert str(caught.value) == message
