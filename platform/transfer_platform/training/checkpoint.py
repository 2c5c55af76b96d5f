"""Loads safetensors files and writes them atomically."""

import os
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from transfer_registry.files import atomic_write


def save(tensors: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str]) -> None:
    """Atomically writes named tensors to a file, creating missing parent folders.

    Tensors that share memory are written as separate copies, because safetensors rejects shared memory. The metadata
    can be read without loading the tensors.
    """
    state = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as temporary:
        save_file(state, temporary, metadata=dict(metadata))
        # Without fsync before the rename, a power failure could leave an empty file.
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())


def load(path: Path) -> dict[str, Tensor]:
    """Returns the tensors of a checkpoint on the CPU, keyed by name."""
    return load_file(path)


def metadata(path: Path) -> dict[str, str]:
    """Returns the metadata of a checkpoint, or an empty dictionary if the file is missing or corrupt."""
    try:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except (OSError, SafetensorError):
        return {}
