"""Phases of a trial, each of which starts from the weights of the previous one."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from torch import Tensor

from transfer_platform.recipe.schema import PhaseConfig, Recipe
from transfer_platform.training.loop import EpochResult, FitResult, Objective
from transfer_platform.training.solved_head import SOLVERS

Weights = Mapping[str, Tensor]
"""Trained tensors, keyed by name as in the network's state dict."""


class TrainPhase(Protocol):
    """Trains one phase."""

    def __call__(
        self, recipe: Recipe, starts: Sequence[Weights], after_epoch: Callable[[EpochResult], None]
    ) -> FitResult:
        """Trains a phase from the weights in `starts`, one item for each fold, and returns the weights it ends with."""


def phase_recipes(recipe: Recipe) -> tuple[Recipe, ...]:
    """Returns a recipe without initial phases for each phase of a trial, ending with the final phase."""
    final = _with(recipe, initial_phases=())
    return (*(_phase_recipe(final, phase) for phase in recipe.training.initial_phases), final)


def step_count(phase: Recipe) -> int:
    """Returns the largest number of epochs in a phase, or the number of values for a solved head."""
    solver = SOLVERS.get(phase.head.kind)
    return len(solver.values) if solver else phase.training.epochs


def run_phases(
    phases: Sequence[Recipe], train: TrainPhase, objective: Objective, after_epoch: Callable[[EpochResult], None]
) -> FitResult:
    """Runs the phases of a trial, each starting from the best epoch of the previous one.

    Epochs are numbered consecutively across phases.

    Returns:
        The result of the phase with the best epoch, with the epochs of all phases.
    """
    starts: Sequence[Weights] = ()
    best: FitResult | None = None
    epochs: list[EpochResult] = []
    ends: list[EpochResult] = []
    offset = 0
    for phase in phases:
        result = _renumbered(train(phase, starts, _numbered_from(offset, after_epoch)), offset)
        starts = result.fold_weights or (result.weights,)
        epochs += result.epochs
        ends.append(result.best)
        if best is None or _is_better(result, best, objective):
            best = replace(result, phases=tuple(ends), fold_weights=())
        offset += step_count(phase)
    assert best is not None, "a trial must have at least one phase"
    return replace(best, epochs=tuple(epochs))


def numbers_within_phases(phases: Sequence[Recipe], ends: Sequence[EpochResult]) -> list[int]:
    """Returns the number of each phase's best epoch (or value), counted from the start of the phase."""
    offsets = [sum(map(step_count, phases[:index])) for index in range(len(ends))]
    return [end.number - offset for end, offset in zip(ends, offsets, strict=True)]


def _phase_recipe(final: Recipe, phase: PhaseConfig) -> Recipe:
    settings = phase.model_dump(include={"epochs", "learning_rate", "backbone_lr_factor"}, exclude_none=True)
    backbone = final.backbone.model_copy(update={"freeze_through": phase.freeze_through})
    head = final.head.model_copy(update={"kind": phase.head})
    return _with(final.model_copy(update={"backbone": backbone, "head": head}), **settings)


def _with(recipe: Recipe, **settings: object) -> Recipe:
    return recipe.model_copy(update={"training": recipe.training.model_copy(update=settings)})


def _is_better(result: FitResult, other: FitResult, objective: Objective) -> bool:
    metric = objective.metric
    return objective.is_better(result.best.metrics[metric], other.best.metrics[metric])


def _numbered_from(offset: int, after_epoch: Callable[[EpochResult], None]) -> Callable[[EpochResult], None]:
    return lambda epoch: after_epoch(_shifted(epoch, offset))


def _renumbered(result: FitResult, offset: int) -> FitResult:
    epochs = tuple(_shifted(epoch, offset) for epoch in result.epochs)
    return replace(result, epochs=epochs, best=_shifted(result.best, offset), phases=())


def _shifted(epoch: EpochResult, offset: int) -> EpochResult:
    return replace(epoch, number=epoch.number + offset)
