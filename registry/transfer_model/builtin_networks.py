"""The ResNet family, and networks for images of 32 x 32 pixels.

This file needs only torch and torchvision, which it imports when a network is built. An exported model contains a copy
of this file, so that the network can be built without this project.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

_GROUP_NORM_GROUPS = 32
_LAYERS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
"""Blocks per stage, keyed by depth (He et al., "Deep Residual Learning for Image Recognition", 2015, table 1)."""


class BuiltinNetwork(Protocol):
    """A dataclass that builds a network; its fields are the options of the network."""

    @property
    def image_size(self) -> int:
        """Default image side S in pixels."""

    def build(self, classes: int) -> nn.Module:
        """Builds the network with random weights; it maps images (B, 3, S, S) to logits (B, C)."""


@dataclass(frozen=True)
class ResNet:
    """ResNet, ResNeXt, Wide ResNet and variants, built by torchvision's `ResNet` with the same tensor names.

    Attributes:
        depth: Number of layers with weights, which determines `layers`; ignored if `layers` is set.
        layers: Number of blocks in each of the four stages.
        block: `basic` has two 3 x 3 convolutions; `bottleneck` has one between two 1 x 1 convolutions, and
            applies the stride in the 3 x 3 convolution, like torchvision. `auto` is `basic` for the depths 18 and 34.
        shortcut: Where the shape changes, `A` subsamples and pads with zero channels, and `B` projects; `C` projects
            in every block (He et al., 2015, sec. 3.3 and 4.1).
        zero_init_residual: Whether every block is initialized as the identity (Goyal et al., 2017, sec. 5.1).
        groups: Number of groups in the 3 x 3 convolutions of bottlenecks (ResNeXt, Xie et al., 2017).
        width_per_group: Number of channels per group in the first stage (Wide ResNet, Zagoruyko and Komodakis, 2016).
        dilation: Dilation of the last stage; 2 replaces that stage's stride, and 4 also that of the stage before.
        norm: Batch norm, or group norm with 32 groups (Wu and He, 2018).
        stem: `imagenet` is a 7 x 7 convolution with stride 2 and a max-pool; `cifar` is a 3 x 3 convolution.

    Raises:
        ValueError: The options contradict each other.
    """

    depth: Literal[18, 34, 50, 101, 152] = 50
    layers: tuple[int, ...] = ()
    block: Literal["auto", "basic", "bottleneck"] = "auto"
    shortcut: Literal["A", "B", "C"] = "B"
    zero_init_residual: bool = False
    groups: int = 1
    width_per_group: int = 64
    dilation: Literal[1, 2, 4] = 1
    norm: Literal["batch", "group"] = "batch"
    stem: Literal["imagenet", "cifar"] = "imagenet"

    def __post_init__(self) -> None:
        if len(self.layers) not in (0, 4):
            raise ValueError(f"layers must be a list of 4 numbers, one for each stage, but has {len(self.layers)}")
        if self.is_basic and (self.groups, self.width_per_group, self.dilation) != (1, 64, 1):
            raise ValueError("groups, width_per_group and dilation require block: bottleneck")
        if self.norm == "group" and self.groups * self.width_per_group % _GROUP_NORM_GROUPS:
            raise ValueError(f"norm: group requires groups * width_per_group to be a multiple of {_GROUP_NORM_GROUPS}")

    @property
    def is_basic(self) -> bool:
        """Whether the network consists of basic blocks."""
        return self.block == "basic" or (self.block == "auto" and not self.layers and self.depth < 50)

    @property
    def image_size(self) -> int:
        """Default image side S: 32 pixels with the CIFAR stem, otherwise 224."""
        return 32 if self.stem == "cifar" else 224

    def build(self, classes: int) -> nn.Module:
        """Builds the network with random weights; it maps images (B, 3, S, S) to logits (B, C)."""
        import torchvision
        from torch import nn
        from torchvision.models.resnet import BasicBlock, Bottleneck

        norm = partial(nn.GroupNorm, _GROUP_NORM_GROUPS) if self.norm == "group" else nn.BatchNorm2d
        network: nn.Module = torchvision.models.ResNet(
            BasicBlock if self.is_basic else Bottleneck,
            list(self.layers or _LAYERS[self.depth]),
            num_classes=classes,
            zero_init_residual=self.zero_init_residual,
            groups=self.groups,
            width_per_group=self.width_per_group,
            replace_stride_with_dilation=[False, self.dilation == 4, self.dilation > 1],
            norm_layer=norm,
        )
        if self.stem == "cifar":
            network.conv1 = _initialized(nn.Conv2d(3, 64, 3, padding=1, bias=False))
            network.maxpool = nn.Identity()
        for block in list(network.modules()):
            if isinstance(block, BasicBlock | Bottleneck):
                block.downsample = self._shortcut(block, norm)
        return network

    def _shortcut(self, block: Any, norm: Any) -> nn.Module | None:  # noqa: ANN401 - torchvision's block
        from torch import nn

        inputs = block.conv1.in_channels
        outputs = block.conv2.out_channels if self.is_basic else block.conv3.out_channels
        if self.shortcut == "A" and block.downsample is not None:
            subsample = nn.MaxPool2d(1, block.stride)
            return nn.Sequential(subsample, nn.ConstantPad3d((0, 0, 0, 0, 0, outputs - inputs), 0.0))
        if self.shortcut == "C" and block.downsample is None:
            projection = nn.Conv2d(inputs, outputs, 1, stride=block.stride, bias=False)
            return nn.Sequential(_initialized(projection), norm(outputs))
        downsample: nn.Module | None = block.downsample
        return downsample


@dataclass(frozen=True)
class ResNet18Cifar:
    """ResNet-18 with the CIFAR stem."""

    image_size: ClassVar[int] = 32

    def build(self, classes: int) -> nn.Module:
        """Builds the network with random weights; it maps images (B, 3, S, S) to logits (B, C)."""
        return ResNet(depth=18, stem="cifar").build(classes)


@dataclass(frozen=True)
class ResNet34Cifar:
    """ResNet-34 with the CIFAR stem."""

    image_size: ClassVar[int] = 32

    def build(self, classes: int) -> nn.Module:
        """Builds the network with random weights; it maps images (B, 3, S, S) to logits (B, C)."""
        return ResNet(depth=34, stem="cifar").build(classes)


@dataclass(frozen=True)
class AlexNetCifar:
    """AlexNet with smaller kernels and strides; max-pooling windows overlap, as in the original.

    Images of 32 x 32 pixels become feature maps (256, 3, 3), which are flattened to 2,304 values.
    """

    image_size: ClassVar[int] = 32

    def build(self, classes: int) -> nn.Module:
        """Builds the network with random weights; it maps images (B, 3, S, S) to logits (B, C)."""
        from torch import nn

        def convolution(inputs: int, outputs: int, kernel: int, *, pool: bool = False) -> list[nn.Module]:
            layer = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2)
            return [layer, nn.ReLU(), *([nn.MaxPool2d(3, stride=2)] if pool else [])]

        features = [
            *convolution(3, 64, 3, pool=True),
            *convolution(64, 192, 3, pool=True),
            *convolution(192, 384, 3),
            *convolution(384, 256, 3),
            *convolution(256, 256, 1, pool=True),
        ]
        classifier = [
            *(nn.Dropout(0.5), nn.Linear(2304, 1024), nn.ReLU()),
            *(nn.Dropout(0.5), nn.Linear(1024, 512), nn.ReLU()),
            nn.Linear(512, classes),
        ]
        parts: list[tuple[str, nn.Module]] = [
            ("features", nn.Sequential(*features)),
            ("avgpool", nn.AdaptiveAvgPool2d(3)),
            ("flatten", nn.Flatten()),
            ("classifier", nn.Sequential(*classifier)),
        ]
        return nn.Sequential(OrderedDict(parts))


NETWORKS: Mapping[str, type[BuiltinNetwork]] = {
    "alexnet_cifar": AlexNetCifar,
    "resnet": ResNet,
    "resnet18_cifar": ResNet18Cifar,
    "resnet34_cifar": ResNet34Cifar,
}
"""Dataclasses of all networks, keyed by name."""


def _initialized(convolution: nn.Conv2d) -> nn.Conv2d:
    """Initializes a convolution in place as torchvision's ResNet does (He et al., 2015)."""
    from torch import nn

    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    return convolution
