"""Checkpoints on disk."""

from __future__ import annotations

import torch

from transfer_model.network import NetworkSpec, build_network
from transfer_platform.training import checkpoint


def test_a_checkpoint_restores_every_tensor_and_its_metadata(tmp_path) -> None:
    network = build_network(NetworkSpec("timm/test_resnet", 3, 0.0, 32)).to(memory_format=torch.channels_last)
    path = tmp_path / "study" / "best.safetensors"
    checkpoint.save(network.state_dict(), path, {"trial": "7"})

    state = checkpoint.load(path)
    assert state.keys() == network.state_dict().keys()
    assert all(torch.equal(state[name], tensor) for name, tensor in network.state_dict().items())
    assert checkpoint.metadata(path) == {"trial": "7"}
    assert [file.name for file in path.parent.iterdir()] == ["best.safetensors"]


def test_a_missing_checkpoint_has_no_metadata(tmp_path) -> None:
    assert checkpoint.metadata(tmp_path / "none.safetensors") == {}


def test_a_damaged_checkpoint_has_no_metadata(tmp_path) -> None:
    path = tmp_path / "best.safetensors"
    checkpoint.save({"a": torch.arange(1000)}, path, {"trial": "7"})
    content = path.read_bytes()
    for size in (0, 5, 40, len(content) - 1):
        path.write_bytes(content[:size])
        assert checkpoint.metadata(path) == {}
