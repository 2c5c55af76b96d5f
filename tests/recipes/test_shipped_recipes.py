"""Every file in `recipes/` is loaded, validated against the JSON Schema and dry-run; nothing is downloaded."""

from __future__ import annotations

from pathlib import Path

import jsonschema
import pytest
import torch
from ruamel.yaml import YAML

from transfer_platform.commands._trainer import network_variants
from transfer_platform.recipe import reference
from transfer_platform.recipe.load import load_recipe
from transfer_platform.recipe.resolve import resolve, search_ranges, to_yaml
from transfer_platform.recipe.schema import Recipe
from transfer_platform.recipe.variants import variant_recipe
from transfer_platform.sources.builtin import embedded_dataset
from transfer_platform.training.dry_run import dry_run_serving, dry_run_training
from transfer_platform.training.trial_trainer import TrialTrainer

REPOSITORY = Path(__file__).parents[2]
RECIPES = sorted((REPOSITORY / "recipes").glob("*.yaml"))

shipped = pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)


def test_the_two_main_recipes_are_shipped() -> None:
    assert {"ants_bees", "digits"} <= {path.stem for path in RECIPES}


@shipped
def test_it_is_valid(path: Path) -> None:
    assert load_recipe(path).name


@shipped
def test_it_begins_with_what_it_is_and_how_to_run_it(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("# ")
    comment = lines[: next(number for number, line in enumerate(lines) if not line.startswith("#"))]
    assert f"#   platform run recipes/{path.name}" in comment


@shipped
def test_the_json_schema_accepts_it(path: Path) -> None:
    values = YAML(typ="safe", pure=True).load(path)
    jsonschema.validate(values, reference.json_schema(), jsonschema.Draft202012Validator)


@shipped
def test_a_trial_of_it_can_be_written_and_read_again(path: Path, tmp_path: Path) -> None:
    recipe = load_recipe(path)
    first = {
        field: span.model_dump().get("low", span.model_dump().get("choices", (None,))[0])
        for field, span in search_ranges(recipe).items()
    }
    trial = resolve(recipe, first)
    (tmp_path / "trial.yaml").write_text(to_yaml(trial), encoding="utf-8")
    assert load_recipe(tmp_path / "trial.yaml") == trial


@shipped
def test_its_networks_compute_gradients_and_are_served(path: Path, isolated: Path, splits_of) -> None:
    splits = splits_of(embedded_dataset("digits"), ".", 0.1, 0.1)
    for recipe in studies(load_recipe(path)):
        if recipe.head.label_map is not None:  # its classes are not those of the digits
            head = recipe.head.model_copy(update={"label_map": dict.fromkeys(splits.classes, ("ant",))})
            recipe = recipe.model_copy(update={"head": head})
        trainer = TrialTrainer(splits, dict.fromkeys(recipe.backbone.architectures), torch.device("cpu"))
        trained = dry_run_training(trainer, network_variants(recipe), pytest.fail)
        dry_run_serving(trainer, trained, isolated)


def studies(recipe: Recipe) -> list[Recipe]:
    return [variant_recipe(recipe, name) for name in recipe.variants or ()] or [recipe]


def test_the_labels_of_the_ablation_exist_in_the_weights_of_resnet50() -> None:
    recipe = load_recipe(REPOSITORY / "recipes" / "ants_bees_ablation.yaml", ["backbone.name=resnet50"])
    assert variant_recipe(recipe, "as-is").head.label_map == {"ants": ("ant",), "bees": ("bee",)}
