"""Base recipes and overrides: merging, relative paths, and the file that a problem is in."""

from __future__ import annotations

from pathlib import Path

import pytest

from transfer_platform.errors import RecipeError
from transfer_platform.recipe.load import load_recipe

BASE = """\
name: base
dataset:
  source: photos
  splits: {test: 0.2}
  exclude: [a.gif, b.gif]
backbone:
  name: resnet18
  weights: weights/mine.pth
training:
  epochs: 3
  learning_rate: {low: 1e-4, high: 1e-2, log: true}
search:
  trials: 5
"""


@pytest.fixture
def folder(isolated: Path) -> Path:
    (isolated / "bases" / "photos").mkdir(parents=True)
    (isolated / "bases" / "weights").mkdir()
    (isolated / "bases" / "weights" / "mine.pth").write_bytes(b"\x80\x02")
    write("bases/base.yaml", BASE)
    return isolated


def write(name: str, text: str) -> Path:
    path = Path(name)
    path.write_text(text, encoding="utf-8")
    return path


def problems(path: str, *overrides: str) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, overrides)
    return [str(problem) for problem in caught.value.problems]


def test_sections_merge_and_lists_replace(folder: Path) -> None:
    write("mine.yaml", "extends: bases/base.yaml\nname: mine\ndataset: {exclude: [c.gif]}\ntraining: {epochs: 9}\n")
    recipe = load_recipe("mine.yaml")
    assert (recipe.name, recipe.training.epochs, recipe.backbone.name) == ("mine", 9, "resnet18")
    assert recipe.dataset.exclude == ("c.gif",)
    assert recipe.dataset.splits.test == 0.2


def test_paths_of_a_base_are_relative_to_the_base(folder: Path) -> None:
    write("mine.yaml", "extends: bases/base.yaml\n")
    recipe = load_recipe("mine.yaml")
    assert recipe.dataset.source == str(folder / "bases" / "photos")
    assert recipe.backbone.weights == str(folder / "bases" / "weights" / "mine.pth")


def test_a_home_folder_is_expanded_in_a_base(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder / "bases"))
    write("bases/base.yaml", BASE.replace("photos", "~/photos"))
    write("mine.yaml", "extends: bases/base.yaml\n")
    assert load_recipe("mine.yaml").dataset.source == str(folder / "bases" / "photos")


def test_paths_of_the_recipe_itself_stay_as_they_are(folder: Path) -> None:
    assert load_recipe("bases/base.yaml").dataset.source == "photos"


def test_a_value_replaces_a_range(folder: Path) -> None:
    write("mine.yaml", "extends: bases/base.yaml\ntraining: {learning_rate: 0.1}\nsearch: null\n")
    recipe = load_recipe("mine.yaml")
    assert recipe.training.learning_rate == 0.1
    assert recipe.search is None


def test_a_range_replaces_a_value(folder: Path) -> None:
    write("mine.yaml", "extends: bases/base.yaml\ntraining: {epochs: {low: 2, high: 4}}\n")
    assert load_recipe("mine.yaml").training.model_dump()["epochs"] == {"low": 2, "high": 4, "step": None, "log": False}


def test_a_range_replaces_a_range_whole(folder: Path) -> None:
    write("mine.yaml", "extends: bases/base.yaml\ntraining: {learning_rate: {low: 0.1, high: 0.2}}\n")
    assert load_recipe("mine.yaml").training.model_dump()["learning_rate"]["log"] is False


def test_choices_replace_a_range(folder: Path) -> None:
    write("mine.yaml", "extends: bases/base.yaml\ntraining: {learning_rate: {choices: [0.1, 0.2]}}\n")
    assert load_recipe("mine.yaml").training.model_dump()["learning_rate"] == {"choices": (0.1, 0.2)}


def test_a_recipe_is_not_suggested_as_a_dataset(folder: Path) -> None:
    write("phots.yaml", BASE.replace("photos", "phots"))
    missing = f"phots.yaml:3: dataset.source: no such folder, archive or manifest: {folder / 'phots'}"
    assert problems("phots.yaml")[0] == missing


def test_part_of_a_range_changes_the_range(folder: Path) -> None:
    write("mine.yaml", "extends: bases/base.yaml\ntraining: {learning_rate: {high: 0.1}}\n")
    changed = load_recipe("mine.yaml").training.model_dump()["learning_rate"]
    assert changed == {"low": 1e-4, "high": 0.1, "step": None, "log": True}


def test_a_base_may_have_a_base(folder: Path) -> None:
    write("bases/middle.yaml", "extends: base.yaml\nseed: 4\n")
    write("mine.yaml", "extends: bases/middle.yaml\nname: mine\n")
    recipe = load_recipe("mine.yaml")
    assert (recipe.name, recipe.seed, recipe.training.epochs) == ("mine", 4, 3)


def test_a_problem_names_its_own_file(folder: Path) -> None:
    write("bases/base.yaml", BASE.replace("epochs", "epoch").replace("photos", "phots"))
    write("mine.yaml", "extends: bases/base.yaml\nhead:\n  dropot: 0.1\n")
    assert problems("mine.yaml") == [
        "mine.yaml:3: head.dropot: unknown field; did you mean 'dropout'?",
        f"bases/base.yaml:3: dataset.source: no such folder, archive or manifest: "
        f"{folder / 'bases' / 'phots'}; "
        f"did you mean '{folder / 'bases' / 'photos'}'?",
        "bases/base.yaml:10: training.epoch: unknown field; did you mean 'epochs'?",
    ]


def test_a_circular_reference_is_an_error(folder: Path) -> None:
    write("a.yaml", "name: a\nextends: b.yaml\n")
    write("b.yaml", "extends: ./a.yaml\n")
    assert problems("a.yaml") == ["b.yaml:1: extends: circular reference: a.yaml -> b.yaml -> a.yaml"]


def test_a_missing_base_names_its_nearest_sibling(folder: Path) -> None:
    write("mine.yaml", "name: a\nextends: bases/bas.yaml\n")
    assert problems("mine.yaml") == [
        "mine.yaml:2: extends: bases/bas.yaml does not exist; did you mean 'bases/base.yaml'?"
    ]


@pytest.mark.parametrize("value", ["[a.yaml, b.yaml]", "", "3"])
def test_extends_names_one_file(folder: Path, value: str) -> None:
    write("mine.yaml", f"name: a\nextends: {value}\n")
    assert problems("mine.yaml") == ["mine.yaml:2: extends: must be the path to a recipe file, such as base.yaml"]


@pytest.mark.parametrize(
    ("override", "section", "field", "expected"),
    [
        ("training.epochs=7", "training", "epochs", 7),
        ("training.weight_decay=1e-4", "training", "weight_decay", 1e-4),
        ("training.learning_rate=0.1", "training", "learning_rate", 0.1),
        (
            "training.learning_rate={low: 1e-3, high: 1e-2}",
            "training",
            "learning_rate",
            {"low": 1e-3, "high": 1e-2, "step": None, "log": False},
        ),
        (
            "training.learning_rate.high=0.1",
            "training",
            "learning_rate",
            {"low": 1e-4, "high": 0.1, "step": None, "log": True},
        ),
        ("training={epochs: 7, optimizer: sgd}", "training", "optimizer", "sgd"),
        ("head={dropout: 0.3}", "head", "dropout", 0.3),
        ("dataset.exclude=[]", "dataset", "exclude", ()),
        ("promotion.model=m", "promotion", "model", "m"),
    ],
)
def test_an_override_replaces_the_value_of_the_file(
    folder: Path, override: str, section: str, field: str, expected: object
) -> None:
    recipe = load_recipe("bases/base.yaml", [override, "training.batch_size={choices: [8, 16]}"])
    assert recipe.model_dump()[section][field] == expected
    assert recipe.name == "base"


def test_a_gate_metric_can_be_overridden(folder: Path) -> None:
    overrides = ["promotion.model=m", "promotion.gate.test/accuracy.at_least=0.5"]
    recipe = load_recipe("bases/base.yaml", overrides)
    assert recipe.promotion is not None
    assert recipe.promotion.gate.accuracy.at_least == 0.5


def test_the_last_override_wins(folder: Path) -> None:
    assert load_recipe("bases/base.yaml", ["seed=1", "seed=2"]).seed == 2


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.epochs=x", 'training.epochs: must be a whole number, but got "x"'),
        ("training.epoch=3", "training.epoch: unknown field; did you mean 'epochs'?"),
        ("epochs=3", "epochs: unknown field; did you mean 'training.epochs'?"),
        ("training.epochs=", "training.epochs: must be a whole number, but got nothing"),
        ("training.epochs", "an override must have the form FIELD=VALUE, such as training.epochs=3"),
        ("training..epochs=3", "an override must have the form FIELD=VALUE, such as training.epochs=3"),
        ("extends=a.yaml", "extends: is only allowed in a recipe file"),
        ("training={epochs: 3", "invalid YAML at column 11: a list or mapping is not closed: expected ',' or '}'"),
    ],
)
def test_an_invalid_override_is_reported_as_it_was_typed(folder: Path, override: str, message: str) -> None:
    assert problems("bases/base.yaml", override) == [f"-o {override}: {message}"]


def test_all_invalid_overrides_are_reported_together(folder: Path) -> None:
    write("bases/base.yaml", "name: [\n")
    found = problems("bases/base.yaml", "seed", "extends=a")
    assert [problem.partition(": ")[0] for problem in found] == ["bases/base.yaml:2", "-o seed", "-o extends=a"]


def test_a_folder_of_hugging_face_stays_relative_to_the_base(folder: Path) -> None:
    write("bases/base.yaml", BASE.replace("source: photos", "source: huggingface:./photos?label=breed"))
    write("mine.yaml", "extends: bases/base.yaml\n")
    assert load_recipe("mine.yaml").dataset.source == f"huggingface:{folder}/bases/photos?label=breed"
    write("bases/base.yaml", BASE.replace("source: photos", "source: torchvision:MNIST"))
    assert load_recipe("mine.yaml").dataset.source == "torchvision:MNIST"
