"""Which device, and which arithmetic."""

from __future__ import annotations

import time

import pytest
import torch

from transfer_platform.errors import TrainingError
from transfer_platform.training import device
from transfer_platform.training.device import choose_device, choose_precision


def test_a_device_that_is_not_there_is_an_error() -> None:
    with pytest.raises(TrainingError, match="there is no device 'cuda:97'"):
        choose_device("cuda:97")
    with pytest.raises(TrainingError, match="there is no device 'abacus'"):
        choose_device("abacus")


def test_automatic_takes_what_there_is() -> None:
    assert choose_device().type == ("cuda" if torch.cuda.is_available() else choose_device().type)
    assert choose_device("cpu") == torch.device("cpu")


def test_the_environment_chooses_where_nobody_else_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLATFORM_DEVICE", "cuda:97")
    with pytest.raises(TrainingError, match="there is no device 'cuda:97'"):
        choose_device()
    assert choose_device("cpu").type == "cpu"
    monkeypatch.setenv("PLATFORM_DEVICE", "cpu")
    assert choose_device().type == "cpu"


@pytest.mark.parametrize(
    ("in_float32", "in_bfloat16", "chosen"),
    [(0.03, 0.001, "bfloat16"), (0.001, 0.03, "float32"), (0.02, 0.0199, "float32")],
)
def test_the_faster_arithmetic_is_chosen_where_it_is_worth_while(
    in_float32: float, in_bfloat16: float, chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "_emulates_bfloat16", lambda: False)

    def step() -> None:
        time.sleep(in_bfloat16 if torch.is_autocast_enabled("cpu") else in_float32)

    assert choose_precision(torch.device("cpu"), step) == chosen


def test_bfloat16_is_not_even_timed_where_it_would_be_emulated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "_emulates_bfloat16", lambda: True)
    timed: list[int] = []
    assert choose_precision(torch.device("cpu"), lambda: timed.append(1)) == "float32"
    assert not timed
