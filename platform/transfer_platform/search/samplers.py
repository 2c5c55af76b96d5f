"""Sampler that proposes the same values whether or not a study is interrupted."""

import hashlib
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, TPESampler
from optuna.study import Study as OptunaStudy
from optuna.trial import FrozenTrial


class ReproducibleSampler(BaseSampler):
    """TPE sampler whose proposals depend only on the seed, trial number, parameter name and finished trials.

    Optuna's samplers draw from one random stream per process, so a study resumed in another process would propose
    different values. This sampler seeds a new stream for every draw.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def infer_relative_search_space(self, study: OptunaStudy, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Returns the parameters to sample jointly: those that occur in all finished trials."""
        return self._tpe(trial).infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: OptunaStudy, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Samples the parameters in `search_space` jointly."""
        return self._tpe(trial).sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: OptunaStudy, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:  # noqa: ANN401 - Optuna's signature
        """Samples a parameter that is not sampled jointly."""
        return self._tpe(trial, param_name).sample_independent(study, trial, param_name, param_distribution)

    def _tpe(self, trial: FrozenTrial, parameter: str = "") -> TPESampler:
        digest = hashlib.sha256(f"{self._seed}:{trial.number}:{parameter}".encode()).digest()
        return TPESampler(seed=int.from_bytes(digest[:4]))
