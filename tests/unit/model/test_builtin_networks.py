from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
import torchvision
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from transfer_model import catalog
from transfer_model.architecture import Architecture, Options
from transfer_model.builtin_networks import NETWORKS, AlexNetCifar, ResNet, ResNet18Cifar, ResNet34Cifar
from transfer_model.network import NetworkSpec, build_network

if TYPE_CHECKING:
    from torch import Tensor

VARIANTS = {
    "resnet18": {"depth": 18},
    "resnet34": {"depth": 34},
    "resnet50": {},
    "resnet101": {"depth": 101},
    "resnet152": {"depth": 152},
    "resnext50_32x4d": {"groups": 32, "width_per_group": 4},
    "resnext101_64x4d": {"depth": 101, "groups": 64, "width_per_group": 4},
    "wide_resnet50_2": {"width_per_group": 128},
}
"""Options of torchvision's networks."""


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def multiplications(network: nn.Module, images: Tensor) -> int:
    with FlopCounterMode(display=False) as counter:
        network.eval()(images)
    return counter.get_total_flops() // 2


@pytest.mark.parametrize(
    ("depth", "billions", "millions"),
    [(18, 1.8, 11.7), (34, 3.6, 21.8), (50, 3.8, 25.6), (101, 7.6, 44.5), (152, 11.3, 60.2)],
)
def test_multiplications_of_the_paper_and_published_parameters(depth: int, billions: float, millions: float) -> None:
    with torch.device("meta"):
        assert round(parameters(ResNet(depth=depth).build(1000)) / 1e6, 1) == millions
        network = ResNet(depth=depth, shortcut="A" if depth < 50 else "B").build(1000)
    if depth >= 50:  # the paper's bottlenecks have the stride in the first 1 x 1 convolution, which saves computation
        for stage in (network.layer2, network.layer3, network.layer4):
            stage[0].conv1.stride, stage[0].conv2.stride = stage[0].conv2.stride, (1, 1)
    count = multiplications(network, torch.empty(1, 3, 224, 224, device="meta"))
    assert count / 1e9 == pytest.approx(billions, rel=0.02)


@pytest.mark.parametrize("name", VARIANTS)
def test_the_structure_is_that_of_torchvisions_network(name: str) -> None:
    with torch.device("meta"):
        own, published = ResNet(**VARIANTS[name]).build(10), torchvision.models.get_model(name, num_classes=10)
    assert str(own) == str(published)
    assert [*own.state_dict()] == [*published.state_dict()]


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnext50_32x4d"])
def test_outputs_equal_torchvisions_with_the_same_weights(name: str) -> None:
    own = ResNet(**VARIANTS[name]).build(10)
    published = torchvision.models.get_model(name, num_classes=10)
    published.load_state_dict(own.state_dict())
    images = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(own.eval()(images), published.eval()(images))


def test_a_dilated_network_equals_torchvisions() -> None:
    own = ResNet(layers=(1, 1, 1, 1), dilation=4).build(10).eval()
    published = torchvision.models.ResNet(
        torchvision.models.resnet.Bottleneck, [1, 1, 1, 1], 10, replace_stride_with_dilation=[False, True, True]
    ).eval()
    published.load_state_dict(own.state_dict())
    images = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(own(images), published(images))


def test_shortcut_a_has_no_parameters_and_pads_with_zeros() -> None:
    network = ResNet(depth=18, shortcut="A").build(10)
    assert not [name for name in network.state_dict() if "downsample" in name]
    images = torch.rand(2, 64, 8, 8)
    padded = network.layer2[0].downsample(images)
    assert torch.equal(padded[:, :64], images[:, :, ::2, ::2])
    assert padded.shape == (2, 128, 4, 4)
    assert not padded[:, 64:].any()


@pytest.mark.parametrize(("shortcut", "projections"), [("A", 0), ("B", 4), ("C", 16)])
def test_how_many_shortcuts_are_projections(shortcut: str, projections: int) -> None:
    with torch.device("meta"):
        network = ResNet(depth=50, shortcut=shortcut).build(10)
    assert sum(name.endswith("downsample.0.weight") for name in network.state_dict()) == projections


@pytest.mark.parametrize(("depth", "last"), [(18, "bn2"), (50, "bn3")])
def test_zero_init_makes_every_block_start_as_its_shortcut(depth: int, last: str) -> None:
    network = ResNet(depth=depth, zero_init_residual=True).build(10)
    assert not network.layer1[0].get_submodule(last).weight.any()
    assert ResNet(depth=depth).build(10).layer1[0].get_submodule(last).weight.all()


def test_group_norm_and_the_cifar_stem() -> None:
    network = ResNet(depth=18, norm="group", stem="cifar").build(10)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    assert network.conv1.kernel_size == (3, 3)
    assert network.layer1(network.maxpool(network.conv1(torch.rand(1, 3, 32, 32)))).shape == (1, 64, 32, 32)


@pytest.mark.parametrize(("kind", "count"), [(ResNet18Cifar, 11_173_962), (ResNet34Cifar, 21_282_122)])
def test_parameters_of_the_networks_for_cifar(kind: type, count: int) -> None:
    with torch.device("meta"):
        assert parameters(kind().build(10)) == count


def test_layers_of_the_alexnet_for_cifar() -> None:
    network = AlexNetCifar().build(10)
    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    linear = [module for module in network.modules() if isinstance(module, nn.Linear)]
    dropouts = [module.p for module in network.modules() if isinstance(module, nn.Dropout)]
    assert [module.out_channels for module in convolutions] == [64, 192, 384, 256, 256]
    assert [module.kernel_size[0] for module in convolutions] == [3, 3, 3, 3, 1]
    assert [(module.in_features, module.out_features) for module in linear] == [(2304, 1024), (1024, 512), (512, 10)]
    assert dropouts == [0.5, 0.5]
    assert network.features(torch.rand(1, 3, 32, 32)).shape == (1, 256, 3, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": (2, 2, 2)}, "list of 4 numbers"),
        ({"depth": 18, "groups": 2}, "require block: bottleneck"),
        ({"norm": "group", "width_per_group": 4}, "multiple of 32"),
    ],
)
def test_options_that_contradict_each_other(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ResNet(**options)


def test_every_network_declares_its_default_image_size() -> None:
    sizes = {name: catalog.backbone_info(name).preprocessing.image_size for name in NETWORKS}
    assert sizes == {"alexnet_cifar": 32, "resnet": 224, "resnet18_cifar": 32, "resnet34_cifar": 32}
    small = catalog.backbone_info(Architecture("resnet", Options({"depth": 18, "stem": "cifar"})))
    assert small.preprocessing == catalog.backbone_info("resnet18_cifar").preprocessing
    assert small.preprocessing.mean == small.preprocessing.std == (0.5, 0.5, 0.5)


@pytest.mark.parametrize("shortcut", ["A", "B", "C"])
@pytest.mark.parametrize("norm", ["batch", "group"])
def test_stages_freezing_and_the_new_head_work_with_every_shortcut(shortcut: str, norm: str) -> None:
    options = Options({"layers": [1, 1, 1, 1], "block": "basic", "shortcut": shortcut, "norm": norm, "stem": "cifar"})
    network = build_network(NetworkSpec(Architecture("resnet", options), 3, 0.0, 32))
    assert network.stages[0] == "conv1"
    assert network.stages[-1] == "layer4.0"
    network.freeze(len(network.stages) - 1)
    network.train()(torch.rand(2, 3, 32, 32)).sum().backward()
    trained = {name.split(".")[1] for name, each in network.named_parameters() if each.grad is not None}
    assert trained == {"layer4", "fc"}
