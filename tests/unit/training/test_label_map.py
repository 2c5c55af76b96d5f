"""Heads that are copied from the classifier of the pretrained weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from transfer_model.architecture import Architecture
from transfer_model.errors import ModelError
from transfer_model.network import NetworkSpec, build_network, build_pretrained_classifier
from transfer_platform.errors import RecipeError
from transfer_platform.recipe.label_map import label_rows, pretrained_labels, require_classes
from transfer_platform.sources.weights import fetch_weights
from transfer_platform.training.network_cache import prepare_network

BACKBONE = Architecture("efficientnet_lite0")
LABEL_MAP = {"insect": ("ant", "bee", "crane"), "vehicle": ("minivan",)}


@pytest.fixture(scope="module")
def weights() -> Path:
    path = fetch_weights(BACKBONE, "default", Path()).path
    assert path is not None
    return path


def test_its_classes_have_the_probabilities_of_their_labels(weights: Path) -> None:
    pretrained, names = build_pretrained_classifier(BACKBONE, weights)
    assert names == pretrained_labels(BACKBONE, "default")
    rows = label_rows(LABEL_MAP, names, ["insect", "vehicle"])
    assert len(rows[0]) == 4  # two labels are called crane
    spec = NetworkSpec(BACKBONE, 2, 0.0, 224, tuple(map(len, rows)))
    network = prepare_network(spec, weights, "all", 0, torch.device("cpu"), [*rows[0], *rows[1]]).network.eval()
    images = torch.randn(1, 3, 224, 224)
    with torch.inference_mode():
        all_probabilities: Tensor = pretrained(images).softmax(1)
        insect, vehicle = (all_probabilities[:, list(part)].sum(1) for part in rows)
        ours = network(images).softmax(1)
    assert torch.allclose(ours[:, 0], insect / (insect + vehicle), atol=1e-5)


def test_a_network_whose_logits_are_not_the_output_of_its_head_is_refused() -> None:
    network = build_network(NetworkSpec("squeezenet1_1", 2, 0.0, 64))
    with pytest.raises(ModelError, match="are not the output of a single head"):
        network.copy_label_rows(network, [0, 1])


@pytest.mark.parametrize(("weights", "known"), [("none", 0), ("default", 1000), ("./own.pth", 1000)])
def test_a_file_has_the_labels_of_the_default_weights(weights: str, known: int) -> None:
    assert len(pretrained_labels(BACKBONE, weights)) == known


def test_the_classes_must_be_those_of_the_dataset() -> None:
    require_classes(None, ["ants", "bees"])
    require_classes({"bees": ["bee"], "ants": ["ant"]}, ["ants", "bees"])
    with pytest.raises(RecipeError, match=r"must have the classes of the dataset \(ants, bees\), but has ants, wasps"):
        require_classes({"ants": ["ant"], "wasps": ["bee"]}, ["ants", "bees"])
