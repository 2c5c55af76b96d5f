"""Seeds with which the best trials are trained, and which trials depend on them."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from transfer_platform.commands.check import describe_plan
from transfer_platform.recipe.load import load_recipe
from transfer_platform.recipe.resolve import resolve, study_identity, to_yaml
from transfer_platform.recipe.schema import Recipe
from transfer_platform.recipe.seeds import confirming_seeds, depends_on_seed, max_confirming_trainings

TEXT = """\
name: digits
seed: 4294967294
dataset: {source: "embedded:digits", splits: {validation: 0.2, test: 0.2}}
backbone: {name: efficientnet_lite0}
training: {learning_rate: {low: 1e-4, high: 1e-2}}
"""


def read(text: str) -> Recipe:
    path = Path("recipe.yaml")
    path.write_text(text, encoding="utf-8")
    return load_recipe(path)


@pytest.fixture
def recipe(isolated: Path) -> Recipe:
    return read(TEXT + "search: {trials: 8, confirm: {top: 4, seeds: 3}}\n")


def test_the_seeds_follow_the_seed_of_the_search(recipe: Recipe) -> None:
    assert confirming_seeds(recipe) == (2**32 - 2, 2**32 - 1, 0)
    assert max_confirming_trainings(recipe) == 8
    assert confirming_seeds(read(TEXT + "search: {trials: 8}\n")) == (2**32 - 2,)
    assert max_confirming_trainings(read(TEXT + "search: {trials: 8}\n")) == 0


def test_there_are_at_most_as_many_candidates_as_trials(isolated: Path) -> None:
    assert max_confirming_trainings(read(TEXT + "search: {trials: 2, confirm: {top: 3, seeds: 5}}\n")) == 8


def test_the_defaults(isolated: Path) -> None:
    assert max_confirming_trainings(read(TEXT + "search: {confirm: {}}\n")) == 3 * 4


def test_confirmation_is_not_part_of_the_identity(recipe: Recipe) -> None:
    without = read(TEXT + "search: {trials: 8}\n")
    assert study_identity(recipe) == study_identity(without)
    assert study_identity(recipe) == study_identity(read(TEXT + "search: {trials: 8, confirm: {top: 2}}\n"))


def test_the_recipe_of_a_trial_is_valid_and_confirms_nothing(recipe: Recipe) -> None:
    trial = resolve(recipe, {"training.learning_rate": 1e-3})
    assert max_confirming_trainings(trial) == 0
    assert read(to_yaml(trial)) == trial


@pytest.mark.parametrize(
    ("changes", "depends"),
    [
        ("", True),
        ("head: {kind: logistic}\n", False),
        ("head: {kind: prototype}\n", False),
        ("head: {label_map: {ants: [ant]}}\n", True),
        ("head: {label_map: {ants: [ant]}}\ntraining: {epochs: 0}\n", False),
        ("training: {epochs: 0}\n", True),  # the head is random
        ("backbone: {name: resnet18, weights: none}\nhead: {kind: lda}\n", True),  # the features are random
    ],
)
def test_a_trial_depends_on_the_seed_if_its_network_has_random_weights_or_is_trained(
    changes: str, depends: bool, isolated: Path
) -> None:
    head = 'name: digits\ndataset: {source: "embedded:digits"}\n'
    backbone = "" if "backbone" in changes else "backbone: {name: efficientnet_lite0}\n"
    Path("plain.yaml").write_text(head + backbone + changes.replace("ants: [ant]", '"0": [ant]'), encoding="utf-8")
    assert depends_on_seed(load_recipe(Path("plain.yaml"))) is depends


def test_the_plan_states_how_many_trainings_follow_the_search(recipe: Recipe) -> None:
    console = Console(width=200, record=True)
    console.print(describe_plan(Path("recipe.yaml")))
    assert "the best 4 trials with 2 further seeds each: up to 8 further trainings" in console.export_text()
