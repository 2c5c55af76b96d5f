"""Loads pretrained weights from files without running code stored in them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from torch import Tensor, nn

from . import backbones
from .backbones import BUNDLED, Backbone
from .checkpoint import StateDict, read_state_dicts
from .errors import WeightsError
from .structure import build_on_meta
from .weight_conversion import (
    ENCODER_PREFIX,
    convert,
    convert_torchvision,
    names_of_head,
    rename_by_order,
    timm_pretrained,
    with_versions,
)
from .weight_mismatch import describe_image_size, describe_mismatch, describe_types, describe_values, differences
from .weight_names import WeightCandidate, find_candidates

if TYPE_CHECKING:
    from .structure import NetworkStructure

NETWORK_PREFIX = "backbone."
"""Prefix added to the library's tensor names in a `Network` checkpoint."""

HEAD_PREFIX = "classifier."
"""Prefix of the names of the tensors in a `Head`, as in `classifier.weight` and `classifier.features`."""

_MAX_NAMED = 3


@dataclass(frozen=True)
class LoadedWeights:
    """Weights that were converted for a network.

    Attributes:
        tensors: Tensors keyed by their names in the network.
        summary: Sentence that says which tensors were loaded, renamed and resized, and which were not used.
    """

    tensors: Mapping[str, Tensor]
    summary: str


def load_backbone_weights(
    path: Path, backbone: Backbone, structure: NetworkStructure, module: nn.Module, image_size: int
) -> LoadedWeights:
    """Reads weights and converts their names and shapes to match `module`. Only the heads may differ.

    The file may contain library weights or a `Network` checkpoint. Library weights may be wrapped in a checkpoint
    (`model_ema`, `teacher`), have a prefix (`module.`, `backbone.`) or a different head, or be in half precision.

    Raises:
        WeightsError: The file is unreadable, contains NaN or infinity, or belongs to another network or image size.
    """
    heads = (*structure.heads, *(extra.head for extra in structure.auxiliary), *structure.unused_auxiliary)
    state_dicts = read_state_dicts(path)
    if own := _network_checkpoint(state_dicts, structure):
        if found := differences(own, module, heads):
            raise WeightsError(describe_mismatch(path, backbone, found))
        return _checked(path, LoadedWeights(own, f"weights from {path.name}: {len(own)} tensors loaded"), module)
    candidates = find_candidates(state_dicts, _expected(module, heads, ENCODER_PREFIX if structure.pooled else ""))
    mismatches = []
    for candidate in candidates:
        absent = names_of_head(candidate, backbone, structure)
        state = _plain(candidate, structure)
        if differences(state, module, heads, absent):
            state = convert(candidate, backbone, structure, module, image_size, absent)
        found = differences(state, module, heads, absent)
        if not found:
            used = {name: tensor for name, tensor in state.items() if not _is_within(name, heads)}
            return _checked(path, LoadedWeights(used, _summary(path, candidate, used, absent, structure)), module)
        mismatches.append((len(found), found, candidate, absent))
    _, found, candidate, absent = min(mismatches, key=lambda entry: entry[0])
    reason = describe_image_size(path, backbone, candidate.tensors, heads, absent, image_size)
    raise WeightsError(reason or describe_mismatch(path, backbone, found))


def copy_weights(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Copies tensors with matching names and shapes into a network in place."""
    expected = {name: tensor.shape for name, tensor in module.state_dict().items()}
    usable = {name: tensor for name, tensor in state.items() if expected.get(name) == tensor.shape}
    module.load_state_dict(with_format_version(usable, module), strict=False)


def load_pretrained_classifier(backbone: Backbone, path: Path, classes: int, image_size: int) -> nn.Module:
    """Builds a library's network with its original pretrained classifier.

    Raises:
        WeightsError: The weights are unreadable, belong to another network, or do not include a classifier.
    """
    if classes == 0:
        raise WeightsError(f"{backbone.key} has no pretrained classifier; fine-tune it instead of using it directly")
    expected = _expected(build_on_meta(backbone, classes, image_size), ())
    tensors = with_versions(find_candidates(read_state_dicts(path), expected)[0])
    if reason := describe_values(path, tensors):
        raise WeightsError(reason)
    if backbone.library == backbones.TIMM:
        return _timm_classifier(tensors, backbone, classes, image_size, path)
    module = backbones.create_network(backbone, classes, image_size)
    if backbone.library == BUNDLED:
        state = rename_by_order(tensors, module)
    else:
        state = convert_torchvision(tensors, module, image_size)
    if found := differences(state, module):
        raise WeightsError(describe_mismatch(path, backbone, found))
    module.load_state_dict(with_format_version(state, module))
    return module


def with_format_version(state: Mapping[str, Any], module: nn.Module) -> Mapping[str, Any]:
    """Adds the network's format version to a state dict that has none, such as one loaded from safetensors."""
    if hasattr(state, "_metadata"):
        return state
    versioned: OrderedDict[str, Any] = OrderedDict(state)
    metadata = cast("Any", module.state_dict())._metadata
    has_counters = any(name.endswith("num_batches_tracked") for name in state)
    cast("Any", versioned)._metadata = metadata if has_counters else {"": metadata[""]}
    return versioned


def _network_checkpoint(state_dicts: list[StateDict], structure: NetworkStructure) -> dict[str, Tensor]:
    """Returns the tensors of a `Network` checkpoint without their prefix; empty for other files."""
    head = f"{NETWORK_PREFIX}{structure.heads[0]}.{HEAD_PREFIX}"
    tensors = state_dicts[0].tensors
    if not any(name.startswith(head) for name in tensors) or not all(
        name.startswith(NETWORK_PREFIX) for name in tensors
    ):
        return {}
    return {name.removeprefix(NETWORK_PREFIX): tensor for name, tensor in tensors.items()}


def _expected(module: nn.Module, heads: tuple[str, ...], prefix: str = "") -> dict[str, tuple[int, ...]]:
    """Returns the shapes of a network's tensors outside its heads, keyed by the library's names."""
    state = module.state_dict()
    return {
        name.removeprefix(prefix): tuple(tensor.shape) for name, tensor in state.items() if not _is_within(name, heads)
    }


def _is_within(name: str, modules: tuple[str, ...]) -> bool:
    return name.startswith(tuple(f"{module}." for module in modules))


def _plain(candidate: WeightCandidate, structure: NetworkStructure) -> dict[str, Tensor]:
    prefix = ENCODER_PREFIX if structure.pooled else ""
    return {f"{prefix}{name}": tensor for name, tensor in with_versions(candidate).items()}


def _checked(path: Path, weights: LoadedWeights, module: nn.Module) -> LoadedWeights:
    reason = describe_values(path, weights.tensors) or describe_types(path, weights.tensors, module)
    if reason:
        raise WeightsError(reason)
    return weights


def _summary(
    path: Path,
    candidate: WeightCandidate,
    used: Mapping[str, Tensor],
    absent: frozenset[str],
    structure: NetworkStructure,
) -> str:
    source = ".".join(part for part in (candidate.path, candidate.prefix.removesuffix(".")) if part)
    prefix = ENCODER_PREFIX if structure.pooled else ""
    original = {f"{prefix}{name}": tuple(tensor.shape) for name, tensor in candidate.tensors.items()}
    renamed = sum(name not in original for name in used)
    resized = [
        f"{name} {original[name]} to {tuple(tensor.shape)}"
        for name, tensor in used.items()
        if original.get(name, tensor.shape) != tuple(tensor.shape)
    ]
    heads = [name for name in original if _is_within(name, structure.heads)]
    parts = [f"weights from {path.name}{f' ({source})' if source else ''}: {len(used)} tensors loaded"]
    parts += [f"{renamed} renamed"] if renamed else []
    parts += [f"resized {_listed(resized)}"] if resized else []
    parts += [f"not in the file: {_listed(sorted(absent))}"] if absent else []
    parts += [f"not used: {_listed([*heads, *candidate.unused])}"] if heads or candidate.unused else []
    return "; ".join(parts)


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    more = f" and {len(names) - _MAX_NAMED} more" if len(names) > _MAX_NAMED else ""
    return ", ".join(names[:_MAX_NAMED]) + more


def _timm_classifier(
    tensors: dict[str, Tensor], backbone: Backbone, classes: int, image_size: int, path: Path
) -> nn.Module:
    try:
        network, missing = timm_pretrained(tensors, backbone, classes, image_size)
    except RuntimeError as error:
        module = backbones.create_network(backbone, classes, image_size)
        raise WeightsError(describe_mismatch(path, backbone, differences(tensors, module))) from error
    if missing:
        raise WeightsError(describe_mismatch(path, backbone, differences(tensors, network)))
    return network
