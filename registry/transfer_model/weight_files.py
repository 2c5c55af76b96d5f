"""Loads pretrained weights from files without running code stored in them."""

from __future__ import annotations

import pickle
import re
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import safetensors
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from . import backbones
from .backbones import BUNDLED, TORCHVISION, Backbone
from .errors import WeightsError

if TYPE_CHECKING:
    from .structure import NetworkStructure

NETWORK_PREFIX = "backbone."
"""Prefix added to the library's tensor names in a `Network` checkpoint."""

HEAD_PREFIX = "classifier."
"""Prefix of the tensor names within a `Head`, such as `classifier.weight`."""

_CHECKPOINT_KEYS = ("state_dict_ema", "model_ema", "state_dict", "model")
_MAX_LISTED = 20


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Reads the tensors from a safetensors or torch file, keyed by name; other values are ignored.

    In a training checkpoint, the tensors are read from `state_dict_ema`, `model_ema`, `state_dict` or `model`,
    whichever is found first. Prefixes added by data-parallel training and compilation are removed.

    Raises:
        WeightsError: The file is missing, has no named tensors, or contains objects other than tensors or plain values.
    """
    if not path.is_file():
        raise WeightsError(f"the weights file {path} does not exist")
    try:
        loaded = load_file(path) if _is_safetensors(path) else _load_torch(path)
    except (safetensors.SafetensorError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise WeightsError(f"{path} is not a safetensors or torch file, or is truncated: {error}") from error
    tensors = _state_dict(loaded)
    if not tensors:
        raise WeightsError(f"{path} contains no named tensors; expected a state dict")
    return tensors


def load_backbone_weights(
    path: Path, backbone: Backbone, structure: NetworkStructure, module: nn.Module, image_size: int
) -> dict[str, Tensor]:
    """Reads weights and converts their names and shapes to match `module`. Only the heads may differ.

    The file may contain library weights or a `Network` checkpoint. Library weights are converted by timm or
    torchvision, for example by renaming tensors from older versions or resizing position embeddings to the image size.

    Raises:
        WeightsError: The file is unreadable or belongs to another network; the message lists the differences.
    """
    tensors = read_tensors(path)
    heads = (*structure.heads, *(extra.head for extra in structure.auxiliary), *structure.unused_auxiliary)
    if all(name.startswith(NETWORK_PREFIX) for name in tensors):
        state = {name.removeprefix(NETWORK_PREFIX): tensor for name, tensor in tensors.items()}
    else:
        state = _convert(tensors, backbone, structure, module, image_size)
    if differences := _differences(state, module, heads):
        raise WeightsError(_mismatch(path, backbone, differences))
    return state


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
    tensors = read_tensors(path)
    if backbone.library == backbones.TIMM:
        return _timm_classifier(tensors, backbone, classes, image_size, path)
    module = backbones.create_network(backbone, classes, image_size)
    if backbone.library == BUNDLED:
        state = _rename_by_order(tensors, module)
    else:
        state = _convert_torchvision(tensors, module, image_size)
    if differences := _differences(state, module):
        raise WeightsError(_mismatch(path, backbone, differences))
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


def _is_safetensors(path: Path) -> bool:
    """Detects a safetensors file by its content (an 8-byte length, then JSON), because file names are unreliable."""
    with path.open("rb") as file:
        return file.read(9)[8:] == b"{"


def _load_torch(path: Path) -> Any:  # noqa: ANN401 - the content of a torch file
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{path} is not a torch file, or contains objects other than tensors, which could run code when loaded; "
            "if you trust the file, load it with torch and save its state dict as safetensors"
        ) from error


def _state_dict(loaded: Any) -> dict[str, Tensor]:  # noqa: ANN401 - the content of a torch file
    if not isinstance(loaded, Mapping):
        return {}
    loaded = next((loaded[key] for key in _CHECKPOINT_KEYS if isinstance(loaded.get(key), Mapping)), loaded)
    return _rename(loaded, r"^(module\.|_orig_mod\.)+", "")


def _rename(state: Mapping[str, Any], pattern: str, replacement: str) -> dict[str, Tensor]:
    """Replaces a pattern in all tensor names. Preserves the format version, but drops values that are not tensors."""
    tensors = OrderedDict(
        (re.sub(pattern, replacement, name), tensor) for name, tensor in state.items() if isinstance(tensor, Tensor)
    )
    if hasattr(state, "_metadata"):
        cast("Any", tensors)._metadata = state._metadata
    return tensors


def _differences(tensors: Mapping[str, Tensor], module: nn.Module, ignored: tuple[str, ...] = ()) -> list[str]:
    """Lists differences in names and shapes between a file (+) and a network (-), sorted by name.

    Missing `num_batches_tracked` tensors and tensors in the `ignored` modules are not listed.
    """
    skipped = tuple(f"{name}." for name in ignored)
    expected = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    actual = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    lines = []
    for name in sorted(expected.keys() | actual.keys()):
        counter = name.endswith("num_batches_tracked") and name not in actual
        if name.startswith(skipped) or counter or expected.get(name) == actual.get(name):
            continue
        lines += [f"- {name} {expected[name]}"] if name in expected else []
        lines += [f"+ {name} {actual[name]}"] if name in actual else []
    return lines


def _convert(
    tensors: dict[str, Tensor], backbone: Backbone, structure: NetworkStructure, module: nn.Module, image_size: int
) -> dict[str, Tensor]:
    if backbone.library == TORCHVISION:
        return _convert_torchvision(tensors, module, image_size)
    if backbone.library == BUNDLED and not tensors.keys() & module.state_dict().keys():
        return _rename_by_order(tensors, module)
    try:
        state = _convert_timm(tensors, backbone, _class_count(tensors, backbone, structure), image_size)
    except (RuntimeError, KeyError, AttributeError, ValueError, TypeError, IndexError, AssertionError):
        # timm's filters can raise any of these for tensors from another network; the caller reports the mismatch.
        state = tensors
    return {f"encoder.{name}": tensor for name, tensor in state.items()} if structure.pooled else state


def _class_count(tensors: Mapping[str, Tensor], backbone: Backbone, structure: NetworkStructure) -> int:
    """Returns the number of classes of the head in the file, or timm's default if the file has no head."""
    heads = (tensors.get(f"{name}.weight") for name in structure.heads)
    sizes = [len(head) for head in heads if head is not None]
    return sizes[0] if sizes else int(backbones.timm_cfg(backbone).num_classes)


def _convert_timm(tensors: dict[str, Tensor], backbone: Backbone, classes: int, image_size: int) -> dict[str, Tensor]:
    """Converts the file's tensors by letting timm load them into a network."""
    network, missing = _timm_pretrained(tensors, backbone, classes, image_size, num_classes=classes, label_offset=0)
    return {name: tensor for name, tensor in network.state_dict().items() if name not in missing}


def _timm_classifier(
    tensors: dict[str, Tensor], backbone: Backbone, classes: int, image_size: int, path: Path
) -> nn.Module:
    try:
        network, missing = _timm_pretrained(tensors, backbone, classes, image_size)
    except RuntimeError as error:
        module = backbones.create_network(backbone, classes, image_size)
        raise WeightsError(_mismatch(path, backbone, _differences(tensors, module))) from error
    if missing:
        raise WeightsError(_mismatch(path, backbone, _differences(tensors, network)))
    return network


def _timm_pretrained(
    tensors: dict[str, Tensor], backbone: Backbone, classes: int, image_size: int, **overlay: object
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


def _is_initial(tensor: Tensor, initial: Tensor) -> bool:
    """Returns True if a tensor with two or more dimensions still has its random initial values."""
    is_random = tensor.ndim > 1 and bool((initial != initial.flatten()[0]).any())
    return is_random and torch.equal(tensor, initial)


def _rename_by_order(tensors: Mapping[str, Tensor], module: nn.Module) -> dict[str, Tensor]:
    """Renames tensors by position, because the bundled weights use different names for the same tensors."""
    names = list(module.state_dict())
    return dict(zip(names, tensors.values(), strict=True)) if len(names) == len(tensors) else dict(tensors)


def _convert_torchvision(tensors: dict[str, Tensor], module: nn.Module, image_size: int) -> dict[str, Tensor]:
    """Updates old DenseNet tensor names and resizes ViT position embeddings."""
    from torchvision.models.vision_transformer import VisionTransformer, interpolate_embeddings

    state = _rename(tensors, r"^(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\..*)$", r"\1\2")
    if isinstance(module, VisionTransformer) and "encoder.pos_embedding" in state:
        return dict(interpolate_embeddings(image_size, module.patch_size, state))
    return state


def _mismatch(path: Path, backbone: Backbone, differences: list[str]) -> str:
    listed = "\n".join(differences[:_MAX_LISTED])
    more = f"\n... and {len(differences) - _MAX_LISTED} more" if len(differences) > _MAX_LISTED else ""
    return f"the weights in {path} do not match {backbone.key} (-: network, +: file):\n{listed}{more}"
