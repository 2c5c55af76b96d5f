"""How a study proposes values, so that an interrupted one proposes what an uninterrupted one would have."""

from __future__ import annotations

import hashlib
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, TPESampler
from optuna.study import Study as OptunaStudy
from optuna.trial import FrozenTrial


class ReproducibleSampler(BaseSampler):
    """TPE whose proposal is a function of (seed, trial number, parameter, finished trials) and nothing else.

    A sampler that lives through a study draws from one stream of random numbers, so that a study continued in
    another process proposes other values than an uninterrupted one would have. Here every draw starts a
    stream of its own.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def infer_relative_search_space(
        self, study: OptunaStudy, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """What is sampled jointly: every parameter that the finished trials share."""
        return self._tpe(trial).infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: OptunaStudy, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Values for the joint part of the space."""
        return self._tpe(trial).sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: OptunaStudy, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:  # noqa: ANN401 - Optuna's own signature
        """One value outside of the joint part."""
        return self._tpe(trial, param_name).sample_independent(study, trial, param_name, param_distribution)

    def _tpe(self, trial: FrozenTrial, parameter: str = "") -> TPESampler:
        digest = hashlib.sha256(f"{self._seed}:{trial.number}:{parameter}".encode()).digest()
        return TPESampler(seed=int.from_bytes(digest[:4]))
