"""Class weights and balanced sampling on imbalanced digits."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from transfer_model.architecture import Architecture
from transfer_platform.data.splits import Splits
from transfer_platform.evaluation.metrics import macro_recall
from transfer_platform.recipe.schema import Recipe
from transfer_platform.sources.builtin import embedded_dataset
from transfer_platform.sources.weights import fetch_weights
from transfer_platform.tensor_store.store import Store
from transfer_platform.training.trial_trainer import TrialTrainer

BACKBONE = "efficientnet_lite0"
RARE = ("3", "8", "9")


@pytest.fixture
def thinned(isolated: Path) -> Path:
    """Six training images of each rare digit and sixty of the others; twenty of each in other splits."""
    source, folder = embedded_dataset("digits"), isolated / "thinned"
    for label in map(str, range(10)):
        files = sorted((source / label).iterdir())
        parts = {"train": files[: 6 if label in RARE else 60], "val": files[100:120], "test": files[120:140]}
        for split, chosen in parts.items():
            (folder / split / label).mkdir(parents=True)
            for path in chosen:
                shutil.copy(path, folder / split / label)
    return folder


def recipe(folder: Path, **changes: dict[str, object]) -> Recipe:
    return Recipe.model_validate(
        {
            "name": "thinned",
            "dataset": {
                "source": str(folder),
                "image_size": 32,
                "splits": {"validation": "val"},
                **changes.get("dataset", {}),
            },
            "backbone": {"name": BACKBONE, **changes.get("backbone", {})},
            "features": changes.get("features", {}),
            "training": {"epochs": 12, "precision": "float32", **changes.get("training", {})},
            "search": {"trials": 1, "metric": "validation/macro_recall"},
        }
    )


@pytest.fixture
def splits(thinned: Path, splits_of) -> Splits:
    return splits_of(thinned, "train", "val", "test")


@pytest.fixture
def fewer(splits: Splits) -> Splits:
    """A third of the training images and a fifth of the validation images; all classes remain."""
    return replace(splits, train=splits.train[::3], validation=splits.validation[::5])


def make_trainer(splits: Splits, store: Path | None = None) -> TrialTrainer:
    weights = {Architecture(BACKBONE): fetch_weights(BACKBONE, "default", Path()).path}
    return TrialTrainer(splits, weights, torch.device("cpu"), trials=50, store=store and Store(store, 10**9))


def test_both_remedies_raise_macro_recall_and_the_recall_of_rare_classes(thinned, splits, tmp_path) -> None:
    trainer = make_trainer(splits, tmp_path / "features")
    labels = np.array([splits.classes.index(image.label) for image in splits.selection])
    rare = np.isin(labels, [splits.classes.index(label) for label in RARE])
    macro, rare_recall = {}, {}
    for name, training in {
        "none": {},
        "weights": {"class_weights": "balanced"},
        "auto": {"class_weights": "auto"},
        "sampling": {"sampling": "balanced"},
    }.items():
        result = trainer.train(recipe(thinned, training=training), lambda _: None)
        predicted = result.logits.argmax(dim=1).numpy()
        macro[name] = result.best.metrics["validation/macro_recall"]
        assert macro[name] == pytest.approx(macro_recall(labels, predicted))
        rare_recall[name] = np.mean(predicted[rare] == labels[rare])
    for remedy in ("weights", "sampling"):
        assert macro[remedy] > macro["none"] + 0.05
        assert rare_recall[remedy] > rare_recall["none"] + 0.15
    assert macro["auto"] == macro["weights"]


def test_stored_views_do_not_change_balanced_sampling(thinned, fewer, tmp_path) -> None:
    settings = recipe(
        thinned,
        dataset={"augmentation": "light"},
        features={"views": 3},
        training={"sampling": "balanced", "epochs": 2},
    )
    stored = make_trainer(fewer, tmp_path / "features").train(settings, lambda _: None)
    assert torch.equal(stored.logits, make_trainer(fewer).train(settings, lambda _: None).logits)
    shuffled = settings.model_copy(update={"training": settings.training.model_copy(update={"sampling": "shuffled"})})
    other = make_trainer(fewer, tmp_path / "features").train(shuffled, lambda _: None)
    assert not torch.equal(stored.logits, other.logits)
