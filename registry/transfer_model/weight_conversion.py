"""Converts the names and shapes of weights to match a network."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from . import backbones
from .backbones import BUILTIN, BUNDLED, TIMM, TORCHVISION, Backbone
from .structure import build_on_meta

if TYPE_CHECKING:
    from .structure import NetworkStructure
    from .weight_names import WeightCandidate

ENCODER_PREFIX = "encoder."
"""Prefix of the library's tensor names in a `PooledHead`."""

FILTER_ERRORS = (RuntimeError, KeyError, AttributeError, ValueError, TypeError, IndexError, AssertionError)
"""Exceptions that timm raises when converting tensors of another network."""


def names_of_head(candidate: WeightCandidate, backbone: Backbone, structure: NetworkStructure) -> frozenset[str]:
    """Returns the names of norm layer tensors that a file without a head may lack; empty if the file has a head.

    Some timm networks, such as LeViT, have no norm layer before the classifier if they are built without a classifier.
    """
    if backbone.library != TIMM or structure.pooled:
        return frozenset()
    if any(name.startswith(tuple(f"{head}." for head in structure.heads)) for name in candidate.tensors):
        return frozenset()
    size = next(iter(backbones.preprocessings(backbone).values())).image_size
    try:
        without = build_on_meta(backbone, 0, size).state_dict()
    except FILTER_ERRORS:  # the network always has a classifier
        return frozenset()
    complete = build_on_meta(backbone, 2, size).state_dict()
    classifiers = tuple(f"{head}." for head in structure.heads)
    return frozenset(
        name
        for name in complete.keys() - without.keys()
        if complete[name].ndim < 2 and not name.startswith(classifiers)
    )


def convert(
    candidate: WeightCandidate,
    backbone: Backbone,
    structure: NetworkStructure,
    module: nn.Module,
    image_size: int,
    absent: frozenset[str] = frozenset(),
) -> dict[str, Tensor]:
    """Returns a candidate's tensors with the names and, if possible, the shapes that `module` expects.

    timm and torchvision do the conversion, for example by renaming tensors from older versions or resizing position
    embeddings to the image size. The tensors are unchanged if the library cannot convert them. Tensors
    named in `absent` are optional and are not returned.
    """
    tensors = with_versions(candidate)
    if backbone.library in (BUILTIN, TORCHVISION):
        return convert_torchvision(tensors, module, image_size)
    if backbone.library == BUNDLED and not tensors.keys() & module.state_dict().keys():
        return rename_by_order(tensors, module)
    state = tensors
    for classes, variant in _with_heads(tensors, backbone, structure, module, absent):
        try:
            converted = _convert_timm(variant, backbone, classes, image_size)
            state = {name: tensor for name, tensor in converted.items() if name not in absent}
            break
        except FILTER_ERRORS:
            continue
    return {f"{ENCODER_PREFIX}{name}": tensor for name, tensor in state.items()} if structure.pooled else state


def with_versions(candidate: WeightCandidate) -> dict[str, Tensor]:
    """Returns a candidate's tensors with their format versions in `_metadata`, as in a torch state dict."""
    tensors = OrderedDict(candidate.tensors)
    if candidate.versions is not None:
        metadata = {name: {"version": version} for name, version in candidate.versions.items()}
        cast("Any", tensors)._metadata = metadata
    return tensors


def rename_by_order(tensors: Mapping[str, Tensor], module: nn.Module) -> dict[str, Tensor]:
    """Renames the tensors of bundled weights to the names in `module` by position, unless the counts differ."""
    names = list(module.state_dict())
    return dict(zip(names, tensors.values(), strict=True)) if len(names) == len(tensors) else dict(tensors)


def convert_torchvision(tensors: Mapping[str, Tensor], module: nn.Module, image_size: int) -> dict[str, Tensor]:
    """Updates old DenseNet tensor names and resizes ViT position embeddings."""
    from torchvision.models.vision_transformer import VisionTransformer, interpolate_embeddings

    state = _rename(tensors, r"^(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\..*)$", r"\1\2")
    if isinstance(module, VisionTransformer) and "encoder.pos_embedding" in state:
        return dict(interpolate_embeddings(image_size, module.patch_size, state))
    return state


def timm_pretrained(
    tensors: Mapping[str, Tensor], backbone: Backbone, classes: int, image_size: int, **overlay: object
) -> tuple[nn.Module, set[str]]:
    """Returns a network loaded by timm, and the names of its tensors that are missing from the file.

    timm accepts incomplete files for some model families. Missing tensors keep their initial values, so they are
    identified by comparison with another network initialized with the same seed.
    """
    overlay = {"state_dict": tensors, "custom_load": False, **overlay}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = backbones.timm_network(backbone, classes, image_size, pretrained=True, pretrained_cfg_overlay=overlay)
        cast("Any", network).pretrained_cfg.pop("state_dict")  # frees the second copy
        state = network.state_dict()
        if state.keys() <= tensors.keys():
            return network, set()
        torch.manual_seed(0)
        initial = backbones.create_network(backbone, classes, image_size).state_dict()
    missing = state.keys() - tensors.keys()
    return network, {name for name in missing if _is_initial(state[name], initial[name])}


def _with_heads(
    tensors: dict[str, Tensor],
    backbone: Backbone,
    structure: NetworkStructure,
    module: nn.Module,
    absent: frozenset[str],
) -> Iterator[tuple[int, dict[str, Tensor]]]:
    """Yields (class count, tensors) pairs: the given tensors, then the same tensors with the heads of `module`.

    If the image size differs from that of the weights, timm loads only complete networks, but the file may have no
    head or a different one. It does not matter which head is loaded, because heads are replaced anyway.
    """
    heads = [tensors[f"{name}.weight"] for name in structure.heads if f"{name}.weight" in tensors]
    yield len(heads[0]) if heads else int(backbones.timm_cfg(backbone).num_classes), OrderedDict(tensors)
    if not structure.pooled:
        parts = tuple(f"{name}." for name in (*structure.heads, *(extra.head for extra in structure.auxiliary)))
        state = module.state_dict()
        own = {name: tensor for name, tensor in state.items() if name.startswith(parts) or name in absent}
        others = {name: tensor for name, tensor in tensors.items() if not name.startswith(parts)}
        yield len(own[f"{structure.heads[0]}.weight"]), {**others, **own}


def _convert_timm(tensors: dict[str, Tensor], backbone: Backbone, classes: int, image_size: int) -> dict[str, Tensor]:
    """Converts the file's tensors by letting timm load them into a network."""
    network, missing = timm_pretrained(tensors, backbone, classes, image_size, num_classes=classes, label_offset=0)
    return {name: tensor for name, tensor in network.state_dict().items() if name not in missing}


def _is_initial(tensor: Tensor, initial: Tensor) -> bool:
    """Returns True if a tensor with two or more dimensions still has its random initial values."""
    is_random = tensor.ndim > 1 and bool((initial != initial.flatten()[0]).any())
    return is_random and torch.equal(tensor, initial)


def _rename(state: Mapping[str, Tensor], pattern: str, replacement: str) -> dict[str, Tensor]:
    """Replaces a pattern in all tensor names and preserves the format versions."""
    tensors = OrderedDict((re.sub(pattern, replacement, name), tensor) for name, tensor in state.items())
    if hasattr(state, "_metadata"):
        cast("Any", tensors)._metadata = state._metadata
    return tensors
