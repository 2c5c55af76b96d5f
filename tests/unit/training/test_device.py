"""Selection of the device."""

from __future__ import annotations

import re

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


@pytest.mark.parametrize(
    "reason",
    [
        "CUDA error: no kernel image is available for execution on the device",
        "CUDA error: all CUDA-capable devices are busy or unavailable",
        "CUDA error: out of memory",
    ],
)
@pytest.mark.parametrize("name", ["auto", "cuda"])
def test_a_gpu_that_cannot_compute_is_an_error(name: str, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError(f"{reason}\nCUDA kernel errors might be asynchronously reported")

    monkeypatch.delenv("PLATFORM_DEVICE", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch, "ones", fail)
    with pytest.raises(TrainingError, match=re.escape(f"device 'cuda' is not available ({reason})")) as error:
        choose_device(name)
    assert "--device cpu" in str(error.value)


def test_a_device_without_data_is_an_error() -> None:
    with pytest.raises(TrainingError, match="device 'meta' is not available"):
        choose_device("meta")
