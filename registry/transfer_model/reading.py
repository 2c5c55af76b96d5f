"""Tensors from files: safetensors and torch's own format. Nothing is ever unpickled."""

from __future__ import annotations

import pickle
import re
from collections import OrderedDict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

import safetensors
import torch
from safetensors.torch import load_file
from torch import Tensor

from .errors import WeightsError

if TYPE_CHECKING:
    from pathlib import Path


def read_tensors(path: Path) -> dict[str, Tensor]:
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
