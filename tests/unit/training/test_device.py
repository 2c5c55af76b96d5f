"""Selection of the device."""

from __future__ import annotations

import pytest
import torch

from transfer_platform.errors import TrainingError
from transfer_platform.training.device import choose_device


def test_an_unavailable_device_is_an_error() -> None:
    with pytest.raises(TrainingError, match="device 'cuda:97' is not available"):
        choose_device("cuda:97")
    with pytest.raises(TrainingError, match="device 'abacus' is not available"):
        choose_device("abacus")


def test_auto_selects_an_available_device() -> None:
    assert choose_device().type == ("cuda" if torch.cuda.is_available() else choose_device().type)
    assert choose_device("cpu") == torch.device("cpu")


def test_auto_uses_the_environment_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLATFORM_DEVICE", "cuda:97")
    with pytest.raises(TrainingError, match="device 'cuda:97' is not available"):
        choose_device()
    assert choose_device("cpu").type == "cpu"
    monkeypatch.setenv("PLATFORM_DEVICE", "cpu")
    assert choose_device().type == "cpu"
