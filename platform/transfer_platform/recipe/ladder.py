"""Recipes of the rungs of a ladder, each of which unfreezes more stages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, get_args

from transfer_model.architecture import Architecture
from transfer_model.stages import count_through
from transfer_platform.recipe.schema import PhaseConfig, Recipe, SolvedKind
from transfer_platform.recipe.search_schema import LadderConfig

STAGE = "search.ladder.freeze_through"
LEARNING_RATE = "search.ladder.learning_rate"
EPOCHS = "search.ladder.epochs"
"""Values of a trial that is a rung, beside those of the trial that the ladder starts from."""

_DEFAULT_SHARES = (0.5, 0.0)
"""Shares of the backbone's stages that the rungs freeze."""


def rung_stages(ladder: LadderConfig, backbone: Architecture, freeze_through: str) -> list[str]:
    """Returns the value of `freeze_through` for each rung, leaving out those that unfreeze nothing more."""
    from transfer_model import catalog  # imports slowly

    names = [stage.name for stage in catalog.backbone_info(backbone).stages]
    counts = [round(share * len(names)) for share in _DEFAULT_SHARES]
    stages = ladder.stages or tuple(names[count - 1] if count else "none" for count in counts)
    frozen = count_through(names, freeze_through)
    return [stage for stage in dict.fromkeys(stages) if count_through(names, stage) < frozen]


def rung_values(ladder: LadderConfig, stage: str) -> list[dict[str, object]]:
    """Returns the values of each trial of a rung."""
    return [{STAGE: stage, LEARNING_RATE: rate, EPOCHS: ladder.epochs_per_rung} for rate in ladder.learning_rates]


def rung_recipe(trial: Recipe, values: Mapping[str, Any]) -> Recipe:
    """Returns the recipe of a rung: the training of a trial as initial phase, then training with more stages.

    Args:
        trial: Recipe of the trial that the ladder starts from.
        values: Values of the rung, as returned by `rung_values`.
    """
    settings = {
        "initial_phases": (*(_filled(phase, trial) for phase in trial.training.initial_phases), *_as_phase(trial)),
        "epochs": values[EPOCHS],
        "learning_rate": values[LEARNING_RATE],
        "backbone_lr_factor": 1.0,
    }
    changes = {
        "backbone": trial.backbone.model_copy(update={"freeze_through": values[STAGE]}),
        "head": trial.head.model_copy(update={"kind": "linear"}),
        "training": trial.training.model_copy(update=settings),
    }
    return trial.model_copy(update=changes)


def _as_phase(trial: Recipe) -> Sequence[PhaseConfig]:
    """Returns the training of a trial as a phase; empty if it trains nothing."""
    stage, kind = trial.backbone.freeze_through, trial.head.kind
    if kind != "linear":
        solved = kind if kind in get_args(SolvedKind) else "logistic"
        return [PhaseConfig(freeze_through=stage, head=solved)]
    if not trial.training.epochs:
        return []
    return [_filled(PhaseConfig(freeze_through=stage), trial)]


def _filled(phase: PhaseConfig, trial: Recipe) -> PhaseConfig:
    """Replaces unset fields of a phase by the values of the trial, which the rung changes."""
    unset = [name for name in PhaseConfig.model_fields if getattr(phase, name) is None]
    return phase.model_copy(update={name: getattr(trial.training, name) for name in unset})
