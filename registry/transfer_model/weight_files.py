"""Pretrained weights: how they get from a file into a network."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from . import backbones
from .backbones import BUNDLED, TORCHVISION, Backbone
from .errors import WeightsError
from .reading import read_tensors

if TYPE_CHECKING:
    from pathlib import Path

    from .structure import NetworkStructure

NETWORK_PREFIX = "backbone."
HEAD_PREFIX = "classifier."
"""How a checkpoint of a `Network` names the library's tensors, and a `HeadConfig`'s below the library's name."""

_DENSENET = re.compile(r"^(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\..*)$")
_LISTED = 20


def load_backbone_weights(
    path: Path, backbone: Backbone, anatomy: NetworkStructure, module: nn.Module, image_size: int
) -> dict[str, Tensor]:
    """Reads weights and translates them into the names and shapes of a network, its heads aside.

    timm's own conversions are used for timm's networks, torchvision's for its own: other names of older
    files, position embeddings of another image size.

    Args:
        path: A library's file, or a checkpoint of a `Network`.
        backbone: What the network is.
        anatomy: What `anatomy.examine` found in it.
        module: The network with its heads not yet replaced.
        image_size: S in pixels.

    Raises:
        WeightsError: The file is unreadable or belongs to another network; the message lists the differences.
    """
    found = read_tensors(path)
    aside = (*anatomy.heads, *(extra.head for extra in anatomy.auxiliary), *anatomy.unused_auxiliary)
    if all(name.startswith(NETWORK_PREFIX) for name in found):
        state = {name.removeprefix(NETWORK_PREFIX): tensor for name, tensor in found.items()}
    else:
        state = _translated(found, backbone, anatomy, module, image_size)
    if lines := state_dict_differences(state, module, aside):
        raise WeightsError(_misfit(path, backbone, lines))
    return state


def copy_weights(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Copies the tensors that fit into a network, in place; `load_backbone_weights` has made sure that only heads do not."""
    expected = {name: tensor.shape for name, tensor in module.state_dict().items()}
    usable = {name: tensor for name, tensor in state.items() if expected.get(name) == tensor.shape}
    module.load_state_dict(with_format_version(usable, module), strict=False)


def load_pretrained_classifier(backbone: Backbone, path: Path, classes: int, image_size: int) -> nn.Module:
    """Builds a library's network with its own pretrained classifier.

    Raises:
        WeightsError: The weights cannot be read, belong to another network, or have no classifier.
    """
    if classes == 0:
        raise WeightsError(f"{backbone.key} was pretrained without classes: it can be trained, not asked")
    found = read_tensors(path)
    if backbone.library == backbones.TIMM:
        return _loaded_by_timm(found, backbone, classes, image_size, path)
    module = backbones.create(backbone, classes, image_size)
    state = _in_order(found, module) if backbone.library == BUNDLED else _modern(found, module, image_size)
    if lines := state_dict_differences(state, module):
        raise WeightsError(_misfit(path, backbone, lines))
    module.load_state_dict(with_format_version(state, module))
    return module


def state_dict_differences(
    found: Mapping[str, Tensor], module: nn.Module, aside: tuple[str, ...] = ()
) -> list[str]:
    """Lists what tells a file's tensors from a network's, sorted by name.

    Args:
        found: The file's tensors.
        module: The network.
        aside: Modules that may differ: heads.

    Returns:
        `- name (shape)` for what the network has and the file lacks, `+ name (shape)` for the reverse, both
        where the shapes differ; empty where everything fits. A missing `num_batches_tracked` is none.
    """
    skipped = tuple(f"{name}." for name in aside)
    expected = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    given = {name: tuple(tensor.shape) for name, tensor in found.items()}
    lines = []
    for name in sorted(expected.keys() | given.keys()):
        counter = name.endswith("num_batches_tracked") and name not in given
        if name.startswith(skipped) or counter or expected.get(name) == given.get(name):
            continue
        lines += [f"- {name} {expected[name]}"] if name in expected else []
        lines += [f"+ {name} {given[name]}"] if name in given else []
    return lines


def with_format_version(state: Mapping[str, Any], module: nn.Module) -> Mapping[str, Any]:
    """Gives plain tensors the format version that torch's own files carry: that of the network itself."""
    if hasattr(state, "_metadata"):
        return state
    copied: OrderedDict[str, Any] = OrderedDict(state)
    own = cast("Any", module.state_dict())._metadata
    has_counters = any(name.endswith("num_batches_tracked") for name in state)
    cast("Any", copied)._metadata = own if has_counters else {"": own[""]}
    return copied


def _translated(
    found: dict[str, Tensor],
    backbone: Backbone,
    anatomy: NetworkStructure,
    module: nn.Module,
    image_size: int,
) -> dict[str, Tensor]:
    if backbone.library == TORCHVISION:
        return _modern(found, module, image_size)
    if backbone.library == BUNDLED and not found.keys() & module.state_dict().keys():
        return _in_order(found, module)
    try:
        state = _by_timm(found, backbone, _classes(found, backbone, anatomy), image_size)
    except (RuntimeError, KeyError, AttributeError, ValueError, TypeError, IndexError, AssertionError):
        # timm's filters fail in any of these ways on another network's tensors: the differences will say so.
        state = found
    return {f"encoder.{name}": tensor for name, tensor in state.items()} if anatomy.pooled else state


def _classes(found: Mapping[str, Tensor], backbone: Backbone, anatomy: NetworkStructure) -> int:
    """How many classes a file's own head tells apart, as timm must know to load it without gaps."""
    heads = (found.get(f"{name}.weight") for name in anatomy.heads)
    sizes = [len(head) for head in heads if head is not None]
    return sizes[0] if sizes else int(backbones.timm_cfg(backbone).num_classes)


def _by_timm(
    found: dict[str, Tensor], backbone: Backbone, classes: int, image_size: int
) -> dict[str, Tensor]:
    """Lets timm load tensors into a network of its own, with its conversions, and takes them from there."""
    network, lacking = _timm_pretrained(
        found, backbone, classes, image_size, num_classes=classes, label_offset=0
    )
    return {name: tensor for name, tensor in network.state_dict().items() if name not in lacking}


def _loaded_by_timm(
    found: dict[str, Tensor], backbone: Backbone, classes: int, image_size: int, path: Path
) -> nn.Module:
    try:
        network, lacking = _timm_pretrained(found, backbone, classes, image_size)
    except RuntimeError as error:
        module = backbones.create(backbone, classes, image_size)
        raise WeightsError(_misfit(path, backbone, state_dict_differences(found, module))) from error
    if lacking:
        raise WeightsError(_misfit(path, backbone, state_dict_differences(found, network)))
    return network


def _timm_pretrained(
    found: dict[str, Tensor], backbone: Backbone, classes: int, image_size: int, **overlay: object
) -> tuple[nn.Module, set[str]]:
    """A network that timm has loaded, and the names of those of its tensors that the file did not hold.

    For some families timm lets pass what is missing: it still has the random values of its seed.
    """
    overlay = {"state_dict": found, "custom_load": False, **overlay}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = backbones.timm_network(
            backbone, classes, image_size, pretrained=True, pretrained_cfg_overlay=overlay
        )
        cast("Any", network).pretrained_cfg.pop("state_dict")  # or both copies would stay in memory
        state = network.state_dict()
        if state.keys() <= found.keys():
            return network, set()
        torch.manual_seed(0)
        random = backbones.create(backbone, classes, image_size).state_dict()
    return network, {name for name in state.keys() - found.keys() if _untouched(state[name], random[name])}


def _untouched(tensor: Tensor, random: Tensor) -> bool:
    """Whether drawn values are unchanged; vectors and constants start alike in every network."""
    drawn = tensor.ndim > 1 and bool((random != random.flatten()[0]).any())
    return drawn and torch.equal(tensor, random)


def _in_order(found: Mapping[str, Tensor], module: nn.Module) -> dict[str, Tensor]:
    """Names tensors by their order: the installed file is of the same network under other names."""
    names = list(module.state_dict())
    if len(names) != len(found):
        return dict(found)
    return dict(zip(names, found.values(), strict=True))


def _modern(found: dict[str, Tensor], module: nn.Module, image_size: int) -> dict[str, Tensor]:
    """Applies torchvision's conversions: DenseNet's older names, the position embedding of a ViT."""
    from torchvision.models.vision_transformer import VisionTransformer, interpolate_embeddings

    state = OrderedDict((_DENSENET.sub(r"\1\2", name), tensor) for name, tensor in found.items())
    if hasattr(found, "_metadata"):
        cast("Any", state)._metadata = found._metadata
    if isinstance(module, VisionTransformer) and "encoder.pos_embedding" in state:
        return dict(interpolate_embeddings(image_size, module.patch_size, state))
    return state


def _misfit(path: Path, backbone: Backbone, lines: list[str]) -> str:
    shown = "\n".join(lines[:_LISTED])
    more = f"\n... and {len(lines) - _LISTED} more" if len(lines) > _LISTED else ""
    return (
        f"the weights in {path} are not those of {backbone.key}; - is what the network has, + what the file "
        f"has:\n{shown}{more}"
    )
