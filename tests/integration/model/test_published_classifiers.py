"""`platform classify` with weights files of torchvision's networks, with random values."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torchvision
from PIL import Image
from published_weights import publish

from transfer_model import catalog
from transfer_model.decode import decode
from transfer_platform.commands.classify import classify

NETWORKS = ("vgg16", "vgg19", "inception_v3", "densenet121", "resnet50")


@pytest.mark.parametrize("architecture", NETWORKS)
def test_the_five_most_probable_classes_are_those_of_torchvision(
    architecture: str, isolated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, photographs: Path
) -> None:
    network, _ = publish(architecture, tmp_path, monkeypatch)
    photo = sorted((photographs / "val" / "bees").glob("*.jpg"))[0]
    image = catalog.backbone_info(architecture).preprocessing(decode(photo))
    with torch.inference_mode():
        expected = network(image[None]).softmax(1)[0].topk(5)
    names = torchvision.models.get_model_weights(architecture).DEFAULT.meta["categories"]
    (result,) = classify([str(photo)], backbone=architecture, annotate=isolated / "named.png")
    assert result.classes == tuple(names[index] for index in expected.indices)
    assert result.probabilities == pytest.approx(expected.values.tolist(), rel=1e-4)
    with Image.open(isolated / "named.png") as drawn:
        assert drawn.size == decode(photo).size
        assert drawn.tobytes() != decode(photo).tobytes()
