from __future__ import annotations

import pytest
import torch
from torch import nn

from transfer_model.fuse_bn import fuse_batch_norms
from transfer_model.network import Network, NetworkSpec, build_network


def network(backbone: str) -> Network:
    """Builds a network with random running statistics."""
    torch.manual_seed(0)
    built = build_network(NetworkSpec(backbone, 3, 0.2, 64)).eval()
    for module in built.modules():
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None:
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 2.0)
    return built


def output(module: nn.Module) -> torch.Tensor:
    with torch.inference_mode():
        return module(torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1)))


def images() -> torch.Tensor:
    return torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize(
    ("backbone", "norms"),
    [
        ("efficientnet_lite0", 49),
        ("resnet18", 20),
        ("densenet121", 59),  # half of its norms precede a convolution
        ("mobilenet_v3_small", 34),
        ("regnet_y_400mf", 53),
        ("timm/resnetv2_50", 32),
        ("convnext_tiny", 0),  # has no batch norms
        ("timm/resnetv2_50x1_bit", 0),  # standardizes its weights
    ],
)
def test_a_fused_network_has_the_same_outputs(backbone: str, norms: int) -> None:
    module = network(backbone)
    before = output(module)
    assert fuse_batch_norms(module, images()) == norms
    torch.testing.assert_close(output(module), before, rtol=1e-4, atol=1e-4 * float(before.abs().max()))


class TwoUses(nn.Module):
    """The output of the convolution is used with and without the norm."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
        self.norm.running_var.fill_(4.0)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.convolution(images)
        return self.norm(features) + features


class Shared(nn.Module):
    """One convolution followed by two norms."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.first, self.second = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.BatchNorm2d(3)
        self.second.running_var.fill_(4.0)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.second(self.convolution(self.first(self.convolution(images))))


@pytest.mark.parametrize("kind", [TwoUses, Shared])
def test_a_network_whose_outputs_would_change_is_restored(kind: type[nn.Module]) -> None:
    torch.manual_seed(0)
    module = kind().eval()
    before, state = output(module), {key: value.clone() for key, value in module.state_dict().items()}
    assert fuse_batch_norms(module, images()) == 0
    assert torch.equal(output(module), before)
    assert module.state_dict().keys() == state.keys()
    assert all(torch.equal(value, state[key]) for key, value in module.state_dict().items())


def test_a_network_with_nan_is_restored() -> None:
    module = network("timm/test_resnet")
    next(module.parameters()).data.fill_(float("nan"))
    assert fuse_batch_norms(module, images()) == 0
    assert output(module).isnan().all()
