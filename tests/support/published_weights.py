"""Weights files as torchvision publishes them, with random values, on a mirror."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torchvision
from torch import nn

from transfer_model import backbones


def publish(architecture: str, mirror: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[nn.Module, str]:
    """Writes the file of the default weights, and makes its checksum part of its URL, as in the published name.

    Returns the network that has the weights, in eval mode, and the SHA-256 of the file.
    """
    real = torchvision.models.get_model_weights(architecture).DEFAULT
    torch.manual_seed(0)
    inception = {"transform_input": True, "init_weights": False} if architecture == "inception_v3" else {}
    network = torchvision.models.get_model(architecture, weights=None, **inception)
    state = {published_name(architecture, name): tensor for name, tensor in network.state_dict().items()}
    torch.save(state, mirror / "random.pth")
    with (mirror / "random.pth").open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    url = re.sub(r"-[0-9a-f]{8}\.pth$", f"-{sha256[:8]}.pth", real.url)
    (mirror / "random.pth").rename(mirror / Path(url).name)
    published = SimpleNamespace(url=url, meta=real.meta, transforms=real.transforms)
    monkeypatch.setattr(backbones, "torchvision_weights", lambda _: {real.name: published})
    monkeypatch.setenv("PLATFORM_MIRROR", str(mirror))
    return network.eval(), sha256


def published_name(architecture: str, name: str) -> str:
    """Returns the older tensor names in the published files of DenseNet, which torchvision renames."""
    if not architecture.startswith("densenet"):
        return name
    return re.sub(r"(denselayer\d+\.(?:norm|conv))([12])\.", r"\1.\2.", name)
