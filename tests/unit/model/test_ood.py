from __future__ import annotations

import pytest
import torch

from transfer_model.model_config import MAX_OOD_SCORE
from transfer_model.ood import OodScorer, ood_threshold


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
