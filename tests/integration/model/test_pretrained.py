from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from transfer_model import catalog, weight_sources
from transfer_model.decode import decode
from transfer_model.network import NetworkSpec, build_network, build_pretrained_classifier

if TYPE_CHECKING:
    from pathlib import Path

CLASSES = {"ants": "ant", "bees": "bee"}


def test_the_installed_weights_classify_ants_and_bees(photographs: Path) -> None:
    path = weight_sources.locate_weights("efficientnet_lite0", "default").path
    assert path is not None
    network, names = build_pretrained_classifier("efficientnet_lite0", path)
    preprocessing = catalog.backbone_info("efficientnet_lite0").preprocessing
    correct = []
    for folder, name in CLASSES.items():
        files = sorted((photographs / "val" / folder).glob("*.jpg"))[:20]
        batch = torch.stack([preprocessing(decode(file)) for file in files])
        with torch.inference_mode():
            correct += [names[index] == name for index in network(batch).argmax(dim=1)]
    assert sum(correct) >= 30, f"{sum(correct)} of {len(correct)}"


def test_a_new_head_leaves_the_features_unchanged(photographs: Path) -> None:
    path = weight_sources.locate_weights("efficientnet_lite0", "default").path
    assert path is not None
    original, _ = build_pretrained_classifier("efficientnet_lite0", path)
    network = build_network(NetworkSpec("efficientnet_lite0", 2, 0.2, 224), path).eval()
    decoded = decode(sorted((photographs / "val" / "bees").glob("*.jpg"))[0])
    image = catalog.backbone_info("efficientnet_lite0").preprocessing(decoded)[None]
    with torch.inference_mode():
        features = network.forward_features(image)
        assert torch.equal(original.get_submodule("classifier")(features), original(image))
