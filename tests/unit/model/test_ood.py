from __future__ import annotations

import pytest
import torch

from transfer_model.config import MAX_OOD_SCORE
from transfer_model.ood import OodScorer, ood_threshold


@pytest.fixture
def drawn() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_novelty_is_the_cosine_distance_to_the_nearest_of_the_reference() -> None:
    novelty = OodScorer(torch.tensor([[2.0, 0.0], [0.0, 3.0]]))
    asked = torch.tensor([[5.0, 0.0], [1.0, 1.0], [-1.0, -1.0], [-1.0, 0.0]])
    expected = torch.tensor([0.0, 1 - 0.5**0.5, 1 + 0.5**0.5, 1.0])
    torch.testing.assert_close(novelty(asked), expected, atol=1e-3, rtol=0)


def test_an_image_of_the_reference_is_measured_from_the_others() -> None:
    novelty = OodScorer(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]))
    near = 1 - 0.5**0.5
    torch.testing.assert_close(
        novelty.leave_one_out(), torch.tensor([0.0, near, 0.0, near]), atol=1e-3, rtol=0
    )


def test_the_only_image_of_a_reference_is_as_far_as_can_be() -> None:
    assert OodScorer(torch.ones(1, 4)).leave_one_out().tolist() == [MAX_OOD_SCORE]


@pytest.mark.parametrize("false_alarms", [0.01, 0.05, 0.2])
def test_of_further_images_the_stated_share_is_above_the_threshold(
    false_alarms: float, drawn: torch.Generator
) -> None:
    shares = []
    for _ in range(300):
        known, further = torch.rand(150, generator=drawn), torch.rand(150, generator=drawn)
        shares.append(float((further > ood_threshold(known, false_alarms)).float().mean()))
    # 1 / 151 is what the rank of 150 images cannot resolve; the rest is three standard errors of 300 draws.
    assert false_alarms - 1 / 151 - 0.005 <= sum(shares) / 300 <= false_alarms + 0.005


def test_leaving_each_out_is_fair_to_images_of_the_same_kind(drawn: torch.Generator) -> None:
    shares = []
    for _ in range(100):
        images = torch.randn(300, 20, generator=drawn)
        novelty = OodScorer(images[:150])
        limit = ood_threshold(novelty.leave_one_out(), 0.1)
        shares.append(float((novelty(images[150:]) > limit).float().mean()))
    assert sum(shares) / 100 == pytest.approx(0.1, abs=0.015)


def test_too_few_images_promise_nothing_and_call_nothing_unknown() -> None:
    assert ood_threshold(torch.rand(18), 0.05) == MAX_OOD_SCORE
    nineteen = torch.rand(19)
    assert ood_threshold(nineteen, 0.05) == float(nineteen.max())
