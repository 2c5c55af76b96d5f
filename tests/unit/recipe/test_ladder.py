"""Recipes of rungs."""

from __future__ import annotations

from typing import Any

from transfer_model.architecture import Architecture
from transfer_platform.recipe.ladder import rung_recipe, rung_stages, rung_values
from transfer_platform.recipe.resolve import resolve, study_identity
from transfer_platform.recipe.schema import PhaseConfig, Recipe
from transfer_platform.recipe.search_schema import LadderConfig
from transfer_platform.training.phases import phase_recipes

LITE0 = Architecture("efficientnet_lite0")


def recipe(head: str = "ridge", training: dict[str, Any] | None = None, ladder: dict[str, Any] | None = None) -> Recipe:
    return Recipe.model_validate(
        {
            "name": "ladder",
            "dataset": {"source": "photos", "augmentation": "light"},
            "backbone": {"name": "efficientnet_lite0"},
            "head": {"kind": head},
            "training": training or {},
            "search": {"trials": 1, "ladder": ladder or {}},
        }
    )


def rung(settings: Recipe, stage: str = "blocks.3") -> Recipe:
    assert settings.search
    assert settings.search.ladder
    (values,) = rung_values(settings.search.ladder, stage)
    return resolve(settings, values)


def test_the_default_rungs_unfreeze_half_of_the_stages_and_then_all() -> None:
    assert rung_stages(LadderConfig(), LITE0, "all") == ["blocks.3", "none"]
    assert rung_stages(LadderConfig(), LITE0, "blocks.1") == ["none"]
    assert rung_stages(LadderConfig(stages=("blocks.6", "blocks.5", "blocks.4")), LITE0, "blocks.5") == ["blocks.4"]


def test_a_rung_repeats_the_solved_head_and_then_trains_more_stages() -> None:
    first, last = phase_recipes(rung(recipe("ridge", ladder={"epochs_per_rung": 3, "learning_rates": [0.01]})))
    assert (first.head.kind, first.backbone.freeze_through) == ("ridge", "all")
    assert (last.head.kind, last.backbone.freeze_through) == ("linear", "blocks.3")
    assert (last.training.epochs, last.training.learning_rate, last.training.backbone_lr_factor) == (3, 0.01, 1.0)


def test_nearest_neighbors_cannot_be_trained_further_so_that_a_rung_starts_from_logistic_regression() -> None:
    assert phase_recipes(rung(recipe("knn")))[0].head.kind == "logistic"


def test_a_rung_repeats_all_phases_of_the_trial_with_its_own_settings() -> None:
    training = {
        "initial_phases": [{"freeze_through": "all"}, {"freeze_through": "all", "epochs": 1}],
        "epochs": 7,
        "learning_rate": 0.2,
        "backbone_lr_factor": 0.5,
    }
    phases = phase_recipes(rung(recipe("linear", training)))
    used = [(each.training.epochs, each.training.learning_rate, each.training.backbone_lr_factor) for each in phases]
    assert used == [(7, 0.2, 0.5), (1, 0.2, 0.5), (7, 0.2, 0.5), (5, 1e-3, 1.0)]


def test_a_network_that_is_evaluated_as_it_is_has_no_phase_to_repeat() -> None:
    assert (
        rung_recipe(recipe("linear", {"epochs": 0}), rung_values(LadderConfig(), "none")[0]).training.initial_phases
        == ()
    )


def test_a_ladder_does_not_change_the_identity_but_phases_do() -> None:
    plain = recipe()
    assert plain.search
    without = plain.model_copy(update={"search": plain.search.model_copy(update={"ladder": None})})
    assert study_identity(plain) == study_identity(without)
    phased = plain.training.model_copy(update={"initial_phases": (PhaseConfig(head="logistic"),)})
    assert study_identity(plain.model_copy(update={"training": phased})) != study_identity(plain)
