"""Backbones as their libraries build them: torchvision's, timm's, and the one whose weights are installed.

A `BackboneConfig` is a resolved name and costs nothing; every other function here imports its library.
"""

from __future__ import annotations

import inspect
import warnings
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from .preprocessing import Preprocessing

if TYPE_CHECKING:
    from torch import nn

BUNDLED, TORCHVISION, TIMM = "bundled", "torchvision", "timm"
LIBRARIES = (BUNDLED, TORCHVISION, TIMM)
"""Where a bare name is looked up, in this order."""

BUNDLED_NAME = "efficientnet_lite0"
BUNDLED_ARCHITECTURE = "tf_efficientnet_lite0"
"""timm's name of the network that the installed weights fit."""

BUNDLED_WEIGHTS = "installed"

_HALF = (0.5, 0.5, 0.5)


@dataclass(frozen=True, order=True)
class Backbone:
    """A network of a library, by its resolved name.

    Attributes:
        library: `torchvision`, `timm` or `bundled`.
        architecture: The library's own name of it.
        tag: timm's tag of the pretrained weights, as in `resnet50.a1_in1k`; empty where none was named.
    """

    library: str
    architecture: str
    tag: str = ""

    @property
    def key(self) -> str:
        """The unmistakable name, `timm/resnet18`, without the tag."""
        return self.architecture if self.library == BUNDLED else f"{self.library}/{self.architecture}"

    @property
    def timm_name(self) -> str:
        """What timm calls it, tag included; only for networks that timm builds."""
        architecture = BUNDLED_ARCHITECTURE if self.library == BUNDLED else self.architecture
        return f"{architecture}.{self.tag}" if self.tag else architecture


def installed() -> tuple[Backbone, ...]:
    """Lists every classification network of the installed libraries."""
    import timm
    import torchvision

    return (
        Backbone(BUNDLED, BUNDLED_NAME),
        *(Backbone(TORCHVISION, name) for name in torchvision.models.list_models(module=torchvision.models)),
        *(Backbone(TIMM, name) for name in timm.list_models()),
    )


def create(backbone: Backbone, classes: int, image_size: int, auxiliary: bool = True) -> nn.Module:
    """Builds a network with random weights and the library's own classifier.

    torchvision's Inception and GoogLeNet always take images that were normalised by ImageNet's mean and
    standard deviation and rescale them themselves (`transform_input`), with pretrained weights or without: a
    network is the same function of its weights however they came about.

    Args:
        backbone: From `catalog.resolve`.
        classes: Size of its classifier; 0 leaves it out where timm supports that.
        image_size: S in pixels, for the networks whose weights depend on it.
        auxiliary: Whether torchvision's auxiliary heads are built where there are some.
    """
    if backbone.library == TORCHVISION:
        return _torchvision_network(backbone.architecture, classes, image_size, auxiliary)
    return timm_network(backbone, classes, image_size)


def timm_network(backbone: Backbone, classes: int, image_size: int, **options: Any) -> nn.Module:  # noqa: ANN401 - timm's own, passed on
    """Builds a timm network; its image size is fixed while building where timm says that it must be."""
    import timm

    if _timm_cfg(backbone.timm_name).fixed_input_size:
        options["img_size"] = image_size
    network: nn.Module = timm.create_model(backbone.timm_name, num_classes=classes, **options)
    return network


def preprocessings(backbone: Backbone) -> dict[str, Preprocessing]:
    """How images were prepared for each pretrained weights, the default ones first.

    Returns:
        Names of weights to preprocessings; where there are no weights at all, the single name is empty.
    """
    if backbone.library == BUNDLED:
        return {BUNDLED_WEIGHTS: Preprocessing(224, 0.875, "bicubic", _HALF, _HALF)}
    if backbone.library == TORCHVISION:
        return _torchvision_preprocessings(backbone.architecture)
    return _timm_preprocessings(backbone)


def class_names(backbone: Backbone, weights: str) -> tuple[str, ...]:
    """Names of the classes that pretrained weights tell apart, in the order of the logits; may be empty."""
    if backbone.library == TORCHVISION:
        return tuple(torchvision_weights(backbone.architecture)[weights].meta["categories"])
    from timm.data.imagenet_info import ImageNetInfo, infer_imagenet_subset

    cfg = timm_cfg(backbone, weights)
    subset = infer_imagenet_subset({"num_classes": cfg.num_classes})
    if subset is None:
        return tuple(cfg.label_names or ())
    return tuple(name.split(",")[0] for name in ImageNetInfo(subset).label_descriptions())


def torchvision_weights(architecture: str) -> dict[str, Any]:
    """Pretrained weights of a torchvision network by their enum names, the default ones first."""
    import torchvision

    weights = torchvision.models.get_model_weights(architecture)
    default = getattr(weights, "DEFAULT", None)
    return {member.name: member for member in sorted(weights, key=lambda member: member is not default)}


def timm_cfg(backbone: Backbone, tag: str = "") -> Any:  # noqa: ANN401 - timm's PretrainedCfg, untyped for us
    """Looks up timm's record of pretrained weights: where they come from and what they expect."""
    if backbone.library == BUNDLED:
        return _timm_cfg(backbone.timm_name)
    return _timm_cfg(Backbone(TIMM, backbone.architecture, tag or backbone.tag).timm_name)


def timm_tags(backbone: Backbone) -> tuple[str, ...]:
    """Tags of the pretrained weights that timm has for a network, the default ones first."""
    import timm

    default = timm_cfg(Backbone(backbone.library, backbone.architecture)).tag or ""
    names = timm.list_pretrained(f"{backbone.architecture}.*") + timm.list_pretrained(backbone.architecture)
    tags = {name.partition(".")[2] for name in names}
    return tuple(sorted(tags, key=lambda tag: (tag != default, tag)))


@lru_cache(maxsize=4096)
def _timm_cfg(name: str) -> Any:  # noqa: ANN401 - timm's PretrainedCfg, untyped for us
    import timm
    from timm.models import get_pretrained_cfg

    return get_pretrained_cfg(name) or timm.models.PretrainedCfg()


def _timm_preprocessings(backbone: Backbone) -> dict[str, Preprocessing]:
    tags = (backbone.tag,) if backbone.tag else timm_tags(backbone) or ("",)
    return {tag: _from_timm(timm_cfg(backbone, tag)) for tag in tags}


def _from_timm(cfg: Any) -> Preprocessing:  # noqa: ANN401 - timm's PretrainedCfg, untyped for us
    mean, std = tuple(map(float, cfg.mean)), tuple(map(float, cfg.std))
    interpolation = cfg.interpolation if cfg.interpolation != "random" else "bicubic"
    return Preprocessing(cfg.input_size[-1], float(cfg.crop_pct), interpolation, mean, std)  # type: ignore[arg-type] # three each


def _torchvision_preprocessings(architecture: str) -> dict[str, Preprocessing]:
    return {name: _from_torchvision(member) for name, member in torchvision_weights(architecture).items()}


def _from_torchvision(weights: Any) -> Preprocessing:  # noqa: ANN401 - a member of one of many enums
    transform = weights.transforms()
    size, resized = transform.crop_size[0], transform.resize_size[0]
    mean, std = tuple(transform.mean), tuple(transform.std)
    return Preprocessing(size, round(size / resized, 4), transform.interpolation.value, mean, std)


def _torchvision_network(architecture: str, classes: int, image_size: int, auxiliary: bool) -> nn.Module:
    import torchvision

    accepted = _torchvision_options(architecture)
    offered = {
        "image_size": image_size,
        "input_size": (image_size, image_size),
        "aux_logits": auxiliary,
        "transform_input": True,
        "init_weights": True,
    }
    options = {name: value for name, value in offered.items() if name in accepted}
    network: nn.Module = torchvision.models.get_model(
        architecture, weights=None, num_classes=classes, **options
    )
    return network


@lru_cache(maxsize=256)
def _torchvision_options(architecture: str) -> frozenset[str]:
    """What a network's class can be built with; its builder's own signature says only `**kwargs`."""
    import torch
    import torchvision

    from .memoryless import without_memory

    with without_memory(), warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore", FutureWarning)  # of options that are only being asked for here
        network = torchvision.models.get_model(architecture, weights=None)
    return frozenset(inspect.signature(type(network).__init__).parameters)
