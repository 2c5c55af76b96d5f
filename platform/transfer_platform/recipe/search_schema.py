"""Recipe schema: the `search` section."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from transfer_platform.recipe.confirm_schema import ConfirmConfig
from transfer_platform.recipe.search_space import Count, Positive, Section

SearchMetric = Literal["validation/loss", "validation/accuracy", "validation/macro_f1", "validation/macro_recall"]


class LadderConfig(Section):
    """Deeper unfreezing after the search: each rung unfreezes more stages, and starts from the best trial's network."""

    stages: tuple[str, ...] | None = Field(default=None, strict=False, min_length=1)
    """Last frozen stage of each rung, or `none`. Default: half of the best backbone's stages, then none."""

    learning_rates: tuple[Positive, ...] = Field(default=(1e-3,), strict=False, min_length=1)
    """Peak learning rates of head and backbone; each rung trains one network per learning rate."""

    epochs_per_rung: Count = 5
    """Passes over the training images."""


class SearchConfig(Section):
    """Settings for the Optuna study."""

    trials: Count = 20
    """Total number of trials, at most one per combination of values. To extend a study, rerun with a higher number."""

    metric: SearchMetric = "validation/loss"
    """Metric used to rank trials, measured at each trial's best epoch."""

    pruning: bool = True
    """Stops a trial early if its metric is worse than the median of previous trials at the same epoch."""

    confirm: ConfirmConfig | None = None
    """Trains the best trials with further seeds; the best mean wins. If unset, the best single value wins."""

    ladder: LadderConfig | None = None
    """Unfreezes further stages after the search for as long as this improves the loss; requires `validation/loss`."""

    @property
    def minimizes(self) -> bool:
        """Whether lower values of the metric are better."""
        return self.metric.endswith("/loss")
