from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from transfer_model import catalog, weight_sources
from transfer_model.backbones import BUNDLED_NETWORKS
from transfer_model.decode import decode
from transfer_model.network import NetworkSpec, build_network, build_pretrained_classifier

if TYPE_CHECKING:
    from pathlib import Path

CLASSES = {"ants": "ant", "bees": "bee"}


pytestmark = pytest.mark.parametrize("backbone", BUNDLED_NETWORKS)


def test_the_installed_weights_classify_ants_and_bees(backbone: str, photographs: Path) -> None:
    path = weight_sources.locate_weights(backbone, "default").path
    assert path is not None
    network, names = build_pretrained_classifier(backbone, path)
    preprocessing = catalog.backbone_info(backbone).preprocessing
    correct = []
    for folder, name in CLASSES.items():
        files = sorted((photographs / "val" / folder).glob("*.jpg"))[:20]
        batch = torch.stack([preprocessing(decode(file)) for file in files])
        with torch.inference_mode():
            correct += [names[index] == name for index in network(batch).argmax(dim=1)]
    assert sum(correct) >= 30, f"{sum(correct)} of {len(correct)}"


def test_a_linear_probe_on_the_features_separates_ants_from_bees(backbone: str, photographs: Path) -> None:
    path = weight_sources.locate_weights(backbone, "default").path
    preprocessing = catalog.backbone_info(backbone).preprocessing
    network = build_network(NetworkSpec(backbone, 2, 0.0, preprocessing.image_size), path).eval()

    def features(split: str) -> tuple[np.ndarray, list[str]]:
        files = [file for folder in CLASSES for file in sorted((photographs / split / folder).glob("*.jpg"))[:60]]
        with torch.inference_mode():
            rows = [network.forward_features(preprocessing(decode(file))[None]).flatten() for file in files]
        return torch.stack(rows).numpy(), [file.parent.name for file in files]

    probe = LogisticRegression(C=0.01, max_iter=1000).fit(*features("train"))
    assert probe.score(*features("val")) >= 0.92


def test_a_new_head_leaves_the_features_unchanged(backbone: str, photographs: Path) -> None:
    path = weight_sources.locate_weights(backbone, "default").path
    assert path is not None
    original, _ = build_pretrained_classifier(backbone, path)
    preprocessing = catalog.backbone_info(backbone).preprocessing
    network = build_network(NetworkSpec(backbone, 2, 0.2, preprocessing.image_size), path).eval()
    image = preprocessing(decode(sorted((photographs / "val" / "bees").glob("*.jpg"))[0]))[None]
    with torch.inference_mode():
        features = network.forward_features(image)
        assert torch.equal(original.get_submodule("classifier")(features), original(image))
