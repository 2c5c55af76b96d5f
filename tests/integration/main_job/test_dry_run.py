"""What a run tries before its first trial, what fails only a trial, and what is not repeated."""

from __future__ import annotations

import json
from pathlib import Path

import mlflow
import numpy as np
import pytest

import transfer_platform.commands.run as run_command
from transfer_model import classifier
from transfer_model.architecture import Architecture, Options
from transfer_model.network import Network
from transfer_platform.commands._trainer import network_variants
from transfer_platform.commands.run import run
from transfer_platform.errors import StudyError, TrainingError
from transfer_platform.recipe.schema import Recipe
from transfer_platform.sources.png import encode_png
from transfer_platform.training import dry_run
from transfer_platform.training.batches import TrialData
from transfer_platform.training.trainer import Trainer


@pytest.fixture
def images(isolated: Path) -> Path:
    """Two classes of twelve images of noise."""
    random = np.random.default_rng(0)
    for index in range(24):
        path = isolated / "images" / "ab"[index % 2] / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_png(random.integers(0, 256, 3 * 32 * 32, dtype=np.uint8).tobytes(), 32, 3))
    return isolated / "images"


def recipe(images: Path, **changes: object) -> Recipe:
    content: dict[str, object] = {
        "name": "small",
        "dataset": {"source": str(images), "splits": {"train": ".", "validation": 0.3, "test": 0.3}, "image_size": 32},
        "backbone": {"name": "timm/test_resnet", "weights": "none", "freeze_through": "layer3"},
        "training": {"epochs": 1, "precision": "float32"},
    }
    return Recipe.model_validate(content | changes)


def interrupted(*_: object) -> None:
    raise KeyboardInterrupt


def test_a_batch_size_that_cannot_be_trained_fails_its_trials_only(images: Path) -> None:
    settings = recipe(
        images,
        training={"epochs": 1, "precision": "float32", "batch_size": {"choices": [1, 4]}},
        search={"trials": 4, "pruning": False},
    )
    outcome = run(settings)
    states = {trial.params["training.batch_size"]: (trial.state, trial.failure) for trial in outcome.study.trials}
    assert states[4] == ("COMPLETE", "")
    state, failure = states[1]
    assert state == "FAIL"
    assert failure.startswith("step 1: batch norm cannot be trained on a batch of one image; set training.batch_size")
    assert run(settings).metrics == outcome.metrics


def test_a_backbone_that_cannot_be_built_fails_its_trials_only(images: Path) -> None:
    messages: list[str] = []
    settings = recipe(
        images,
        backbone={
            "name": {"choices": ["timm/crossvit_tiny_240", "timm/test_resnet"]},
            "weights": "none",
            "freeze_through": "all",
        },
        search={"trials": 6, "pruning": False},
    )
    outcome = run(settings, say=messages.append)
    assert {trial.params["backbone.name"]: trial.state for trial in outcome.study.trials} == {
        "timm/crossvit_tiny_240": "FAIL",
        "timm/test_resnet": "COMPLETE",
    }
    assert any(each.startswith("trials with this network will fail: timm/crossvit_tiny_240") for each in messages)


def test_a_network_with_options_is_trained_and_logged(images: Path) -> None:
    options = {"layers": [1, 1, 1, 1], "shortcut": "A", "stem": "cifar"}
    backbone = {"name": "resnet", "options": options, "weights": "none", "freeze_through": "layer3"}
    outcome = run(recipe(images, backbone=backbone))
    assert outcome.network.spec.backbone == Architecture("resnet", Options(options))
    assert json.loads((outcome.model_folder / "model.json").read_text())["network"]["backbone"]["options"] == options


def test_every_value_of_freeze_through_is_tried(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(network: Network, *_: object) -> None:
        if not network.frozen:
            raise RuntimeError("shapes cannot be multiplied")
        return forward(network, *_)

    forward = Network.forward_with_auxiliary
    monkeypatch.setattr(Network, "forward_with_auxiliary", broken)
    monkeypatch.setattr(Trainer, "train", lambda *_: pytest.fail("a trial was started"))
    stages = {"choices": ["all", "layer3", "none"]}
    settings = recipe(
        images, backbone={"name": "timm/test_resnet", "weights": "none", "freeze_through": stages}, search={"trials": 2}
    )
    with pytest.raises(TrainingError, match="timm/test_resnet, frozen through none, cannot be trained: shapes"):
        run(settings)


def test_a_recipe_whose_trials_would_all_fail_is_refused_before_the_first(images: Path) -> None:
    settings = recipe(images, training={"epochs": 1, "precision": "float32", "batch_size": 1})
    for _ in range(2):
        with pytest.raises(TrainingError, match=r"none of the networks .* can be trained:\n  timm/test_resnet, frozen"):
            run(settings)


def test_a_network_that_cannot_be_served_is_refused_before_the_first_trial(
    images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def save(*_: object) -> None:
        raise RuntimeError("Some tensors share memory")

    monkeypatch.setattr(dry_run, "save", save)
    monkeypatch.setattr(Trainer, "train", lambda *_: pytest.fail("a trial was started"))
    with pytest.raises(TrainingError, match="timm/test_resnet cannot be served: Some tensors share memory"):
        run(recipe(images))


@pytest.mark.parametrize("message", ["CUDA error: unspecified launch failure", "shapes cannot be multiplied"])
def test_an_error_that_does_not_depend_on_the_values_ends_the_run_and_the_next_run_resumes_the_trial(
    images: Path, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError(message)

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "_step", broken)
        with pytest.raises(RuntimeError, match=message):
            run(recipe(images))
    [trace] = images.parent.glob("mlruns/**/failure.txt")
    assert "in broken" in trace.read_text()
    assert [trial.state for trial in run(recipe(images)).study.trials] == ["COMPLETE"]


def test_memory_that_runs_out_outside_of_a_step_fails_the_trial(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(TrialData, "training_batches", exhausted)
    with pytest.raises(StudyError, match=r"trial 0: fail training: MemoryError; set a smaller training.batch_size"):
        run(recipe(images))


def test_a_network_whose_first_step_fails_for_another_reason_ends_the_run_before_the_first_trial(
    images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("shapes cannot be multiplied")

    monkeypatch.setattr(Network, "forward_with_auxiliary", broken)
    monkeypatch.setattr(Trainer, "train", lambda *_: pytest.fail("a trial was started"))
    with pytest.raises(TrainingError, match="timm/test_resnet, frozen through layer3, cannot be trained: shapes"):
        run(recipe(images))


def test_the_dry_run_does_not_change_the_result(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_dry_run = run(recipe(images))
    monkeypatch.setattr(run_command, "dry_run_training", lambda _trainer, recipes, _say: list(recipes))
    monkeypatch.setattr(run_command, "dry_run_serving", lambda *_: None)
    assert run(recipe(images), fresh=True).study.best.value == with_dry_run.study.best.value


@pytest.mark.parametrize("stage", ["layer3", "all"])
def test_a_study_with_folds_that_was_interrupted_after_training_is_not_trained_again(
    images: Path, stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = recipe(
        images,
        dataset={
            "source": str(images),
            "splits": {"train": ".", "validation": {"folds": 2}, "test": 0.3},
            "image_size": 32,
        },
        backbone={"name": "timm/test_resnet", "weights": "none", "freeze_through": stage},
    )
    with monkeypatch.context() as patched:
        patched.setattr(run_command, "conclude", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(settings)
    monkeypatch.setattr(Trainer, "train", lambda *_: pytest.fail("the network was trained again"))
    outcome = run(settings)
    assert "test/accuracy" in outcome.metrics
    assert run(settings).metrics == outcome.metrics


@pytest.mark.parametrize("validation", [0.3, {"folds": 2}], ids=["split", "folds"])
def test_a_nearest_neighbor_study_that_was_interrupted_ends_as_one_that_was_not(
    images: Path, validation: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = recipe(
        images,
        dataset={
            "source": str(images),
            "splits": {"train": ".", "validation": validation, "test": 0.3},
            "image_size": 32,
        },
        backbone={"name": "timm/test_resnet", "weights": "none", "freeze_through": "all"},
        head={"kind": "knn"},
    )
    with monkeypatch.context() as patched:
        patched.setattr(run_command, "conclude", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(settings)
    ends = []
    for fresh in (False, True):
        outcome = run(settings, fresh=fresh)
        test = {name: value for name, value in outcome.metrics.items() if name.startswith("test/")}
        files = [(outcome.model_folder / name).read_bytes() for name in classifier.FILES]
        ends.append((outcome.study.best.value, test, files))
    assert ends[0] == ends[1]
    neighbors = json.loads((outcome.model_folder / "model.json").read_text())["network"]["neighbors"]
    assert neighbors["k"] <= neighbors["images"]
    assert "NeighborClassifier" in mlflow.artifacts.load_text(f"runs:/{outcome.run_id}/network.txt")


def test_one_variant_per_network_with_the_largest_batch(images: Path) -> None:
    settings = recipe(
        images,
        backbone={
            "name": {"choices": ["timm/test_resnet", "resnet18"]},
            "weights": "none",
            "freeze_through": {"choices": ["none", "all"]},
        },
        training={"batch_size": {"low": 1, "high": 16}, "learning_rate": {"low": 1e-4, "high": 1e-2}},
        search={"trials": 2},
    )
    variants = network_variants(settings)
    assert [(each.backbone.name, each.backbone.freeze_through) for each in variants] == [
        (name, stage) for name in ("timm/test_resnet", "resnet18") for stage in ("none", "all")
    ]
    assert {each.training.batch_size for each in variants} == {16}
    assert {each.training.learning_rate for each in variants} == {1e-4}


def test_the_dry_run_leaves_no_files(images: Path) -> None:
    run(recipe(images))
    assert not [*images.parent.glob("studies/**/dry-run-*")]
    assert [*images.parent.glob(f"studies/*/model/{classifier.WEIGHTS_FILE}")]
