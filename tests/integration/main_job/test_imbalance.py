"""Real digits, some of them with a tenth of the images: what the remedies do."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from transfer_platform.data.splits import Splits
from transfer_platform.evaluation.metrics import macro_recall
from transfer_platform.recipe.schema import Recipe
from transfer_platform.sources.embedded import embedded_dataset
from transfer_platform.sources.weights import fetch_weights
from transfer_platform.tensor_store import Store
from transfer_platform.training.trial_trainer import TrialTrainer

BACKBONE = "efficientnet_lite0"
RARE = ("3", "8", "9")


@pytest.fixture
def thinned(isolated: Path) -> Path:
    """Six images of each rare digit to learn from, sixty of each other; twenty of every digit elsewhere."""
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
    """A third of the training images and a fifth of those for validation; still of every class."""
    return replace(splits, train=splits.train[::3], validation=splits.validation[::5])


def bench(splits: Splits, store: Path | None = None) -> TrialTrainer:
    weights = {BACKBONE: fetch_weights(BACKBONE, "default", Path()).path}
    return TrialTrainer(
        splits,
        weights,
        torch.device("cpu"),
        trials=50,
        store=store and Store(store, 10**9),
    )


def test_both_remedies_raise_macro_recall_and_that_of_the_rare_classes(thinned, splits, tmp_path) -> None:
    made = bench(splits, tmp_path / "features")
    labels = np.array([splits.classes.index(image.label) for image in splits.selection])
    rare = np.isin(labels, [splits.classes.index(label) for label in RARE])
    macro, of_the_rare = {}, {}
    for name, training in {
        "none": {},
        "weights": {"class_weights": "balanced"},
        "auto": {"class_weights": "auto"},
        "draws": {"sampling": "balanced"},
    }.items():
        fitted = made.train(recipe(thinned, training=training), lambda _: None)
        predicted = fitted.logits.argmax(dim=1).numpy()
        macro[name] = fitted.best.metrics["validation/macro_recall"]
        assert macro[name] == pytest.approx(macro_recall(labels, predicted))
        of_the_rare[name] = np.mean(predicted[rare] == labels[rare])
    for remedy in ("weights", "draws"):
        assert macro[remedy] > macro["none"] + 0.05
        assert of_the_rare[remedy] > of_the_rare["none"] + 0.15
    assert macro["auto"] == macro["weights"]


def test_balanced_draws_of_views_are_the_same_stored_or_not(thinned, fewer, tmp_path) -> None:
    settings = recipe(
        thinned,
        dataset={"augmentation": "light"},
        features={"views": 3},
        training={"sampling": "balanced", "epochs": 2},
    )
    stored = bench(fewer, tmp_path / "features").train(settings, lambda _: None)
    assert torch.equal(stored.logits, bench(fewer).train(settings, lambda _: None).logits)
    shuffled = settings.model_copy(
        update={"training": settings.training.model_copy(update={"sampling": "shuffled"})}
    )
    other = bench(fewer, tmp_path / "features").train(shuffled, lambda _: None)
    assert not torch.equal(stored.logits, other.logits)
