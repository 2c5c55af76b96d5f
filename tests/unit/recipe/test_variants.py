"""Variants of a recipe: how they are merged, and errors in them."""

from __future__ import annotations

from pathlib import Path

import pytest

from transfer_platform.errors import RecipeError
from transfer_platform.recipe.load import load_recipe
from transfer_platform.recipe.resolve import study_identity
from transfer_platform.recipe.variants import require_no_variants, variant_recipe

TEXT = """\
name: digits
dataset: {source: embedded:digits}
backbone: {name: efficientnet_lite0}
head:
  dropout: {low: 0.0, high: 0.5}
search: {trials: 3}
variants:
  fixed:
    head: {dropout: 0.1}
    search: null
  narrow:
    head:
      dropout: {high: 0.2}
  labels:
    head:
      label_map: {a: [ant], b: [bee]}
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "recipe.yaml").write_text(TEXT, encoding="utf-8")
    return tmp_path / "recipe.yaml"


def test_a_variant_changes_only_what_it_names(path: Path) -> None:
    recipe = load_recipe(path)
    fixed = variant_recipe(recipe, "fixed")
    assert (fixed.name, fixed.head.dropout, fixed.search, fixed.variants) == ("digits-fixed", 0.1, None, None)
    assert fixed.backbone == recipe.backbone
    narrow = variant_recipe(recipe, "narrow").head.dropout
    assert (narrow.low, narrow.high) == (0.0, 0.2)
    assert variant_recipe(recipe, "labels").head.label_map == {"a": ("ant",), "b": ("bee",)}


def test_variants_do_not_change_the_identity_of_the_other_studies(path: Path) -> None:
    recipe = load_recipe(path)
    path.write_text(TEXT.partition("variants:")[0], encoding="utf-8")
    assert study_identity(load_recipe(path)) == study_identity(recipe)
    assert study_identity(variant_recipe(recipe, "narrow")) != study_identity(recipe)


def test_the_evaluation_does_not_change_the_identity(path: Path) -> None:
    assert study_identity(load_recipe(path, ["evaluation.crops=10"])) == study_identity(load_recipe(path))


def test_a_variant_can_be_changed_on_the_command_line(path: Path) -> None:
    recipe = load_recipe(path, ["variants.fixed.head.dropout=0.3", "training.epochs=2"])
    assert variant_recipe(recipe, "fixed").head.dropout == 0.3
    assert variant_recipe(recipe, "fixed").training.epochs == 2


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        ("dropout: 0.1", "dropout: 1.5", 9, "head.dropout: must be less than 1, but got 1.5"),
        ("dropout: 0.1", "dropuot: 0.1", 9, "head.dropuot: unknown field; did you mean 'dropout'?"),
        ("{high: 0.2}", "{high: -1.0}", 13, "head.dropout.high: "),
        ("    search: null", "    search: {trials: 5}", 10, "search.trials: all 5 trials would be identical"),
        ("b: [bee]", "b: [wasp]", 16, "head.label_map.b[0]: efficientnet_lite0: the pretrained weights have no label"),
        ("  fixed:", "  fixed one:", 8, "variants.fixed one: must start with a letter or digit"),
        (
            "    search: null",
            "    name: other",
            10,
            "variants.fixed.name: a variant cannot set name; remove this field",
        ),
        ("    search: null", "    variants: {}", 10, "variants.fixed.variants: a variant cannot set variants; remove"),
        ("  fixed:\n    head: {dropout: 0.1}\n    search: null\n", "  fixed: 5\n", 8, "variants.fixed: "),
    ],
)
def test_an_error_in_a_variant_is_reported_with_its_line(
    path: Path, old: str, new: str, line: int, message: str
) -> None:
    path.write_text(TEXT.replace(old, new), encoding="utf-8")
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    assert f"recipe.yaml:{line}: {message}" in str(caught.value)


def test_an_error_that_all_variants_inherit_is_reported_once(path: Path) -> None:
    path.write_text(TEXT.replace("efficientnet_lite0", "efficientnet_lit0"), encoding="utf-8")
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    assert len(caught.value.problems) == 1


def test_paths_in_the_variants_of_a_base_recipe_are_relative_to_the_base(tmp_path: Path) -> None:
    (tmp_path / "base" / "photos").mkdir(parents=True)
    (tmp_path / "base" / "base.yaml").write_text(TEXT + "  other: {dataset: {source: ./photos}}\n", encoding="utf-8")
    (tmp_path / "recipe.yaml").write_text("extends: base/base.yaml\n", encoding="utf-8")
    other = variant_recipe(load_recipe(tmp_path / "recipe.yaml"), "other")
    assert other.dataset.source == str(tmp_path / "base" / "photos")


def test_a_study_needs_one_variant_that_exists(path: Path) -> None:
    recipe = load_recipe(path)
    with pytest.raises(RecipeError, match="the recipe has variants; choose one of fixed, narrow, labels"):
        require_no_variants(recipe)
    with pytest.raises(
        RecipeError, match=r"no variant 'fixd' \(variants: fixed, narrow, labels\); did you mean 'fixed'\?"
    ):
        variant_recipe(recipe, "fixd")
