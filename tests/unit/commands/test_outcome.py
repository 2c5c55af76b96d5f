"""What a run says at its end."""

from __future__ import annotations

from pathlib import Path

import pytest

from transfer_platform.commands.outcome import Outcome
from transfer_registry.promote import PromotionResult
from transfer_registry.verdict import Verdict


@pytest.mark.parametrize(
    ("promoted", "champion", "said"),
    [
        (True, 3, "is champion"),
        (True, 5, "was made champion; the champion is now version 5"),
        (True, None, "was made champion; there is now no champion"),
        (False, 1, "is registered, but did not become champion"),
        (False, 3, "is champion"),
    ],
)
def test_a_finished_study_says_who_is_champion_now(promoted: bool, champion: int | None, said: str) -> None:
    promotion = PromotionResult("ants-bees", 3, Verdict(()), promoted, None)
    outcome = Outcome(None, "validation/loss", {}, promotion, "run", Path("model"), champion)
    lines = outcome._promotion_lines()
    assert lines[1] == f"ants-bees version 3 {said}"
    assert ("platform serve" in lines[2]) == (champion is not None)
