"""Training on stored features equals training on recomputed ones, bitwise."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torchvision.transforms.functional import to_tensor

from transfer_model.architecture import Architecture
from transfer_platform.data.splits import Splits
from transfer_platform.progress import Step
from transfer_platform.recipe.schema import FoldsConfig, Recipe
from transfer_platform.sources.weights import fetch_weights
from transfer_platform.tensor_store.store import Store
from transfer_platform.training.loop import FitResult
from transfer_platform.training.trial_trainer import TrialTrainer

BACKBONE = "efficientnet_lite0"
TRAINED = Path(__file__).parents[3] / "benchmarks" / "ants_bees_trained.yaml"


def recipe(folder: Path, through: str, **changes: dict[str, object]) -> Recipe:
    return Recipe.model_validate(
        {
            "name": "few",
            "dataset": {"source": str(folder), "image_size": 64, **changes.get("dataset", {})},
            "backbone": {"name": BACKBONE, "freeze_through": through},
            "features": changes.get("features", {}),
            "head": {"dropout": 0.2},
            "training": {"epochs": 3, "batch_size": 8, "precision": "float32", **changes.get("training", {})},
        }
    )


def fit(settings: Recipe, splits: Splits, store: Store | None, progress: list[Step] | None = None) -> FitResult:
    weights = {Architecture(BACKBONE): fetch_weights(BACKBONE, "default", Path()).path}
    steps = progress if progress is not None else []
    trainer = TrialTrainer(splits, weights, torch.device("cpu"), trials=50, store=store, progress=steps.append)
    return trainer.train(settings, lambda _: None)


def computed(steps: list[Step]) -> int:
    """Number of images whose features were computed."""
    return max((step.total or 0 for step in steps if step.task.startswith("extracting features")), default=0)


def assert_equal(one: FitResult, other: FitResult) -> None:
    """Bitwise equal: the same tensors were computed, in the same batches."""
    for epoch, other_epoch in zip(one.epochs, other.epochs, strict=True):
        for loss in ("train/loss", "validation/loss"):
            assert epoch.metrics[loss] == other_epoch.metrics[loss]
    assert torch.equal(one.logits, other.logits)


@pytest.fixture
def splits(few: Path, isolated: Path, splits_of) -> Splits:
    return splits_of(few, "train", 0.25, "val")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "features", 10**9)


@pytest.mark.parametrize("through", ["blocks.1", "blocks.4", "all"])
def test_stored_features_do_not_change_training(few, splits, store, through: str) -> None:
    settings, steps = recipe(few, through), []
    assert_equal(fit(settings, splits, store, steps), fit(settings, splits, None))
    assert computed(steps) == len(splits.development)


@pytest.mark.parametrize("batch_size", [5, 16])
def test_stored_features_do_not_depend_on_the_batch_size(few, splits, store, batch_size: int) -> None:
    settings = recipe(few, "blocks.4", training={"batch_size": batch_size, "learning_rate": 1e-2})
    assert_equal(fit(settings, splits, store), fit(settings, splits, None))


def test_stored_views_do_not_change_training(few, splits, store) -> None:
    settings = recipe(few, "blocks.4", dataset={"augmentation": "medium"}, features={"views": 2})
    steps: list[Step] = []
    stored = fit(settings, splits, store, steps)
    assert_equal(stored, fit(settings, splits, None))
    assert computed(steps) == 2 * len(splits.train)
    plain = fit(recipe(few, "blocks.4"), splits, store)
    assert stored.epochs[-1].metrics["train/loss"] != plain.epochs[-1].metrics["train/loss"]


def test_stored_features_do_not_change_cross_validation(few, isolated, store, splits_of) -> None:
    splits = splits_of(few, "train", FoldsConfig(folds=4), "val")
    settings = recipe(few, "all", dataset={"splits": {"validation": {"folds": 4}, "test": "val"}})
    stored = fit(settings, splits, store)
    assert_equal(stored, fit(settings, splits, None))
    assert stored.logits.shape == (40, 2)


def test_a_second_study_computes_features_of_changed_images_only(few, store, isolated, splits_of) -> None:
    own = isolated / "photographs"
    shutil.copytree(few, own)
    settings = recipe(own, "all")
    fit(settings, splits_of(own, "train", 0.25, "val"), store)
    second: list[Step] = []
    fit(settings, splits_of(own, "train", 0.25, "val"), store, second)
    assert computed(second) == 0
    changed = next((own / "train" / "ants").iterdir())
    next((own / "val" / "bees").iterdir()).replace(changed)
    third: list[Step] = []
    fit(settings, splits_of(own, "train", 0.25, "val"), store, third)
    assert computed(third) == 1


def test_corrupted_features_are_computed_again(few, splits, store, tmp_path) -> None:
    settings = recipe(few, "all")
    before = fit(settings, splits, store)
    (segment,) = (tmp_path / "features").rglob("*.rows")
    content = bytearray(segment.read_bytes())
    content[100:5000:7] = bytes(byte ^ 0xFF for byte in content[100:5000:7])
    segment.write_bytes(content)
    steps: list[Step] = []
    assert_equal(fit(settings, splits, store, steps), before)
    assert computed(steps) >= 1


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A full file system of three megabytes; a plain folder if none can be mounted."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)]
    mounted = subprocess.run(mount, capture_output=True).returncode == 0
    if mounted:
        with contextlib.suppress(OSError), (folder / "filler").open("wb", buffering=0) as filler:
            while filler.write(bytes(4096)):
                pass
    yield folder
    if mounted:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def _dataset(folder: Path) -> str:
    splits = "{train: train, validation: 0.25, test: val}"
    return f"dataset={{source: {folder}, splits: {splits}, image_size: 64, exclude: []}}"


def run_of(place: object, few: Path, *more: str) -> str:
    overrides = [
        _dataset(few),
        "search.trials=2",
        "training.epochs=2",
        "backbone.freeze_through=blocks.2",
        "promotion=null",
        *more,
    ]
    arguments = [part for override in overrides for part in ("-o", override)]
    out, err = place.run("platform", "run", TRAINED, *arguments)
    return out + err


def scores(output: str) -> list[float]:
    return [float(score) for score in re.findall(r"test/\w+ (\d+\.\d+)", output)]


def test_a_full_disk_does_not_change_the_results(few, workplaces: Callable, full_disk: Path) -> None:
    roomy, full = workplaces("roomy"), workplaces("full")
    full.environment["PLATFORM_CACHE"] = str(full_disk)
    full.environment["PLATFORM_CACHE_LIMIT"] = "100kB"  # so that a plain folder has no room either
    assert "the cache has no room" in (output := run_of(full, few))
    assert scores(output) == scores(run_of(roomy, few))


def test_two_concurrent_studies_compute_features_once(few, workplaces: Callable, tmp_path: Path) -> None:
    both = [workplaces("one"), workplaces("other")]
    for place in both:
        place.environment["PLATFORM_CACHE"] = str(tmp_path / "shared")
    arguments = ["platform", "run", TRAINED, "-o", "search.trials=2", "-o", "training.epochs=1"]
    arguments += ["-o", "promotion=null", "-o", "backbone.freeze_through=blocks.2"]
    arguments += ["-o", _dataset(few)]
    differing = ("seed=1", "head.dropout=0.25")
    processes = [place.start(*arguments, "-o", change) for change, place in zip(differing, both, strict=True)]
    for process in processes:
        _, err = process.communicate(timeout=600)
        assert process.returncode == 0, err
    (address,) = (path for path in (tmp_path / "shared" / "features").iterdir() if path.name != ".locks")
    keys = [key for path in address.glob("*.rows") for key in json.loads(_footer(path))["keys"]]
    assert len(keys) == len(set(keys)) == 40, "the features of each photograph are computed once"


def _footer(segment: Path) -> bytes:
    """Footer of a segment file, see `tensor_store.segment`."""
    content = segment.read_bytes()
    length = int.from_bytes(content[-24:-16], "little")
    return content[-24 - length : -24]


def test_a_trial_does_not_depend_on_earlier_trials(few, splits, store) -> None:
    weights = {Architecture(BACKBONE): fetch_weights(BACKBONE, "default", Path()).path}
    trainer = TrialTrainer(splits, weights, torch.device("cpu"), trials=50, store=store, cached_networks=1)
    first = trainer.train(recipe(few, "all"), lambda _: None)
    trainer.train(recipe(few, "blocks.5"), lambda _: None)  # evicts the first network
    rebuilt = trainer.train(recipe(few, "all"), lambda _: None)
    trainer.train(recipe(few, "all"), lambda _: None)
    repeated = trainer.train(recipe(few, "all"), lambda _: None)
    assert torch.equal(first.logits, rebuilt.logits)
    assert torch.equal(first.logits, repeated.logits)


@pytest.mark.parametrize("through", ["none", "blocks.5", "all"])
@pytest.mark.parametrize("weights", ["default", "none"])
def test_a_trainer_with_another_seed_gives_the_results_of_a_new_one(few, splits, store, through, weights) -> None:
    path = fetch_weights(BACKBONE, "default", Path()).path if weights == "default" else None
    new = [TrialTrainer(splits, {Architecture(BACKBONE): path}, torch.device("cpu"), store=store) for _ in range(3)]
    first, second = (recipe(few, through).model_copy(update={"seed": seed}) for seed in (0, 1))
    results = [new[0].train(each, lambda _: None) for each in (first, second, first)]
    assert_equal(results[1], new[1].train(second, lambda _: None))
    assert_equal(results[2], new[2].train(first, lambda _: None))
    assert not torch.equal(results[0].logits, results[1].logits)


def test_the_first_batch_shows_the_images_without_normalization(few, splits) -> None:
    settings = recipe(few, "all")
    trainer = TrialTrainer(splits, {Architecture(BACKBONE): None}, torch.device("cpu"))
    images, labels = trainer.first_batch(settings)
    assert images.shape == (8, 3, 64, 64)
    preprocessing = trainer.preprocessing(settings)
    by_label = {label: [image.path for image in splits.train if image.label == label] for label in splits.classes}
    for image, label in zip(images, labels, strict=True):
        squares = [to_tensor(preprocessing.load(path)) for path in by_label[label]]
        differences = [(image - square).abs().max() for square in squares]
        assert min(differences) < 1e-5
