from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from transfer_model.model_json import MAX_OOD_SCORE
from transfer_model.ood import RESOLUTION, OodScorer, ood_threshold


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_the_score_is_the_cosine_distance_to_the_nearest_reference_image() -> None:
    scorer = OodScorer(torch.tensor([[2.0, 0.0], [0.0, 3.0]]))
    features = torch.tensor([[5.0, 0.0], [1.0, 1.0], [-1.0, -1.0], [-1.0, 0.0]])
    expected = torch.tensor([0.0, 1 - 0.5**0.5, 1 + 0.5**0.5, 1.0])
    torch.testing.assert_close(scorer(features), expected, atol=1e-3, rtol=0)


def test_a_reference_image_is_compared_with_the_others() -> None:
    scorer = OodScorer(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]))
    near = 1 - 0.5**0.5
    torch.testing.assert_close(scorer.leave_one_out(), torch.tensor([0.0, near, 0.0, near]), atol=1e-3, rtol=0)


def test_the_only_reference_image_has_the_highest_score() -> None:
    assert OodScorer(torch.ones(1, 4)).leave_one_out().tolist() == [MAX_OOD_SCORE]


@pytest.mark.parametrize("false_alarms", [0.01, 0.05, 0.2])
def test_the_stated_fraction_of_new_images_is_above_the_threshold(
    false_alarms: float, generator: torch.Generator
) -> None:
    fractions = []
    for _ in range(300):
        calibration, new = torch.rand(150, generator=generator), torch.rand(150, generator=generator)
        fractions.append(float((new > ood_threshold(calibration, false_alarms)).float().mean()))
    # 1 / 151 is the resolution of a rank among 150 images; the rest is three standard errors of 300 draws.
    assert false_alarms - 1 / 151 - 0.005 <= sum(fractions) / 300 <= false_alarms + 0.005


def test_leave_one_out_scores_give_the_stated_false_alarms(generator: torch.Generator) -> None:
    fractions = []
    for _ in range(100):
        images = torch.randn(300, 20, generator=generator)
        scorer = OodScorer(images[:150])
        threshold = ood_threshold(scorer.leave_one_out(), 0.1)
        fractions.append(float((scorer(images[150:]) > threshold).float().mean()))
    assert sum(fractions) / 100 == pytest.approx(0.1, abs=0.015)


def test_with_too_few_images_nothing_is_flagged_as_unknown() -> None:
    assert ood_threshold(torch.rand(18), 0.05) == MAX_OOD_SCORE
    nineteen = torch.rand(19)
    assert ood_threshold(nineteen, 0.05) == float(nineteen.max())


NOISE = torch.randn(40, 64, generator=torch.Generator().manual_seed(1))
DEGENERATE = {
    "equal": torch.full((40, 64), 0.3),
    "almost equal": 0.3 + 1e-5 * NOISE,
    "zero": torch.zeros(40, 64),
    "mostly zero": torch.cat([torch.zeros(36, 64), NOISE[:4]]),
    "NaN": torch.full((40, 64), torch.nan),
    "infinite": torch.full((40, 64), torch.inf),
}


@pytest.mark.parametrize("kind", DEGENERATE)
def test_features_that_do_not_distinguish_images_give_no_threshold(kind: str) -> None:
    scorer = OodScorer(DEGENERATE[kind])
    scores = scorer.leave_one_out()
    assert ((scores >= 0) & (scores <= MAX_OOD_SCORE)).all()
    assert ood_threshold(scores, 0.05) == MAX_OOD_SCORE
    assert ood_threshold(scorer(DEGENERATE[kind]), 0.05) == MAX_OOD_SCORE


@pytest.mark.parametrize("factor", [1e-30, 1e-12, 1.0, 1e12, 1e30])
def test_the_length_of_the_features_does_not_matter(factor: float) -> None:
    expected = OodScorer(NOISE[:20])
    scaled = OodScorer(factor * NOISE[:20])
    torch.testing.assert_close(scaled.leave_one_out(), expected.leave_one_out(), atol=1e-6, rtol=0)
    torch.testing.assert_close(expected(factor * NOISE), expected(NOISE), atol=1e-6, rtol=0)


def test_features_without_a_direction_have_the_highest_score_and_change_no_other(generator: torch.Generator) -> None:
    odd = torch.stack([torch.zeros(64), torch.full((64,), torch.nan), torch.full((64,), torch.inf)])
    with_odd = OodScorer(torch.cat([NOISE[:20], odd]))
    assert with_odd(odd).tolist() == [MAX_OOD_SCORE] * 3
    torch.testing.assert_close(with_odd(NOISE[20:]), OodScorer(NOISE[:20])(NOISE[20:]), atol=1e-6, rtol=0)
    scores = with_odd.leave_one_out()
    assert scores[20:].tolist() == [MAX_OOD_SCORE] * 3
    assert (scores[:20] < MAX_OOD_SCORE).all()


@given(st.integers(0, 10**6), st.floats(-8, 0), st.integers(1, 300))
def test_scores_are_distances_and_equal_features_have_a_score_below_the_resolution(
    seed: int, spread: float, width: int
) -> None:
    noise = torch.randn(8, width, generator=torch.Generator().manual_seed(seed))
    features = 1 + 10**spread * noise
    scorer = OodScorer(features)
    for scores in (scorer(features), scorer.leave_one_out(), scorer(-features)):
        assert ((scores >= 0) & (scores <= MAX_OOD_SCORE)).all()
    assert (scorer(scorer.reference) < RESOLUTION).all()


def test_a_loaded_scorer_computes_the_same_scores_to_the_bit(tmp_path: Path) -> None:
    scorer = OodScorer(NOISE[:20])
    scorer.save(tmp_path)
    loaded = OodScorer.load(tmp_path)
    assert torch.equal(loaded.reference, scorer.reference)
    assert torch.equal(loaded(NOISE), scorer(NOISE))
