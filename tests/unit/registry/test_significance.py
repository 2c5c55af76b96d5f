"""Tests, intervals and power, compared with independent calculations."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from transfer_registry.significance import (
    PairedResult,
    TrueEffect,
    gain_interval,
    holm_adjust,
    p_value,
    power,
    required_images,
    score_test,
)

PAIRS = 2000
ALLOWED = 0.05


def simulate(images: int, gain: float, discordant: float, seed: int = 0) -> list[PairedResult]:
    """Results of simulated pairs of models."""
    shares = [(discordant + gain) / 2, (discordant - gain) / 2, 1 - discordant]
    counts = np.random.default_rng(seed).multinomial(images, shares, PAIRS)
    return [PairedResult(images, int(better), int(worse)) for better, worse, _ in counts]


def pass_rate(pairs: list[PairedResult], margin: float = 0.0) -> float:
    """Fraction of pairs that pass."""
    return float(np.mean([p_value(paired, margin) <= ALLOWED for paired in pairs]))


@pytest.mark.parametrize("images", [150, 2000])
@pytest.mark.parametrize("discordant", [0.02, 0.1, 0.4])
def test_at_most_one_in_twenty_equal_models_passes(images: int, discordant: float) -> None:
    assert pass_rate(simulate(images, 0.0, discordant)) <= ALLOWED


@pytest.mark.parametrize("images", [150, 2000])
def test_at_the_margin_about_one_in_twenty_passes(images: int) -> None:
    # The test is asymptotic: 0.05 within three standard errors, and what small numbers add.
    assert pass_rate(simulate(images, -0.02, 0.1), margin=-0.02) <= ALLOWED + 0.02


def test_the_power_is_the_pass_rate() -> None:
    rate = pass_rate(simulate(500, 0.03, 0.1))
    assert power(500, TrueEffect(0.03, 0.1), 0.95) == pytest.approx(rate, abs=3 * math.sqrt(0.25 / PAIRS))
    rate = pass_rate(simulate(500, 0.0, 0.05), margin=-0.03)
    assert power(500, TrueEffect(0.0, 0.05, -0.03), 0.95) == pytest.approx(rate, abs=0.05)


def test_the_required_images_have_the_target_power() -> None:
    effect = TrueEffect(0.02, 0.1)
    needed = required_images(effect, 0.95, 0.8)
    assert power(needed, effect, 0.95) >= 0.8
    assert power(round(0.9 * needed), effect, 0.95) < 0.8


def test_without_a_margin_the_score_test_is_mcnemars() -> None:
    # z = (b - c) / sqrt(b + c)
    expected = 0.5 * math.erfc((30 - 14) / math.sqrt(44) / math.sqrt(2))
    assert score_test(PairedResult(200, 30, 14), 0.0) == pytest.approx(expected)


@pytest.mark.parametrize(("better", "worse", "margin"), [(30, 14, 0.05), (3, 5, -0.02), (0, 9, -0.1)])
def test_the_score_test_assumes_the_likeliest_models_at_the_margin(better: int, worse: int, margin: float) -> None:
    n = 200

    def unlikely(share: float) -> float:
        both = n - better - worse
        return -(better * math.log(share + margin) + worse * math.log(share) + both * math.log(1 - 2 * share - margin))

    low, high = max(0.0, -margin) + 1e-12, (1 - margin) / 2 - 1e-12
    share = minimize_scalar(unlikely, bounds=(low, high), method="bounded", options={"xatol": 1e-12}).x
    deviation = math.sqrt(n * (2 * share + margin - margin**2))
    expected = 0.5 * math.erfc((better - worse - n * margin) / deviation / math.sqrt(2))
    assert score_test(PairedResult(n, better, worse), margin) == pytest.approx(expected, rel=1e-4)


def test_the_interval_is_that_of_the_normal_approximation_where_that_holds() -> None:
    paired = PairedResult(2000, 120, 80)
    deviation = math.sqrt((paired.discordant_rate - paired.gain**2) / 2000)
    expected = (paired.gain - 1.96 * deviation, paired.gain + 1.96 * deviation)
    assert gain_interval(paired, 0.95) == pytest.approx(expected, abs=0.001)
    assert gain_interval(paired, 0.95) == gain_interval(paired, 0.95)
    assert gain_interval(PairedResult(10, 0, 0), 0.95) == (0.0, 0.0)


def test_holm_by_hand() -> None:
    # 3 x 0.01, then 2 x 0.02, then 0.03, which may not fall below its predecessor
    assert holm_adjust({"a": 0.03, "b": 0.01, "c": 0.02}) == pytest.approx({"b": 0.03, "c": 0.04, "a": 0.04})
    assert holm_adjust({"a": 0.9, "b": 0.8}) == {"b": 1.0, "a": 1.0}
