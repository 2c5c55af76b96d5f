from __future__ import annotations

import pytest

from transfer_model.errors import UnknownStageError
from transfer_model.stages import count_through

STAGES = ("conv1", "bn1", "layer1.0", "layer1.1", "layer2.0", "layer10.0", "layer10.1")


@pytest.mark.parametrize(
    ("stage", "count"),
    [
        ("none", 0),
        ("conv1", 1),
        ("layer1.0", 3),
        ("layer1", 4),  # up to the last of layer1, without layer10
        ("layer10", 7),
        ("all", 7),
    ],
)
def test_a_stage_is_counted_with_those_before_it(stage: str, count: int) -> None:
    assert count_through(STAGES, stage) == count


@pytest.mark.parametrize("stage", ["layer3", "conv", "", "layer1.", "ALL"])
def test_an_unknown_name_is_an_error_that_lists_the_valid_ones(stage: str) -> None:
    with pytest.raises(UnknownStageError) as error:
        count_through(STAGES, stage)
    assert repr(stage) in str(error.value)
    assert all(name in str(error.value) for name in (*STAGES, "none", "all"))


def test_the_most_similar_stage_is_suggested() -> None:
    with pytest.raises(UnknownStageError, match=r"did you mean 'layer2\.0'"):
        count_through(STAGES, "layer20")
