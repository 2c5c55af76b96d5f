from __future__ import annotations

import pytest

from transfer_model.weights_path import is_weights_file


@pytest.mark.parametrize(
    "weights", ["lit.ckpt", "w.safetensors", "w.pth", "pytorch_model.bin", "checkpoints/last", "./w"]
)
def test_files(weights: str) -> None:
    assert is_weights_file(weights)


@pytest.mark.parametrize("weights", ["default", "none", "IMAGENET1K_V2", "a1_in1k", "fb_in22k_ft_in1k_384"])
def test_names_of_published_weights(weights: str) -> None:
    assert not is_weights_file(weights)
