"""Weights on disk: what training changed, in safetensors, written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from transfer_registry.files import atomic_write


def save(tensors: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str]) -> None:
    """Writes tensors by their names.

    Tensors that share memory are written once each, so that any reader gets a plain state dict.

    Args:
        tensors: On any device, in any memory layout.
        path: Replaced atomically; its folder is made.
        metadata: Readable without loading the tensors: metric, epoch, trial.
    """
    state = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as unfinished:
        save_file(state, unfinished, metadata=dict(metadata))
        # Renamed before it is on the disk, a power cut would leave it empty.
        with unfinished.open("rb+") as file:
            os.fsync(file.fileno())


def load(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint by their names, on the CPU."""
    return load_file(path)


def metadata(path: Path) -> dict[str, str]:
    """What was written beside the weights; empty where there is no checkpoint, or a damaged one."""
    try:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except (OSError, SafetensorError):
        return {}
