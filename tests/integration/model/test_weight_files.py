"""Weights files that need conversion or a format version."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

import pytest
import torch
import torchvision
from network_states import assert_backbone_is, spec, state
from safetensors.torch import save_file

from transfer_model.network import build_network

if TYPE_CHECKING:
    from pathlib import Path


def test_older_names_of_densenet(tmp_path: Path) -> None:
    original = torchvision.models.densenet121(weights=None, num_classes=5)
    older = OrderedDict(
        (name.replace("norm1.", "norm.1.").replace("conv2.", "conv.2."), tensor)
        for name, tensor in original.state_dict().items()
    )
    torch.save(older, tmp_path / "weights.pth")
    network = build_network(spec("torchvision/densenet121"), tmp_path / "weights.pth")
    assert_backbone_is(network, state(original), heads=("classifier",))


def test_auxiliary_branches_are_ignored_for_small_images(tmp_path: Path) -> None:
    original = torchvision.models.inception_v3(weights=None, init_weights=False)
    torch.save(original.state_dict(), tmp_path / "weights.pth")
    network = build_network(spec("torchvision/inception_v3", size=80), tmp_path / "weights.pth")
    assert_backbone_is(network, state(original), heads=("fc", "AuxLogits"))


def test_position_embeddings_of_torchvision_are_resized(tmp_path: Path) -> None:
    original = torchvision.models.vit_b_32(weights=None)
    torch.save(original.state_dict(), tmp_path / "weights.pth")
    network = build_network(spec("torchvision/vit_b_32", size=64), tmp_path / "weights.pth")
    assert_backbone_is(network, state(original), heads=("heads", "encoder.pos_embedding"))
    resized = network.backbone.get_parameter("encoder.pos_embedding")
    assert torch.equal(resized[:, 0], original.encoder.pos_embedding[:, 0])


@pytest.mark.parametrize("name", ["torchvision/mnasnet0_5", "torchvision/googlenet", "timm/qwen3_vit_88m_enc"])
def test_a_checkpoint_of_a_network_as_safetensors(name: str, tmp_path: Path) -> None:
    network = build_network(spec(name))
    save_file(state(network), tmp_path / "weights.safetensors")
    again = build_network(spec(name), tmp_path / "weights.safetensors")
    assert all(torch.equal(tensor, again.state_dict()[key]) for key, tensor in network.state_dict().items())
    again.load_state_dict(state(network))
