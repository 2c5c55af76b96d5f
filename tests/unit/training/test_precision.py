"""Selection of the precision."""

from __future__ import annotations

import time

import pytest
import torch

from transfer_platform.training import precision
from transfer_platform.training.precision import fastest_precision


@pytest.mark.parametrize(
    ("float32_seconds", "bfloat16_seconds", "expected"),
    [(0.03, 0.001, "bfloat16"), (0.001, 0.03, "float32"), (0.02, 0.0199, "float32")],
)
def test_a_lower_precision_is_selected_if_it_is_clearly_faster(
    float32_seconds: float, bfloat16_seconds: float, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "_emulates_bfloat16", lambda: False)

    def step() -> None:
        time.sleep(bfloat16_seconds if torch.is_autocast_enabled("cpu") else float32_seconds)

    assert fastest_precision(torch.device("cpu"), step) == expected


def test_emulated_bfloat16_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "_emulates_bfloat16", lambda: True)
    steps: list[int] = []
    assert fastest_precision(torch.device("cpu"), lambda: steps.append(1)) == "float32"
    assert not steps
