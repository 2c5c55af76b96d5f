"""When a rung is accepted, and how rungs are tabulated."""

from __future__ import annotations

import json

import numpy as np

from transfer_platform.commands._ladder import Rung, _rung, rung_table
from transfer_platform.search.study import FinishedTrial

TRIAL = FinishedTrial(3, "COMPLETE", 0.5, {})


def test_a_rung_is_accepted_if_the_paired_improvement_exceeds_its_standard_error() -> None:
    before = np.array([1.0, 2.0, 3.0, 4.0])
    better = _rung("none", TRIAL, before, before - 0.1)
    assert better.is_accepted, "every image has improved, however much the losses differ between images"
    uncertain = _rung("none", TRIAL, before, before - np.array([1.0, -0.9, 1.0, -0.9]))
    assert 0 < uncertain.improvement < uncertain.error
    assert not uncertain.is_accepted
    assert not _rung("none", TRIAL, before, before).is_accepted, "an equal rung is not better"
    assert not _rung("none", TRIAL, before[:1], before[:1] - 1).is_accepted, "one image has no standard error"


def test_a_rung_whose_trials_failed_is_tabulated_as_json(recwarn) -> None:
    before = np.array([1.0, 2.0])
    rungs: list[Rung] = [_rung("blocks.3", TRIAL, before, before - 0.1), _rung("none", None, before, None)]
    table = json.loads(json.dumps(rung_table(rungs), allow_nan=False))
    assert table["accepted"] == [True, False]
    assert table["freeze_through"] == ["blocks.3", "none"]
    assert table["trial"] == [3, None]
    assert not recwarn
    assert "all trials failed" in str(rungs[1])
    assert rung_table([]) == {}
