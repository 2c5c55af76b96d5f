"""Checkpoints that PyTorch Lightning writes: the weights are found among its own entries."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
import timm
import torch
from network_states import assert_backbone_is, spec, state
from torch import Tensor

from transfer_model.errors import WeightsError
from transfer_model.network import build_network

OWN_KEYS = (
    "pytorch-lightning_version",
    "hyper_parameters",
    "hparams_name",
    "callbacks",
    "loops",
    "optimizer_states",
    "lr_schedulers",
    "global_step",
    "current_model_state",
)


class AttributeDict(dict):
    """Like Lightning's class for hyperparameters."""


def checkpoint(weights: dict[str, Tensor]) -> dict[str, object]:
    """The entries of a checkpoint of Lightning 2.6, after one step of Adam."""
    parameters = [tensor.clone().requires_grad_() for tensor in weights.values() if tensor.is_floating_point()]
    optimizer = torch.optim.Adam(parameters)
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    progress = {"total": {"ready": 40, "completed": 40}, "current": {"ready": 10, "completed": 10}}
    return {
        "epoch": 3,
        "global_step": 40,
        "pytorch-lightning_version": "2.6.0",
        "state_dict": {**weights, "loss.weight": torch.ones(7), "accuracy.tp": torch.ones(7), "best": torch.ones(1)},
        "loops": {"fit_loop": {"state_dict": {}, "epoch_progress": progress, "epoch_loop.batch_progress": progress}},
        "callbacks": {
            "ModelCheckpoint{'monitor': 'val_loss'}": {"best_model_score": torch.tensor(0.25), "best_k_models": {}},
            "EarlyStopping{'monitor': 'val_loss'}": {"best_score": torch.tensor(0.25), "patience": 3},
        },
        "optimizer_states": [optimizer.state_dict()],
        "lr_schedulers": [{"base_lrs": [0.001], "last_epoch": 3}],
        "hparams_name": "hparams",
        "hyper_parameters": AttributeDict(lr=0.001, backbone="resnet", args=argparse.Namespace(epochs=4)),
        "current_model_state": {name: torch.zeros_like(tensor) for name, tensor in weights.items()},
    }


@pytest.mark.parametrize("prefix", ["model.", "net.", "backbone.", "model._orig_mod.backbone."])
def test_the_weights_are_found_below_the_prefix_of_the_module(prefix: str, tmp_path: Path) -> None:
    original = timm.create_model("test_resnet", num_classes=7)
    weights = {f"{prefix}{name}": tensor for name, tensor in state(original).items()}
    torch.save(checkpoint(weights), tmp_path / "last.ckpt")
    network = build_network(spec("timm/test_resnet"), tmp_path / "last.ckpt")
    assert_backbone_is(network, state(original), heads=("fc",))
    count = len(weights) - 2
    assert network.weights_summary == (
        f"weights from last.ckpt (state_dict.{prefix.removesuffix('.')}): {count} tensors loaded; "
        "not used: fc.weight, fc.bias, loss.weight and 2 more"
    )


@pytest.mark.parametrize("other", ["timm/test_vit", "torchvision/resnet18"])
def test_a_refusal_lists_few_tensors_and_no_entry_of_lightning(other: str, tmp_path: Path) -> None:
    weights = {f"model.{name}": tensor for name, tensor in state(timm.create_model("test_resnet")).items()}
    torch.save(checkpoint(weights), tmp_path / "last.ckpt")
    with pytest.raises(WeightsError) as error:
        build_network(spec(other), tmp_path / "last.ckpt")
    message = str(error.value)
    assert message.startswith(f"the weights in {tmp_path}/last.ckpt do not match {other} ")
    assert len(message.splitlines()) <= 22
    assert not [key for key in (*OWN_KEYS, "loss.weight", "accuracy.tp") if key in message]
