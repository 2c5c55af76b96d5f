"""Search ranges, resolved recipes, the identity of a study, and YAML output."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from transfer_platform.errors import RecipeError
from transfer_platform.recipe.load import load_recipe
from transfer_platform.recipe.resolve import resolve, search_ranges, study_identity, to_yaml
from transfer_platform.recipe.schema import Recipe
from transfer_platform.recipe.search_space import Choice, Range, combination_count, largest

TEXT = """\
name: ants-bees
seed: 7
dataset:
  source: embedded:digits
  splits: {train: digits, validation: 0.2, test: 0.2}
backbone:
  name: {choices: [resnet18, efficientnet_lite0]}
head:
  dropout: {low: 0, high: 0.5, step: 0.1}
training:
  batch_size: {choices: [16, 32]}
  epochs: {low: 2, high: 5}
  learning_rate: {low: 1e-4, high: 1e-2, log: true}
search:
  trials: 12
promotion:
  model: ants-bees
  gate:
    test/accuracy: {at_least: 0.9}
"""
VALUES = {
    "backbone.name": "resnet18",
    "head.dropout": 0.1,
    "training.epochs": 3,
    "training.batch_size": 16,
    "training.learning_rate": 1e-3,
}


def read(text: str) -> Recipe:
    path = Path("recipe.yaml")
    path.write_text(text, encoding="utf-8")
    return load_recipe(path)


@pytest.fixture
def recipe(isolated: Path) -> Recipe:
    return read(TEXT)


def test_ranges_are_in_schema_order(recipe: Recipe) -> None:
    assert list(search_ranges(recipe)) == list(VALUES)


def test_ranges_keep_their_kind(recipe: Recipe) -> None:
    found = search_ranges(recipe)
    dropout, batch_size = found["head.dropout"], found["training.batch_size"]
    assert isinstance(dropout, Range)
    assert (type(dropout.low), dropout.high, dropout.step) == (float, 0.5, 0.1)
    assert isinstance(batch_size, Choice)
    assert batch_size.choices == (16, 32)


def test_a_resolved_recipe_has_values_and_a_single_trial(recipe: Recipe) -> None:
    resolved = resolve(recipe, VALUES)
    assert search_ranges(resolved) == {}
    assert (resolved.backbone.name, resolved.head.dropout, resolved.training.epochs) == ("resnet18", 0.1, 3)
    assert resolved.search is not None
    assert (resolved.search.trials, resolved.search.metric) == (1, "validation/loss")
    assert resolved.promotion == recipe.promotion


def test_a_whole_number_fits_a_range_of_floats(recipe: Recipe) -> None:
    dropout = resolve(recipe, VALUES | {"head.dropout": 0}).head.dropout
    assert type(dropout) is float


def test_numpy_values_become_pythons(recipe: Recipe) -> None:
    values = VALUES | {"training.epochs": np.int64(3), "head.dropout": np.float64(0.1)}
    assert resolve(recipe, values) == resolve(recipe, VALUES)


def test_a_recipe_without_ranges_resolves_to_itself(isolated: Path) -> None:
    plain = read(TEXT[: TEXT.index("backbone:")] + "backbone: {name: resnet18}\n")
    assert resolve(plain, {}) == plain


def test_missing_unexpected_and_outlying_values_are_reported_together(recipe: Recipe) -> None:
    values = VALUES | {"training.epochs": 9, "training.batch_sise": 16, "backbone.name": "resnet50"}
    del values["training.batch_size"]
    with pytest.raises(RecipeError) as caught:
        resolve(recipe, values)
    assert [str(problem) for problem in caught.value.problems] == [
        'trial: backbone.name: must be in {"choices": ["resnet18", "efficientnet_lite0"]}, but got \'resnet50\'',
        "trial: training.batch_sise: unexpected value; this field has no range; did you mean 'training.batch_size'?",
        'trial: training.batch_size: value is missing; expected a value in {"choices": [16, 32]}',
        'trial: training.epochs: must be in {"low": 2, "high": 5}, but got 9',
    ]


SAME = {
    "the order of fields": "seed: 7\n" + TEXT.replace("seed: 7\n", ""),
    "comments": "# Ants or bees?\n" + TEXT.replace("seed: 7", "seed: 7   # lucky"),
    "trials": TEXT.replace("trials: 12", "trials: 40"),
    "promotion": TEXT[: TEXT.index("promotion:")],
    "near duplicates": TEXT.replace("dataset:\n", "dataset:\n  group_near_duplicates: false\n"),
    "another gate": TEXT.replace("0.9}", "0.5}"),
    "a default written out": TEXT.replace("search:\n", "search:\n  pruning: true\n"),
    "notation": TEXT.replace("1e-4", "0.0001").replace("high: 0.5", "high: 5e-1"),
}
OTHER = {
    "name": TEXT.replace("name: ants-bees\nseed", "name: bees\nseed"),
    "seed": TEXT.replace("seed: 7", "seed: 8"),
    "split": TEXT.replace("test: 0.2", "test: 0.3"),
    "groups": TEXT.replace("  source: embedded:digits\n", "  source: embedded:digits\n  group_by: patient\n"),
    "backbone": TEXT.replace("[resnet18, efficientnet_lite0]", "[efficientnet_lite0, resnet18]"),
    "range": TEXT.replace("high: 0.5", "high: 0.4"),
    "value for a range": TEXT.replace("{low: 2, high: 5}", "5"),
    "metric": TEXT.replace("search:\n", "search:\n  metric: validation/accuracy\n"),
    "pruning": TEXT.replace("search:\n", "search:\n  pruning: false\n"),
    "another field": TEXT.replace("training:\n", "training:\n  weight_decay: 0.1\n"),
}


@pytest.mark.parametrize("text", SAME.values(), ids=SAME)
def test_the_identity_holds(recipe: Recipe, text: str) -> None:
    assert text != TEXT
    assert study_identity(read(text)) == study_identity(recipe)


@pytest.mark.parametrize("text", OTHER.values(), ids=OTHER)
def test_the_identity_changes(recipe: Recipe, text: str) -> None:
    assert text != TEXT
    assert study_identity(read(text)) != study_identity(recipe)


def test_the_identity_is_equal_in_every_process_and_version(recipe: Recipe) -> None:
    assert study_identity(recipe) == "c6810856f5522cc7df8fdd1520500c130e9b02aee14ce0c382e5e7e7c42f8ea0"


def test_the_identity_does_not_depend_on_how_the_recipe_was_made(recipe: Recipe) -> None:
    assert len(study_identity(recipe)) == 64
    assert study_identity(recipe) == study_identity(Recipe.model_validate(recipe.model_dump(by_alias=True)))


def test_yaml_is_readable_and_complete(recipe: Recipe) -> None:
    text = to_yaml(recipe)
    assert "  learning_rate: {low: 0.0001, high: 0.01, log: true}\n" in text
    assert "  batch_size: {choices: [16, 32]}\n" in text
    assert "  weight_decay: 0.01\n" in text, "defaults are written out"
    assert "null" not in text


names = st.from_regex(r"[A-Za-km-uw-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True)
rates = st.floats(1e-9, 1e3)
shares = st.floats(0, 0.99)
folders = st.text(st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="./\\"), min_size=1)


def spans(values: st.SearchStrategy[float]) -> st.SearchStrategy[object]:
    ends = st.tuples(values, values).map(sorted)
    return ends.map(lambda pair: {"low": pair[0], "high": pair[1]})


def choices(values: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    return st.lists(values, min_size=1, max_size=4, unique=True).map(lambda some: {"choices": some})


def searchable(values: st.SearchStrategy[float]) -> st.SearchStrategy[object]:
    return values | spans(values) | choices(values)


recipes = st.fixed_dictionaries(
    {
        "name": names,
        "dataset": st.fixed_dictionaries(
            {
                "source": st.just("embedded:digits"),
                "splits": st.fixed_dictionaries({"train": folders, "test": st.floats(0.01, 0.4)}),
            },
            optional={
                "exclude": st.lists(st.text(st.characters(exclude_categories=["Cs"])), max_size=3),
                "image_size": st.integers(16, 2048) | st.none(),
                "sha256": st.none(),
            },
        ),
        "backbone": st.fixed_dictionaries({"name": st.just("resnet18") | choices(st.just("resnet18"))}),
        "search": st.just({"trials": 1}),
    },
    optional={
        "seed": st.integers(0, 2**32 - 1),
        "head": st.fixed_dictionaries({}, optional={"dropout": searchable(shares)}),
        "training": st.fixed_dictionaries(
            {},
            optional={
                "learning_rate": searchable(rates),
                "batch_size": searchable(st.integers(1, 10**6)),
                "schedule": st.just("cosine") | choices(st.sampled_from(["constant", "plateau"])),
                "early_stopping": st.integers(1, 50) | st.none(),
            },
        ),
        "promotion": st.fixed_dictionaries(
            {"model": names},
            optional={
                "gate": st.fixed_dictionaries(
                    {},
                    optional={
                        "test/accuracy": st.fixed_dictionaries({"at_least": st.floats(0, 1)}),
                        "served/latency_ms": st.just({"at_most": 80}),
                        "over_champion": st.just({"confidence": 0.99, "margin": -0.02}),
                        "per_class_recall": st.just({"no_significant_regression": True}),
                    },
                )
            },
        ),
    },
)


@given(values=recipes)
@settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow])
def test_a_recipe_that_is_written_and_read_is_the_same(
    tmp_path_factory: pytest.TempPathFactory, values: dict[str, object]
) -> None:
    recipe = Recipe.model_validate(values)
    path = tmp_path_factory.getbasetemp() / "written.yaml"
    path.write_text(to_yaml(recipe), encoding="utf-8")
    assert load_recipe(path) == recipe
    assert study_identity(load_recipe(path)) == study_identity(recipe)


def test_the_largest_value_of_a_field() -> None:
    assert largest(5) == 5
    assert largest(Range[int](low=2, high=12)) == 12
    assert largest(Choice[int](choices=(12, 2))) == 12


def test_the_number_of_combinations_of_a_search_space() -> None:
    choice, whole = Choice[str](choices=("a", "b")), Range[int](low=3, high=9, step=2)
    assert combination_count({}) == 1
    assert combination_count({"a": choice, "b": whole}) == 2 * 4
    assert combination_count({"a": choice, "b": Range[float](low=0.0, high=0.3, step=0.1)}) == 2 * 4
    assert combination_count({"a": choice, "b": Range[float](low=0.1, high=0.3)}) == math.inf
    assert combination_count({"a": choice, "b": Range[float](low=0.1, high=0.3, log=True)}) == math.inf
