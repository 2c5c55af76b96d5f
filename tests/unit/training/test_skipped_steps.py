"""Optimizer steps that are skipped because gradients overflow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from transfer_model.network import Network, NetworkSpec, build_network
from transfer_platform.errors import DivergedError
from transfer_platform.recipe.schema import Recipe, TrainingConfig
from transfer_platform.training.batches import TrialData
from transfer_platform.training.network_cache import freeze_through
from transfer_platform.training.trainer import Trainer

OPTIMIZERS = {
    "adamw": {"optimizer": "adamw"},
    "sgd": {"optimizer": "sgd", "momentum": 0.0},
    "sgd with momentum": {"optimizer": "sgd", "momentum": 0.9},
}


class Images:
    """Four random images, trained on as one batch."""

    evaluation_batch = 4
    elements = 3 * 32**2

    def __init__(self, network: Network) -> None:
        self.network = network
        self.values = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))

    def load(self, positions: Sequence[int]) -> Tensor:
        return self.values[list(positions)]

    def load_training(self, positions: Sequence[int], epoch: int, repeats: Sequence[int]) -> Tensor:
        return self.load(positions)

    def logits(self, inputs: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        return self.network.forward_with_auxiliary(inputs)


@pytest.fixture(autouse=True)
def uninitialized_memory_is_nan() -> Iterator[None]:
    """Fills new uninitialized tensors with NaN, so that reading one cannot go unnoticed."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def config(folder: Path, **training: object) -> TrainingConfig:
    return Recipe.model_validate(
        {
            "name": "small",
            "dataset": {"source": str(folder)},
            "backbone": {"name": "timm/test_resnet", "weights": "none"},
            "training": {"epochs": 4, "batch_size": 4, "schedule": "constant", "weight_decay": 0.1, **training},
        }
    ).training


def trainer_of(network: Network, settings: TrainingConfig, precision: str) -> Trainer:
    data = TrialData(Images(network), torch.tensor([0, 1, 2, 0]), (0, 1, 2, 3), (), 4, 0)
    return Trainer(network, data, settings, precision)


def small_network() -> Network:
    torch.manual_seed(0)
    network = build_network(NetworkSpec("timm/test_resnet", 3, 0.0, 32))
    freeze_through(network, "layer3")
    return network


def scale_next_gradients(network: Network, factor: float) -> None:
    """Multiplies the gradients of the next backward pass, and of no other."""
    for parameter in network.parameters():
        if parameter.requires_grad:
            handles: list[torch.utils.hooks.RemovableHandle] = []

            def scale(gradient: Tensor, handles: list[torch.utils.hooks.RemovableHandle] = handles) -> Tensor:
                handles.pop().remove()
                return gradient * factor

            handles.append(parameter.register_hook(scale))


def parameters(network: Network) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in network.named_parameters()}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_first_step_that_overflows_in_float16_changes_nothing(optimizer: str, tmp_path: Path) -> None:
    network, untouched = small_network(), small_network()
    settings = config(tmp_path, **OPTIMIZERS[optimizer])
    trainer, reference = trainer_of(network, settings, "float16"), trainer_of(untouched, settings, "float16")
    before = parameters(network)

    scale_next_gradients(network, float("inf"))
    trainer.train(1)

    after = parameters(network)
    assert all(torch.equal(before[name], after[name]) for name in before)
    # What follows equals a training that starts at the same loss scale without the skipped step.
    reference._scaler.load_state_dict(trainer._scaler.state_dict())
    untouched.load_state_dict(network.state_dict())  # the forward pass has updated the running statistics
    for epoch in (2, 3):
        trainer.train(epoch)
        reference.train(epoch)
    trained, expected = parameters(network), parameters(untouched)
    assert all(torch.equal(trained[name], expected[name]) for name in trained)
    assert any(not torch.equal(trained[name], before[name]) for name in trained)


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_zero_gradient_moves_no_weight_without_decay(optimizer: str, precision: str, tmp_path: Path) -> None:
    network = small_network()
    trainer = trainer_of(network, config(tmp_path, **{**OPTIMIZERS[optimizer], "weight_decay": 0.0}), precision)
    before = parameters(network)
    if precision == "float16":
        scale_next_gradients(network, float("inf"))
        trainer.train(1)
    scale_next_gradients(network, 0.0)
    trainer.train(2)
    assert all(torch.equal(before[name], after) for name, after in parameters(network).items())


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_without_a_loss_scale_an_overflow_is_divergence(optimizer: str, precision: str, tmp_path: Path) -> None:
    network = small_network()
    trainer = trainer_of(network, config(tmp_path, **OPTIMIZERS[optimizer]), precision)
    scale_next_gradients(network, float("inf"))
    trainer.train(1)
    with pytest.raises(DivergedError, match="at step 2"):
        trainer.train(2)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_parameter_without_a_gradient_in_the_first_step_is_trained_later(optimizer: str, tmp_path: Path) -> None:
    network = small_network()
    trainer = trainer_of(network, config(tmp_path, **OPTIMIZERS[optimizer]), "float32")
    last = [*network.stage_parameters("layer4.0")][-1]
    last.requires_grad_(False)  # as a branch that the network does not run in this step
    trainer.train(1)
    last.requires_grad_(True)
    before = last.detach().clone()
    trainer.train(2)
    assert torch.isfinite(last).all()
    assert not torch.equal(last, before)
