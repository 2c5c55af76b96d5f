"""Checks of a recipe's initial phases and ladder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from transfer_model.errors import UnknownStageError
from transfer_model.stages import count_through
from transfer_platform.recipe.error_messages import FieldError
from transfer_platform.recipe.valid_fields import ValidFields

if TYPE_CHECKING:
    from transfer_model.catalog import BackboneInfo
    from transfer_platform.recipe.yaml_tree import FieldPath

_PHASES = ("training", "initial_phases")
_LADDER = ("search", "ladder")


def phase_errors(fields: ValidFields) -> Iterator[FieldError]:
    """Yields an error for each contradiction between initial phases, or the ladder, and the rest of the recipe."""
    phases = fields.get("training.initial_phases") or ()
    if phases:
        yield from _final_phase_errors(fields)
        if phases[0].get("head", "linear") != "linear":
            yield from _solved_start_errors(fields)
    for index, phase in enumerate(phases):
        if phase.get("head", "linear") == "linear":
            continue
        if (stage := phase.get("freeze_through", "all")) != "all":
            message = f"must be all, but is {stage}, because the head of this phase is solved"
            yield FieldError((*_PHASES, index, "freeze_through"), message)
        if index:
            message = "only the first phase can solve the head; it would discard what the phases before it have trained"
            yield FieldError((*_PHASES, index, "head"), message)
    yield from _long_warmups(fields, phases)
    if fields.is_set(_LADDER):
        yield from _ladder_errors(fields)


def _final_phase_errors(fields: ValidFields) -> Iterator[FieldError]:
    for path, kind in fields.possible_values("head.kind").items():
        if kind != "linear":
            message = f"must be linear, but is {kind}, because the final phase trains the head"
            yield FieldError(path, f"{message}; set head in a phase instead")
    for path, epochs in fields.possible_values("training.epochs").items():
        if epochs == 0:
            yield FieldError(path, "must be at least 1, because these are the epochs of the final phase")


def _solved_start_errors(fields: ValidFields) -> Iterator[FieldError]:
    if fields.get("head.label_map"):
        message = "has no effect, because the first phase solves the head; remove it, or use head: linear in that phase"
        yield FieldError(("head", "label_map"), message)
    if fields.get("training.sampling") == "balanced":
        message = "balanced has no effect on the solved head of the first phase; use class_weights: balanced"
        yield FieldError(("training", "sampling"), message)


def _ladder_errors(fields: ValidFields) -> Iterator[FieldError]:
    for index, stage in enumerate(fields.get("search.ladder.stages") or ()):
        if stage == "all":
            yield FieldError(
                (*_LADDER, "stages", index), "a rung that freezes all stages trains nothing new; remove it"
            )
    if fields.get("search.metric") not in (None, "validation/loss"):
        message = "a ladder compares the losses of the held-out images; use search.metric: validation/loss"
        yield FieldError(_LADDER, message)
    if set(fields.possible_values("backbone.freeze_through").values()) == {"none"}:
        yield FieldError(_LADDER, "has no effect, because backbone.freeze_through: none freezes nothing; remove it")


def _long_warmups(fields: ValidFields, phases: Sequence[Mapping[str, Any]]) -> Iterator[FieldError]:
    """Yields an error if the warm-up is longer than a phase or a rung."""
    warmup = max(fields.possible_values("training.warmup_epochs").values(), default=0)
    lengths: dict[FieldPath, Any] = {
        (*_PHASES, index, "epochs"): phase["epochs"] for index, phase in enumerate(phases) if phase.get("epochs")
    }
    if fields.is_set(_LADDER):
        lengths[*_LADDER, "epochs_per_rung"] = fields.get("search.ladder.epochs_per_rung") or warmup
    for path, epochs in lengths.items():
        if warmup > epochs:
            yield FieldError(path, f"must be at least training.warmup_epochs ({warmup}), but is {epochs}")


def phase_stage_errors(fields: ValidFields, backbones: Sequence[BackboneInfo]) -> Iterator[FieldError]:
    """Yields an error for each unknown stage, and for each phase that freezes less than the one after it."""
    phases, ladder = fields.get("training.initial_phases") or (), fields.get("search.ladder.stages") or ()
    stages: dict[FieldPath, str] = {
        (*_PHASES, index, "freeze_through"): phase.get("freeze_through", "all") for index, phase in enumerate(phases)
    }
    rungs: dict[FieldPath, str] = {(*_LADDER, "stages", index): stage for index, stage in enumerate(ladder)}
    final = fields.possible_values("backbone.freeze_through")
    for backbone in backbones:
        names = [stage.name for stage in backbone.stages]
        for path, stage in {**stages, **rungs}.items():
            try:
                count_through(names, stage)
            except UnknownStageError as error:
                yield FieldError(path, f"{backbone.name}: {error}")
        for last in dict.fromkeys(final.values()):
            if stages:
                yield from _order_errors({**stages, ("backbone", "freeze_through"): last}, names)
        yield from _order_errors(rungs, names)


def _order_errors(stages: dict[FieldPath, str], names: Sequence[str]) -> Iterator[FieldError]:
    """Yields an error for each stage that freezes more than the stage before it."""
    items = list(stages.items())
    for (_, before), (path, stage) in pairwise(items):
        try:
            grows = count_through(names, stage) > count_through(names, before)
        except UnknownStageError:
            continue
        if grows:
            message = f"freezes more than {before} before it; order them from the last stage to the first"
            yield FieldError(path, f"{stage} {message}")
