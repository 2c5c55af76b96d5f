"""Sampler that proposes the same values whether or not a study is interrupted."""

import hashlib
import warnings
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, BruteForceSampler, TPESampler
from optuna.study import Study as OptunaStudy
from optuna.trial import FrozenTrial


class ReproducibleSampler(BaseSampler):
    """Sampler whose proposals depend only on the seed, trial number, parameter name and finished trials.

    If `exhaustive`, it proposes every combination once, in random order; otherwise, it uses Optuna's TPE sampler.

    Optuna's samplers draw from one random stream per process, so a study resumed in another process would propose
    different values. This sampler seeds a new stream for every draw.

    Args:
        seed: Random seed.
        exhaustive: Whether to propose every combination once; requires a finite search space.
    """

    def __init__(self, seed: int, *, exhaustive: bool) -> None:
        self._seed, self._exhaustive = seed, exhaustive

    def infer_relative_search_space(self, study: OptunaStudy, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Returns the parameters to sample jointly: for TPE, those that occur in all finished trials."""
        return self._sampler(trial).infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: OptunaStudy, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Samples the parameters in `search_space` jointly."""
        return self._sampler(trial).sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: OptunaStudy, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:  # noqa: ANN401 - Optuna's signature
        """Samples a parameter that is not sampled jointly."""
        return self._sampler(trial, param_name).sample_independent(study, trial, param_name, param_distribution)

    def _sampler(self, trial: FrozenTrial, parameter: str = "") -> BaseSampler:
        digest = hashlib.sha256(f"{self._seed}:{trial.number}:{parameter}".encode()).digest()
        seed = int.from_bytes(digest[:4])
        if not self._exhaustive:
            return TPESampler(seed=seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            return BruteForceSampler(seed=seed)
