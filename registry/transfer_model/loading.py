"""Pretrained weights: how they get from a file into a network. Nothing is ever unpickled."""

from __future__ import annotations

import pickle
import re
from collections import OrderedDict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

import safetensors
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from . import backbones
from .backbones import BUNDLED, TORCHVISION, Backbone
from .errors import WeightsError

if TYPE_CHECKING:
    from pathlib import Path

    from .anatomy import Anatomy

NETWORK_PREFIX = "backbone."
HEAD_PREFIX = "classifier."
"""How a checkpoint of a `Network` names the library's tensors, and a `Head`'s below the library's name."""

_DENSENET = re.compile(r"^(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\..*)$")
_LISTED = 20


def read(path: Path) -> dict[str, Tensor]:
    """Reads the tensors of a safetensors or torch file, by name; what is not a tensor is left aside.

    Training checkpoints are looked into (`state_dict_ema`, `model_ema`, `state_dict`, `model`), and the
    prefixes of data-parallel and compiled networks are removed.

    Raises:
        WeightsError: There is no such file, or it holds anything but tensors and plain values.
    """
    if not path.is_file():
        raise WeightsError(f"there is no weights file {path}")
    try:
        loaded = load_file(path) if _is_safetensors(path) else _load_torch(path)
    except (safetensors.SafetensorError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise WeightsError(f"{path} is no safetensors or torch file, or is cut off: {error}") from error
    found = _unwrapped(loaded)
    if not found:
        raise WeightsError(f"{path} holds no tensors by name; expected a state dict")
    return found


def fitted(
    path: Path, backbone: Backbone, anatomy: Anatomy, module: nn.Module, image_size: int
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
    found = read(path)
    aside = (*anatomy.heads, *(extra.head for extra in anatomy.auxiliary), *anatomy.left_out)
    if all(name.startswith(NETWORK_PREFIX) for name in found):
        state = {name.removeprefix(NETWORK_PREFIX): tensor for name, tensor in found.items()}
    else:
        state = _translated(found, backbone, anatomy, module, image_size)
    if lines := differences(state, module, aside):
        raise WeightsError(_misfit(path, backbone, lines))
    return state


def fill(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Copies the tensors that fit into a network, in place; `fitted` has made sure that only heads do not."""
    expected = {name: tensor.shape for name, tensor in module.state_dict().items()}
    usable = {name: tensor for name, tensor in state.items() if expected.get(name) == tensor.shape}
    module.load_state_dict(versioned(usable, module), strict=False)


def classifier(backbone: Backbone, path: Path, classes: int, image_size: int) -> nn.Module:
    """Builds a library's network with its own pretrained classifier.

    Raises:
        WeightsError: The weights cannot be read, belong to another network, or have no classifier.
    """
    if classes == 0:
        raise WeightsError(f"{backbone.key} was pretrained without classes: it can be trained, not asked")
    found = read(path)
    if backbone.library == backbones.TIMM:
        return _loaded_by_timm(found, backbone, classes, image_size, path)
    module = backbones.create(backbone, classes, image_size)
    state = _in_order(found, module) if backbone.library == BUNDLED else _modern(found, module, image_size)
    if lines := differences(state, module):
        raise WeightsError(_misfit(path, backbone, lines))
    module.load_state_dict(versioned(state, module))
    return module


def differences(found: Mapping[str, Tensor], module: nn.Module, aside: tuple[str, ...] = ()) -> list[str]:
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


def versioned(state: Mapping[str, Any], module: nn.Module) -> Mapping[str, Any]:
    """Gives plain tensors the format version that torch's own files carry: that of the network itself."""
    if hasattr(state, "_metadata"):
        return state
    copied: OrderedDict[str, Any] = OrderedDict(state)
    own = cast("Any", module.state_dict())._metadata
    has_counters = any(name.endswith("num_batches_tracked") for name in state)
    cast("Any", copied)._metadata = own if has_counters else {"": own[""]}
    return copied


def _is_safetensors(path: Path) -> bool:
    """By content: eight bytes of length, then JSON. Fetched files need not keep their names."""
    with path.open("rb") as file:
        return file.read(9)[8:] == b"{"


def _load_torch(path: Path) -> Any:  # noqa: ANN401 - whatever a torch file holds
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{path} is no torch file, or holds more than tensors and is not opened, because that could run "
            "code; where you trust it, load it with torch elsewhere and save its state dict as safetensors"
        ) from error


def _unwrapped(loaded: Any) -> dict[str, Tensor]:  # noqa: ANN401 - whatever a torch file holds
    for key in ("state_dict_ema", "model_ema", "state_dict", "model"):
        if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping):
            loaded = loaded[key]
            break
    if not isinstance(loaded, Mapping):
        return {}
    tensors = OrderedDict(
        (re.sub(r"^(module\.|_orig_mod\.)+", "", name), tensor)
        for name, tensor in loaded.items()
        if isinstance(tensor, Tensor)
    )
    if hasattr(loaded, "_metadata"):
        cast("Any", tensors)._metadata = loaded._metadata
    return tensors


def _translated(
    found: dict[str, Tensor], backbone: Backbone, anatomy: Anatomy, module: nn.Module, image_size: int
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


def _classes(found: Mapping[str, Tensor], backbone: Backbone, anatomy: Anatomy) -> int:
    """How many classes a file's own head tells apart, as timm must know to load it without gaps."""
    heads = (found.get(f"{name}.weight") for name in anatomy.heads)
    sizes = [len(head) for head in heads if head is not None]
    return sizes[0] if sizes else int(backbones.timm_cfg(backbone).num_classes)


def _by_timm(
    found: dict[str, Tensor], backbone: Backbone, classes: int, image_size: int
) -> dict[str, Tensor]:
    """Lets timm load tensors into a network of its own, with its conversions, and takes them from there."""
    network = _timm_pretrained(found, backbone, classes, image_size, num_classes=classes, label_offset=0)
    return cast("dict[str, Tensor]", network.state_dict())


def _timm_pretrained(
    found: dict[str, Tensor], backbone: Backbone, classes: int, image_size: int, **overlay: object
) -> nn.Module:
    overlay = {"state_dict": found, "custom_load": False, **overlay}
    network = backbones.timm_network(
        backbone, classes, image_size, pretrained=True, pretrained_cfg_overlay=overlay
    )
    cast("Any", network).pretrained_cfg.pop("state_dict")  # or both copies would stay in memory
    return network


def _loaded_by_timm(
    found: dict[str, Tensor], backbone: Backbone, classes: int, image_size: int, path: Path
) -> nn.Module:
    try:
        return _timm_pretrained(found, backbone, classes, image_size)
    except RuntimeError as error:
        module = backbones.create(backbone, classes, image_size)
        raise WeightsError(_misfit(path, backbone, differences(found, module))) from error


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
