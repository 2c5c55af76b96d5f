"""State dicts and specifications that tests of weights compare."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from transfer_model.network import NetworkSpec

if TYPE_CHECKING:
    from torch import Tensor, nn


def state(network: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def spec(name: str, classes: int = 3, size: int = 32) -> NetworkSpec:
    return NetworkSpec(name, classes, 0.0, size)


def assert_backbone_is(network: nn.Module, expected: dict[str, Tensor], *, heads: tuple[str, ...]) -> None:
    actual = network.state_dict()
    for name, tensor in expected.items():
        if not name.startswith(heads):
            assert torch.equal(actual[f"backbone.{name}"], tensor), name
