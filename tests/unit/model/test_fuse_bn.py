from __future__ import annotations

import pytest
import torch
from torch import nn

from transfer_model.fuse_bn import fuse_batch_norms
from transfer_model.network import Network, NetworkSpec, build_network


def network(backbone: str) -> Network:
    """With running statistics as if it had seen images."""
    torch.manual_seed(0)
    built = build_network(NetworkSpec(backbone, 3, 0.2, 64)).eval()
    for module in built.modules():
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None:
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 2.0)
    return built


def answered(module: nn.Module) -> torch.Tensor:
    with torch.inference_mode():
        return module(torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1)))


def images() -> torch.Tensor:
    return torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize(
    ("backbone", "norms"),
    [
        ("efficientnet_lite0", 49),
        ("resnet18", 20),
        ("densenet121", 59),  # half of its norms stand before a convolution
        ("mobilenet_v3_small", 34),
        ("regnet_y_400mf", 53),
        ("timm/resnetv2_50", 32),
        ("convnext_tiny", 0),  # has none
        ("timm/resnetv2_50x1_bit", 0),  # standardises its weights
    ],
)
def test_a_folded_network_answers_the_same(backbone: str, norms: int) -> None:
    whole = network(backbone)
    before = answered(whole)
    assert fuse_batch_norms(whole, images()) == norms
    torch.testing.assert_close(answered(whole), before, rtol=1e-4, atol=1e-4 * float(before.abs().max()))


class TwoUses(nn.Module):
    """What the convolution makes is normalised, and used as it is as well."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
        self.norm.running_var.fill_(4.0)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        made = self.convolution(images)
        return self.norm(made) + made


class Shared(nn.Module):
    """One convolution before two norms."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.first, self.second = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.BatchNorm2d(3)
        self.second.running_var.fill_(4.0)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.second(self.convolution(self.first(self.convolution(images))))


@pytest.mark.parametrize("made", [TwoUses, Shared])
def test_what_would_answer_otherwise_is_left_as_it_was(made: type[nn.Module]) -> None:
    torch.manual_seed(0)
    whole = made().eval()
    before, state = answered(whole), {key: value.clone() for key, value in whole.state_dict().items()}
    assert fuse_batch_norms(whole, images()) == 0
    assert torch.equal(answered(whole), before)
    assert whole.state_dict().keys() == state.keys()
    assert all(torch.equal(value, state[key]) for key, value in whole.state_dict().items())


def test_a_network_of_nan_is_left_as_it_was() -> None:
    whole = network("timm/test_resnet")
    next(whole.parameters()).data.fill_(float("nan"))
    assert fuse_batch_norms(whole, images()) == 0
    assert answered(whole).isnan().all()
