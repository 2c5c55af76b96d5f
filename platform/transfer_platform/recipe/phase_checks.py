"""Checks of a recipe's initial phases and ladder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

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
    kinds = fields.possible_values("head.kind")
    for path, kind in kinds.items() if phases else ():
        if kind != "linear":
            message = (
                f"must be linear, but is {kind}, because the final phase trains the head; set head in a phase instead"
            )
            yield FieldError(path, message)
    for index, phase in enumerate(phases):
        if phase.get("head", "linear") == "linear":
            continue
        if (stage := phase.get("freeze_through", "all")) != "all":
            message = f"must be all, but is {stage}, because the head of this phase is solved"
            yield FieldError((*_PHASES, index, "freeze_through"), message)
        if index:
            message = "only the first phase can solve the head; it would discard what the phases before it have trained"
            yield FieldError((*_PHASES, index, "head"), message)
        elif fields.get("head.label_map"):
            message = (
                "has no effect, because the first phase solves the head; remove it, or use head: linear in that phase"
            )
            yield FieldError(("head", "label_map"), message)
    if fields.is_set(_LADDER):
        yield from _ladder_errors(fields)


def _ladder_errors(fields: ValidFields) -> Iterator[FieldError]:
    if fields.get("search.metric") not in (None, "validation/loss"):
        message = "a ladder compares the losses of the held-out images; use search.metric: validation/loss"
        yield FieldError(_LADDER, message)
    if set(fields.possible_values("backbone.freeze_through").values()) == {"none"}:
        yield FieldError(_LADDER, "has no effect, because backbone.freeze_through: none freezes nothing; remove it")


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
