"""Trials of several phases, and the ladder: each phase starts from what the previous one has learned."""

from __future__ import annotations

import json
from pathlib import Path

import mlflow
import numpy as np
import pytest
import torch

from transfer_model import classifier
from transfer_model.architecture import Architecture
from transfer_model.classifier import Classifier
from transfer_platform.commands.run import run
from transfer_platform.data.dataset import open_dataset
from transfer_platform.data.splits import Splits
from transfer_platform.errors import TrainingError
from transfer_platform.inspection.preflight import preflight, require_valid
from transfer_platform.recipe.ladder import STAGE
from transfer_platform.recipe.schema import Recipe
from transfer_platform.sources.png import encode_png
from transfer_platform.training.artifact import write_artifact
from transfer_platform.training.solved_head import SOLVERS, TEMPERATURE
from transfer_platform.training.trainer import Trainer
from transfer_platform.training.trial_trainer import TrialTrainer

SPLITS = pytest.mark.parametrize("validation", [0.3, {"folds": 2}], ids=["split", "folds"])
CONTRAST = 5.0
"""Amplitude of the stripes that distinguish the classes, in gray values; the noise has a standard deviation of 40."""


@pytest.fixture
def images(isolated: Path) -> Path:
    """Noise with weak horizontal or vertical stripes, which random features hardly recognize."""
    random, stripes = np.random.default_rng(0), np.where(np.arange(32) % 4 < 2, 1, -1)
    for index in range(240):
        pattern = stripes[:, None] if index % 2 else stripes[None, :]
        pixels = 128 + CONTRAST * pattern[..., None] + random.normal(0, 40, (32, 32, 3))
        path = isolated / "images" / "ab"[index % 2] / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_png(pixels.clip(0, 255).astype(np.uint8).tobytes(), 32, 3))
    return isolated / "images"


def recipe(images: Path, validation: object, stage: str = "all", **changes: object) -> Recipe:
    content: dict[str, object] = {
        "name": "phases",
        "dataset": {
            "source": str(images),
            "splits": {"train": ".", "validation": validation, "test": 0.3},
            "image_size": 32,
        },
        "backbone": {"name": "timm/test_resnet", "weights": "none", "freeze_through": stage},
    }
    return Recipe.model_validate(content | changes)


def phases(images: Path, validation: object, stage: str, **training: object) -> Recipe:
    settings = {"initial_phases": [{"head": "logistic"}], "precision": "float32", **training}
    return recipe(images, validation, stage, training=settings)


def trainer_for(settings: Recipe) -> tuple[TrialTrainer, Splits]:
    splits = require_valid(*preflight(open_dataset(settings.dataset, Path())))
    backbone = Architecture.of(settings.backbone.architecture)
    return TrialTrainer(splits, {backbone: None}, torch.device("cpu")), splits


@SPLITS
def test_the_final_phase_starts_from_the_solved_head(images: Path, validation: object) -> None:
    settings = phases(images, validation, "all", epochs=1, learning_rate=1e-12)
    trainer, _ = trainer_for(settings)
    solved = trainer.train(recipe(images, validation, head={"kind": "logistic"}), lambda _: None)
    seen = []
    result = trainer.train(settings, seen.append)
    values = len(SOLVERS["logistic"].values)
    assert [epoch.number for epoch in seen] == list(range(1, values + 2))
    assert seen[: solved.best.number][-1].metrics == pytest.approx(solved.best.metrics, rel=1e-6, abs=0.1)
    at_start, best = seen[-1].metrics["validation/loss"], solved.best.metrics["validation/loss"]
    assert at_start == pytest.approx(best, abs=1e-3)
    assert result.best.metrics["validation/loss"] <= best + 1e-6
    expected = (solved.logits / solved.best.metrics[TEMPERATURE]).softmax(dim=1)
    assert torch.allclose(result.logits.softmax(dim=1), expected, atol=1e-3)


@SPLITS
def test_the_served_model_answers_as_the_trained_one(images: Path, validation: object, tmp_path: Path) -> None:
    settings = phases(images, validation, "none", epochs=12, learning_rate=3e-2, backbone_lr_factor=1.0, batch_size=16)
    trainer, splits = trainer_for(settings)
    result = trainer.train(settings, lambda _: None)
    assert len(result.phases) == 2, "the second phase has learned more than the first"
    network = trainer.finalize(settings, result)
    served = Classifier.load(write_artifact(trainer, settings, result, network, tmp_path / "model"))
    held_out = splits.validation or splits.train
    probabilities = served.predict_proba([image.path for image in held_out])
    if splits.validation:
        np.testing.assert_allclose(probabilities, (result.logits / served.config.temperature).softmax(dim=1), atol=1e-3)
    else:  # trained again on these images, for the same number of epochs
        labels = [splits.classes.index(image.label) for image in held_out]
        assert np.mean(probabilities.argmax(axis=1) == labels) >= result.best.metrics["validation/accuracy"] - 0.05


def with_ladder(images: Path, validation: object, *stages: str) -> Recipe:
    return recipe(
        images,
        validation,
        head={"kind": {"choices": ["logistic", "ridge"]}},
        training={"precision": "float32", "batch_size": 16},
        search={
            "trials": 2,
            "ladder": {"stages": stages or ["none"], "epochs_per_rung": 12, "learning_rates": [1e-2, 3e-2]},
        },
    )


@SPLITS
def test_an_interrupted_ladder_ends_as_one_that_was_not(
    images: Path, validation: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = with_ladder(images, validation)
    epochs = 0
    train = Trainer.train

    def interrupted(trainer: Trainer, epoch: int) -> float:
        nonlocal epochs
        epochs += 1
        if epochs == 8:
            raise KeyboardInterrupt
        return train(trainer, epoch)

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "train", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(settings)
    messages: list[str] = []
    ends = []
    for fresh in (False, True):
        outcome = run(settings, fresh=fresh, say=messages.append)
        files = [(outcome.model_folder / name).read_bytes() for name in classifier.FILES]
        ladder = json.loads(mlflow.artifacts.load_text(f"runs:/{outcome.run_id}/study/ladder.json"))
        trials = [(trial.number, trial.state, trial.value, trial.is_rung) for trial in outcome.study.trials]
        ends.append((trials, ladder, outcome.study.best.number, files))
    assert ends[0] == ends[1]
    assert outcome.study.best.is_rung, "unfreezing helps where the features are random"
    assert outcome.study.best_of_search.number < 2
    assert any("-o search.ladder=null" in message for message in messages)
    assert any("accepted" in message and "standard error" in message for message in messages)
    messages.clear()
    again = run(settings, say=messages.append)
    assert not any("Fine-tuning" in message for message in messages), "the ladder has ended"
    assert again.metrics == outcome.metrics
    assert len(again.study.trials) == len(outcome.study.trials), "finished rungs are not run again"


def test_a_ladder_can_be_added_to_a_finished_study(images: Path) -> None:
    settings = with_ladder(images, 0.3)
    assert settings.search
    plain = settings.model_copy(update={"search": settings.search.model_copy(update={"ladder": None})})
    before = run(plain)
    lower = run(with_ladder(images, 0.3, "layer2", "none"))
    assert not lower.study.best.is_rung, "a rung that is not better ends the ladder"
    assert {trial.params.get(STAGE) for trial in lower.study.trials} == {None, "layer2"}
    after = run(settings)
    assert after.study.name == before.study.name
    assert [trial.number for trial in after.study.trials if not trial.is_rung] == [0, 1]
    assert after.study.best.is_rung
    assert run(plain).study.best.number == before.study.best.number, "without a ladder, the search decides"


def test_a_solved_phase_requires_a_head_whose_output_are_the_logits(images: Path) -> None:
    settings = phases(images, 0.3, "all", epochs=1)
    backbone = settings.backbone.model_copy(update={"name": "squeezenet1_1"})
    settings = settings.model_copy(update={"backbone": backbone})
    trainer, _ = trainer_for(settings)
    with pytest.raises(TrainingError, match=r"squeezenet1_1 are not the output of a single head"):
        trainer.dry_run(settings)


def test_a_rung_that_cannot_be_trained_leaves_the_result_of_the_search(
    images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dry_run = TrialTrainer.dry_run

    def failing(trainer: TrialTrainer, settings: Recipe) -> None:
        if settings.backbone.freeze_through == "none":
            raise RuntimeError("no backward pass for this layer")
        dry_run(trainer, settings)

    monkeypatch.setattr(TrialTrainer, "dry_run", failing)
    messages: list[str] = []
    outcome = run(with_ladder(images, 0.3), say=messages.append)
    assert "test/accuracy" in outcome.metrics
    assert not any(trial.is_rung for trial in outcome.study.trials)
    assert any(message.startswith("the ladder is left out: ") and "no backward pass" in message for message in messages)
