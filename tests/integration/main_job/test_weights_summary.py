"""A run says which tensors of a weights file it used, and why it refuses a file."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor

from transfer_model.architecture import Architecture
from transfer_model.errors import ModelError
from transfer_platform.commands.check import describe_plan
from transfer_platform.errors import TrainingError
from transfer_platform.recipe.schema import Recipe
from transfer_platform.sources.builtin import embedded_dataset
from transfer_platform.training.trial_trainer import TrialTrainer

BACKBONE = "timm/test_resnet"


@pytest.fixture
def recipe(isolated: Path) -> Recipe:
    return Recipe.model_validate(
        {
            "name": "digits",
            "dataset": {"source": "embedded:digits", "image_size": 32},
            "backbone": {"name": BACKBONE},
            "training": {"epochs": 1, "precision": "float32"},
            "search": {"trials": 1},
        }
    )


def trainer(splits_of, weights: Path, lines: list[str]) -> TrialTrainer:
    splits = splits_of(embedded_dataset("digits"), ".", 0.5, 0.9)
    return TrialTrainer(splits, {Architecture(BACKBONE): weights}, torch.device("cpu"), say=lines.append)


def test_the_run_says_once_what_was_used(recipe, splits_of, tmp_path) -> None:
    original = timm.create_model("test_resnet", num_classes=0).state_dict()
    tensors = {f"teacher.backbone.{name}": tensor.half() for name, tensor in original.items()}
    save_file({**tensors, "teacher.head.weight": torch.ones(1)}, tmp_path / "dino.safetensors")
    lines: list[str] = []
    started = trainer(splits_of, tmp_path / "dino.safetensors", lines)
    for _ in range(2):
        started.train(recipe, lambda _: None)
    assert [line for line in lines if "weights from" in line] == [
        f"{BACKBONE}: weights from dino.safetensors (teacher.backbone): {len(original)} tensors loaded; "
        "not used: teacher.head.weight"
    ]


def test_weights_that_are_not_finite_are_named_before_the_learning_rate_is(recipe, splits_of, tmp_path) -> None:
    original = timm.create_model("test_resnet", num_classes=0).state_dict()
    broken = {**original, "bn1.weight": original["bn1.weight"] * float("nan")}
    save_file(broken, tmp_path / "weights.safetensors")
    with pytest.raises(TrainingError, match=r"contain NaN or infinite values in 1 of .*, first in bn1\.weight"):
        trainer(splits_of, tmp_path / "weights.safetensors", []).train(recipe, lambda _: None)


@pytest.mark.parametrize("value", [torch.tensor(float("nan")), torch.tensor(1j), torch.tensor(1, dtype=torch.int8)])
def test_check_refuses_weights_that_a_run_refuses(isolated: Path, value: Tensor) -> None:
    state = timm.create_model("test_resnet", num_classes=0).state_dict()
    name = next(name for name, tensor in state.items() if tensor.ndim == 4)
    torch.save({**state, name: value.expand(state[name].shape).clone()}, isolated / "weights.pth")
    (isolated / "recipe.yaml").write_text(
        "name: digits\ndataset: {source: embedded:digits, image_size: 32}\n"
        f"backbone: {{name: {BACKBONE}, weights: ./weights.pth}}\n"
    )
    with pytest.raises(ModelError, match=r"weights\.pth"):
        describe_plan(isolated / "recipe.yaml")
