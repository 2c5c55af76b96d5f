"""Artifacts of trials: calibration and out-of-distribution thresholds."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from transfer_model.architecture import Architecture
from transfer_model.classifier import Classifier, ClassifierOutput
from transfer_model.model_json import MAX_OOD_SCORE
from transfer_model.network import Network
from transfer_model.ood import OodScorer
from transfer_platform.data.splits import Splits
from transfer_platform.evaluation.metrics import cross_entropy
from transfer_platform.progress import Say, silent
from transfer_platform.recipe.schema import FoldsConfig, Recipe
from transfer_platform.sources.png import encode_png
from transfer_platform.sources.weights import fetch_weights
from transfer_platform.tensor_store.store import Store
from transfer_platform.training.artifact import write_artifact
from transfer_platform.training.trial_trainer import TrialTrainer

BACKBONE = "efficientnet_lite0"
FALSE_ALARMS = 0.2


def recipe(folder: Path, through: str, **changes: object) -> Recipe:
    return Recipe.model_validate(
        {
            "name": "strict",
            "dataset": {"source": str(folder), "image_size": 64},
            "backbone": {"name": BACKBONE, "freeze_through": through},
            "training": {"epochs": 6, "learning_rate": 3e-3, "backbone_lr_factor": 1.0, "precision": "float32"},
            "promotion": {"model": "strict", "false_alarms": FALSE_ALARMS},
            **changes,
        }
    )


def export(
    settings: Recipe, splits: Splits, folder: Path, say: Say = silent
) -> tuple[Classifier, TrialTrainer, Network]:
    weights = {Architecture(BACKBONE): fetch_weights(BACKBONE, "default", Path()).path}
    trainer = TrialTrainer(splits, weights, torch.device("cpu"), store=Store(folder / "features", 10**9))
    result = trainer.train(settings, lambda _: None)
    network = trainer.finalize(settings, result)
    model = write_artifact(trainer, settings, result, network, folder / "model", say)
    return Classifier.load(model), trainer, network


def unknown_rate(classifier: Classifier, output: ClassifierOutput) -> float:
    return float(np.mean(output.ood_scores > classifier.config.unknown.threshold))


@pytest.fixture
def split(photographs: Path, splits_of: Callable[..., Splits]) -> Callable[[int], Splits]:
    """Splits the photographs, with a number of folds or without."""
    stray = ["train/ants/imageNotFound.gif"]
    present = [name for name in stray if (photographs / name).exists()]
    return lambda folds: splits_of(
        photographs, "train", FoldsConfig(folds=folds) if folds else 0.3, "val", exclude=present
    )


@pytest.mark.parametrize(
    ("through", "folds"), [("all", 0), ("blocks.4", 0), ("blocks.4", 3)], ids=["head", "fraction", "folds"]
)
def test_the_false_alarm_rate_is_the_configured_one(
    photographs: Path, isolated: Path, through: str, folds: int, split
) -> None:
    splits = split(folds)
    classifier, _, _ = export(recipe(photographs, through), splits, isolated)
    output = classifier.predict([image.path for image in splits.test])
    # Three standard errors of the 74 images, or more, that the threshold was set on, and of the 153 tested.
    assert unknown_rate(classifier, output) == pytest.approx(FALSE_ALARMS, abs=3 * (0.16 / 74 + 0.16 / 153) ** 0.5)
    labels = np.array([splits.classes.index(image.label) for image in splits.test])
    assert cross_entropy(labels, output.probabilities) < np.log(2)


def test_a_threshold_from_training_images_would_be_too_strict(photographs: Path, isolated: Path, split) -> None:
    splits, settings = split(0), recipe(photographs, "blocks.4")
    classifier, trainer, network = export(settings, splits, isolated)
    features = trainer.features(settings, network, range(len(splits.train)))
    limit = float(OodScorer(features).leave_one_out().quantile(1 - FALSE_ALARMS))
    assert limit < 0.8 * classifier.config.unknown.threshold


def test_too_few_held_out_images_are_reported(photographs: Path, isolated: Path, splits_of) -> None:
    stray = [name for name in ["train/ants/imageNotFound.gif"] if (photographs / name).exists()]
    splits = splits_of(photographs, "train", 0.05, "val", exclude=stray)
    messages: list[str] = []
    settings = recipe(photographs, "blocks.5", promotion={"model": "strict", "false_alarms": 0.05})
    classifier, _, _ = export(settings, splits, isolated, messages.append)
    assert classifier.config.unknown.threshold == MAX_OOD_SCORE
    count = len(splits.validation)
    assert messages[-1] == (
        "out-of-distribution detection is disabled: a false-alarm rate of 5.0% needs at least "
        f"19 held-out images, but there are {count}"
    )


def test_folds_are_pooled_until_there_are_enough_images(photographs: Path, isolated: Path, split) -> None:
    splits = split(20)
    settings = recipe(photographs, "blocks.5", promotion={"model": "strict", "false_alarms": 0.05})
    classifier, _, _ = export(settings, splits, isolated)
    assert classifier.config.unknown.threshold < MAX_OOD_SCORE


def test_duplicate_training_images_do_not_change_the_threshold(
    photographs: Path, isolated: Path, tmp_path: Path, splits_of
) -> None:
    thresholds = []
    for copies in (1, 2):
        folder = tmp_path / str(copies)
        shutil.copytree(photographs / "val", folder / "test")
        for image in sorted((photographs / "train").glob("*/*.jpg")):
            (folder / "train" / image.parent.name).mkdir(parents=True, exist_ok=True)
            for number in range(copies):
                shutil.copy(image, folder / "train" / image.parent.name / f"{number}_{image.name}")
        splits = splits_of(folder, "train", 0.3, "test")
        short = recipe(folder, "all", training={"epochs": 1, "precision": "float32"})
        classifier, _, _ = export(short, splits, isolated / str(copies))
        thresholds.append(classifier.config.unknown.threshold)
    assert thresholds[0] == pytest.approx(thresholds[1], rel=1e-6)


def test_noise_is_out_of_distribution(photographs: Path, isolated: Path, tmp_path: Path, split) -> None:
    from PIL import Image

    classifier, _, _ = export(recipe(photographs, "all"), split(0), isolated)
    random = np.random.default_rng(0)
    for index in range(20):
        Image.fromarray(random.integers(0, 256, (80, 80, 3), dtype=np.uint8)).save(tmp_path / f"{index}.png")
    assert unknown_rate(classifier, classifier.predict(sorted(tmp_path.glob("*.png")))) == 1.0


def test_collapsed_features_give_a_model_without_a_threshold_and_a_warning(isolated: Path, splits_of) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (60, 3072), dtype=np.uint8)
    for index, row in enumerate(pixels):
        path = isolated / "images" / "ab"[index % 2] / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_png(row.tobytes(), 32))
    splits = splits_of(isolated / "images", ".", 0.3, 0.3)
    # With random weights, CaiT computes the same features for every image.
    settings = recipe(
        isolated / "images",
        "all",
        dataset={"source": str(isolated / "images"), "image_size": 32},
        backbone={"name": "timm/cait_xxs24_224", "weights": "none", "freeze_through": "all"},
        training={"epochs": 1, "precision": "float32"},
    )
    trainer = TrialTrainer(splits, {Architecture("timm/cait_xxs24_224"): None}, torch.device("cpu"))
    result = trainer.train(settings, lambda _: None)
    messages: list[str] = []
    model = write_artifact(
        trainer, settings, result, trainer.finalize(settings, result), isolated / "model", messages.append
    )
    classifier = Classifier.load(model)
    assert classifier.config.unknown.threshold == MAX_OOD_SCORE
    assert "the network's features do not distinguish the images" in messages[-1]
    assert unknown_rate(classifier, classifier.predict([image.path for image in splits.test])) == 0
