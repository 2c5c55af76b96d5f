"""Messages about invalid recipes: line, rule and suggestion."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from textwrap import dedent
from typing import Annotated

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Discriminator, Tag, ValidationError

from transfer_platform.errors import RecipeError
from transfer_platform.recipe import error_messages
from transfer_platform.recipe.fields import all_fields
from transfer_platform.recipe.load import load_recipe
from transfer_platform.recipe.schema import Recipe
from transfer_platform.recipe.yaml_tree import parse_yaml

PLAIN = """\
name: ants-bees
dataset:
  source: embedded:digits
  splits:
    validation: 0.2
    test: 0.2
backbone:
  name: resnet18
training:
  epochs: 3
  learning_rate: 1e-4
"""
"""A valid recipe of 11 lines; most cases change one of them, or add lines from 12 on."""


def changed(old: str, new: str) -> str:
    assert old in PLAIN
    return PLAIN.replace(old, new)


def continued(more: str) -> str:
    return PLAIN + more


CASES = {
    # Initial phases and the ladder.
    "misspelt field of a phase": (
        continued("  initial_phases: [{haed: logistic}]"),
        12,
        "training.initial_phases[0].haed: unknown field; did you mean 'head'?",
    ),
    "phase that is a word": (
        continued("  initial_phases: [logistic]"),
        12,
        "training.initial_phases[0]: must be a section (allowed fields: freeze_through, head, epochs, learning_rate, "
        'backbone_lr_factor), but got "logistic"',
    ),
    "solved head of a phase that trains stages": (
        continued("  initial_phases: [{head: ridge, freeze_through: layer4}]"),
        12,
        "training.initial_phases[0].freeze_through: must be all, but is layer4, because the head of this phase is "
        "solved",
    ),
    "solved head after a trained one": (
        continued("  initial_phases: [{epochs: 1}, {head: ridge}]"),
        12,
        "training.initial_phases[1].head: only the first phase can solve the head; it would discard what the phases "
        "before it have trained",
    ),
    "final phase that freezes more than the one before it": (
        continued("  initial_phases: [{freeze_through: layer3}]"),
        7,
        "backbone.freeze_through: all freezes more than layer3 before it; order them from the last stage to the first",
    ),
    "unknown stage of a phase": (
        continued("  initial_phases: [{freeze_through: layer9}]"),
        12,
        "training.initial_phases[0].freeze_through: resnet18: unknown stage 'layer9'",
    ),
    "initial phases of a solved head": (
        continued("  initial_phases: [{head: logistic}]\nhead: {kind: ridge}"),
        13,
        "head.kind: must be linear, but is ridge, because the final phase trains the head; set head in a phase instead",
    ),
    "final phase without epochs": (
        changed("epochs: 3", "epochs: 0") + "  initial_phases: [{head: logistic}]",
        10,
        "training.epochs: must be at least 1, because these are the epochs of the final phase",
    ),
    "balanced sampling of a solved head": (
        continued("  initial_phases: [{head: ridge}]\n  sampling: balanced"),
        13,
        "training.sampling: balanced has no effect on the solved head of the first phase; use class_weights: balanced",
    ),
    "warm-up longer than a phase": (
        continued("  warmup_epochs: 2\n  initial_phases: [{epochs: 1}]"),
        13,
        "training.initial_phases[0].epochs: must be at least training.warmup_epochs (2), but is 1",
    ),
    "warm-up longer than a rung": (
        continued("  warmup_epochs: 3\nsearch: {trials: 1, ladder: {epochs_per_rung: 2}}"),
        13,
        "search.ladder.epochs_per_rung: must be at least training.warmup_epochs (3), but is 2",
    ),
    "rung that freezes everything": (
        continued("search: {trials: 1, ladder: {stages: [all]}}"),
        12,
        "search.ladder.stages[0]: a rung that freezes all stages trains nothing new; remove it",
    ),
    "ladder that ranks by accuracy": (
        continued("search: {trials: 1, metric: validation/accuracy, ladder: {epochs_per_rung: 3}}"),
        12,
        "search.ladder: a ladder compares the losses of the held-out images; use search.metric: validation/loss",
    ),
    "ladder that is built upside down": (
        continued("search: {trials: 1, ladder: {stages: [layer1, layer3]}}"),
        12,
        "search.ladder.stages[1]: layer3 freezes more than layer1 before it; order them from the last stage "
        "to the first",
    ),
    # Mappings in place of a value.
    "misspelt part of a validation": (
        changed("validation: 0.2", "validation: {fold: 5}"),
        5,
        "dataset.splits.validation.fold: unknown field; did you mean 'folds'?",
    ),
    "one fold": (
        changed("validation: 0.2", "validation: {folds: 1}"),
        5,
        "dataset.splits.validation.folds: must be at least 2, but got 1",
    ),
    "misspelt word in place of a number": (
        continued("features: {views: unlimitd}\n"),
        12,
        "features.views: must be one of unlimited, but got \"unlimitd\"; did you mean 'unlimited'?",
    ),
    # Unknown fields.
    "misspelt field": (changed("epochs:", "epoch:"), 10, "training.epoch: unknown field; did you mean 'epochs'?"),
    "misspelt section": (changed("training:", "trainings:"), 9, "did you mean 'training'?"),
    "field of another section": (
        continued("head: {weight_decay: 0.1}\n"),
        12,
        "head.weight_decay: unknown field; did you mean 'training.weight_decay'?",
    ),
    "another tool's word": (changed("learning_rate", "lr"), 11, "did you mean 'learning_rate'?"),
    "nothing like it": (
        continued("head: {zzz: 1}\n"),
        12,
        "head.zzz: unknown field; allowed fields in head: kind, dropout",
    ),
    "gate metric without its split": (
        continued("promotion:\n  model: m\n  gate:\n    accuracy: {at_least: 0.9}\n"),
        15,
        "did you mean 'test/accuracy'?",
    ),
    # Missing fields.
    "missing field": (
        changed("  name: resnet18", "  weights: none"),
        7,
        "backbone.name: required field is missing: A torchvision or timm network",
    ),
    "missing section": (
        PLAIN[: PLAIN.index("backbone:")],
        1,
        "backbone: required field is missing: The pretrained feature extractor.",
    ),
    "misspelt required field": (
        changed("source:", "sorce:"),
        3,
        "dataset.sorce: unknown field; did you mean 'source'?",
    ),
    "empty section": (
        continued("search:\nhead:\n"),
        13,
        "head: the section is empty; add at least one field (kind, dropout, label_map) or remove the section",
    ),
    "a value for a section": (
        continued("head: 0.5\n"),
        12,
        "must be a section (allowed fields: kind, dropout, label_map), but got 0.5",
    ),
    # Values of the wrong type.
    "text for a number": (changed("1e-4", "fast"), 11, 'must be a number, but got "fast"'),
    "quoted number": (changed("1e-4", "'1e-4'"), 11, 'must be a number, but got "1e-4"; remove the quotes'),
    "fraction of an epoch": (changed("epochs: 3", "epochs: 2.5"), 10, "must be a whole number, but got 2.5"),
    "number for text": (changed("ants-bees", "2024"), 1, "must be text, but got 2024; put it in quotes"),
    "yes for true": (
        continued("search: {trials: 1, pruning: yes}\n"),
        12,
        'search.pruning: must be true or false, but got "yes"',
    ),
    "text for a list": (
        changed("  splits:", "  exclude: a.gif\n  splits:"),
        4,
        'dataset.exclude: must be a list, such as [a, b], but got "a.gif"',
    ),
    "list for a range": (changed("1e-4", "[0.1, 0.2]"), 11, "to search over these values, use {choices: [0.1, 0.2]}"),
    # Values out of bounds.
    "too small": (changed("1e-4", "-0.1"), 11, "must be greater than 0, but got -0.1"),
    "infinite": (changed("1e-4", ".inf"), 11, "must be a finite number"),
    "too large": (changed("  splits:", "  image_size: 4096\n  splits:"), 4, "must be at most 2048, but got 4096"),
    "literal": (
        continued("  optimizer: adamv\n"),
        12,
        "training.optimizer: must be one of adamw, adam, sgd, but got \"adamv\"; did you mean 'adam'?",
    ),
    "name with a blank": (
        changed("ants-bees", "ants bees"),
        1,
        "must start with a letter or digit and contain only letters, digits, dots",
    ),
    "checksum": (changed("  splits:", "  sha256: abc\n  splits:"), 4, "64 lowercase hexadecimal digits"),
    "balanced twice": (
        continued("  sampling: balanced\n  class_weights: auto\n"),
        9,
        "training: sampling: balanced and class_weights would correct the same imbalance twice",
    ),
    "field that does not exist any more": (
        continued("search: {trials: 1, direction: maximize}\n"),
        12,
        "search.direction: unknown field; allowed fields in search: trials, metric, pruning",
    ),
    # Ranges.
    "range without search": (
        changed("1e-4", "{low: 1e-4, high: 1e-2}"),
        11,
        "training.learning_rate: a range requires a search section; add one, such as search: {trials: 20}",
    ),
    "search without range": (
        continued("search: {trials: 20}\n"),
        12,
        "all 20 trials would be identical because no field has a range",
    ),
    "range upside down": (
        changed("1e-4", "{low: 0.2, high: 0.1}") + "search: {}\n",
        11,
        "low must not exceed high, but got low=0.2 and high=0.1",
    ),
    "end of a range out of bounds": (
        changed("1e-4", "\n    low: 1e-4\n    high: -1\n") + "search: {}\n",
        13,
        "training.learning_rate.high: must be greater than 0, but got -1",
    ),
    "misspelt end of a range": (
        changed("1e-4", "{low: 1e-4, hihg: 1e-2}") + "search: {}\n",
        11,
        "training.learning_rate.hihg: unknown field; did you mean 'high'?",
    ),
    "half a range": (changed("1e-4", "{low: 1e-4}") + "search: {}\n", 11, "training.learning_rate.high: is missing"),
    "a range of words": (
        continued("  optimizer: {low: 1, high: 2}\nsearch: {}\n"),
        12,
        "training.optimizer: low and high require a numeric field; to tune this field, use {choices: [a, b]}",
    ),
    "choice that is none": (
        continued("  schedule:\n    choices:\n      - cosine\n      - cosin\nsearch: {}\n"),
        15,
        "training.schedule.choices[1]: must be one of constant, cosine, one_cycle, plateau, but got",
    ),
    "no choices": (changed("1e-4", "{choices: []}") + "search: {}\n", 11, "must contain at least one value"),
    # Files and names that a recipe refers to.
    "folder that is not there": (changed("embedded:digits", "phots"), 3, "did you mean 'photos'?"),
    "embedded set that is not there": (
        changed("embedded:digits", "embedded:digit"),
        3,
        "unknown embedded dataset 'digit'; expected digits; did you mean 'digits'?",
    ),
    "set of torchvision that is not there": (
        changed("embedded:digits", "torchvision:cifar-10"),
        3,
        "dataset.source: unknown torchvision dataset 'cifar-10'; did you mean 'CIFAR10'?",
    ),
    "set of Hugging Face in another form": (
        changed("embedded:digits", "huggingface:mnist?labels=digit"),
        3,
        "unknown option 'labels'; expected huggingface:OWNER/NAME",
    ),
    "folder of Hugging Face that is not there": (
        changed("embedded:digits", "huggingface:./phots"),
        3,
        "did you mean 'photos'?",
    ),
    "checksum of a named set": (
        changed("embedded:digits", f"torchvision:MNIST\n  sha256: {'a' * 64}"),
        4,
        "dataset.sha256: only an archive or a manifest can have a checksum",
    ),
    "scheme that is not fetched": (
        changed("embedded:digits", "s3://bucket/photos.zip"),
        3,
        "dataset.source: only http:// and https:// URLs are supported, but got s3://",
    ),
    "checksum of a folder": (
        changed("embedded:digits", f"photos\n  sha256: {'a' * 64}"),
        4,
        "dataset.sha256: only an archive or a manifest can have a checksum",
    ),
    "weights file that is not there": (
        changed("  name: resnet18", "  name: resnet18\n  weights: ./my.safetensor"),
        9,
        "did you mean 'my.safetensors'?",
    ),
    "weights file without content": (
        changed("  name: resnet18", "  name: resnet18\n  weights: ./my.safetensors"),
        9,
        "my.safetensors is empty; download or copy it again",
    ),
    "folder instead of a weights file": (
        changed("  name: resnet18", "  name: resnet18\n  weights: ./photos"),
        9,
        "photos is a folder; specify a weights file in it",
    ),
    "weights that are not published": (
        changed("  name: resnet18", "  name: resnet18\n  weights: IMAGENET1K_V7"),
        9,
        "resnet18 has no weights 'IMAGENET1K_V7'; did you mean 'IMAGENET1K_V1'? Expected none, default, ",
    ),
    "unknown backbone": (changed("resnet18", "resnet81"), 8, "resnet18"),
    "unknown backbone among choices": (
        changed("resnet18", "\n    choices:\n      - resnet18\n      - efficientnet_lit0\n") + "search: {}\n",
        11,
        "efficientnet_lite0",
    ),
    "unknown option": (
        changed("name: resnet18", "name: resnet\n  weights: none\n  options:\n    dept: 18"),
        11,
        "backbone.options.dept: resnet has no option 'dept' (did you mean 'depth'?); options: depth, layers, block, ",
    ),
    "option of a network that has none": (
        changed("name: resnet18", "name: resnet18\n  options: {depth: 18}"),
        9,
        "backbone.options.depth: resnet18 has no options, but got 'depth'; remove it",
    ),
    "options that contradict each other": (
        changed("name: resnet18", "name: resnet\n  weights: none\n  options: {depth: 18, groups: 2}"),
        10,
        "backbone.options: resnet: groups, width_per_group and dilation require block: bottleneck",
    ),
    "options that are a list": (
        changed("name: resnet18", "name: resnet\n  weights: none\n  options: [18]"),
        10,
        "backbone.options: ",
    ),
    "unknown label": (
        changed("resnet18", "efficientnet_lite0") + "head:\n  label_map:\n    ants: [ant]\n    bees: [bee, aunt]\n",
        15,
        "head.label_map.bees[1]: efficientnet_lite0: the pretrained weights have no label 'aunt'; did you mean 'ant'?",
    ),
    "label of two classes": (
        changed("resnet18", "efficientnet_lite0") + "head:\n  label_map:\n    ants: [ant]\n    bees: [bee, ant]\n",
        15,
        "head.label_map.bees[1]: efficientnet_lite0: the label 'ant' is listed twice; remove one",
    ),
    "class without labels": (continued("head:\n  label_map: {ants: []}\n"), 13, "head.label_map.ants: "),
    "labels for a solved head": (
        changed("resnet18", "efficientnet_lite0") + "head:\n  kind: ridge\n  label_map: {ants: [ant]}\n",
        14,
        "head.label_map: has no effect, because head.kind: ridge is solved on the features of the whole backbone; ",
    ),
    "labels of random weights": (
        changed("resnet18", "resnet18\n  weights: none") + "head:\n  label_map: {ants: [ant]}\n",
        14,
        "head.label_map: no labels are known for resnet18 with weights: none; remove the label map, or ",
    ),
    "unknown stage": (changed("  name: resnet18", "  name: resnet18\n  freeze_through: layer5"), 9, "layer4"),
    "stage that one of two backbones lacks": (
        changed("resnet18", "{choices: [resnet18, efficientnet_lite0]}\n  freeze_through: layer1") + "search: {}\n",
        9,
        "efficientnet_lite0: unknown stage 'layer1'",
    ),
    # Contradictions.
    "one folder for two splits": (
        changed("validation: 0.2\n    test: 0.2", "validation: photos/val\n    test: photos/val"),
        6,
        "dataset.splits.test: photos/val is the same folder as validation",
    ),
    "a split inside another": (
        changed("validation: 0.2\n    test: 0.2", "train: .\n    validation: val\n    test: 0.2"),
        6,
        "dataset.splits.validation: val overlaps train (.)",
    ),
    "a split outside the source": (changed("test: 0.2", "test: ../test"), 6, "must be a folder inside the source"),
    "nothing left to train on": (
        changed("test: 0.2", "test: 0.9"),
        5,
        "the validation and test fractions (0.2 + 0.9) leave no images for training",
    ),
    "warm-up without end": (
        continued("  warmup_epochs: 4\n"),
        12,
        "the warm-up (4 epochs) is longer than training (3 epochs)",
    ),
    "solved head on unfrozen layers": (
        changed("name: resnet18", "name: resnet18\n  freeze_through: layer3") + "head: {kind: ridge}\n",
        9,
        "must be all, not layer3, because head.kind: ridge is solved on the features of the whole backbone",
    ),
    "search of a field that a solved head lacks": (
        changed("1e-4", "{low: 1e-4, high: 1e-2}") + "head: {kind: {choices: [logistic, lda]}}\nsearch: {}\n",
        11,
        "training.learning_rate: a range has no effect, because head.kind: logistic is solved",
    ),
    "augmentation for a solved head": (
        changed("  source: embedded:digits", "  source: embedded:digits\n  augmentation: light")
        + "head: {kind: lda}\n",
        4,
        "without augmentation; remove it or use head.kind: linear",
    ),
    "balanced sampling for a solved head": (
        continued("  sampling: balanced\nhead: {kind: prototype}\n"),
        12,
        "use class_weights: balanced",
    ),
    "confirmation of one trial": (
        changed("1e-4", "{low: 1e-4, high: 1e-2}") + "search:\n  trials: 1\n  confirm: {top: 3}\n",
        14,
        "search.confirm: has no effect, because the search has only one trial; remove it, or search over at least two",
    ),
    "confirmation of one combination": (
        changed("1e-4", "{choices: [0.1]}") + "search:\n  confirm: {top: 3}\n",
        13,
        "search.confirm: has no effect, because the search has only one trial",
    ),
    "confirmation of solved heads": (
        continued("head: {kind: {choices: [ridge, lda]}}\nsearch:\n  confirm: {seeds: 3}\n"),
        14,
        "depends on the seed: head.kind: ridge is solved, not trained; remove confirm, or use head.kind: linear",
    ),
    "confirmation of untrained networks": (
        PLAIN.replace("resnet18", "{choices: [efficientnet_lite0, efficientnet_lite1]}").replace(
            "epochs: 3", "epochs: 0"
        )
        + "head: {label_map: {'0': [ant]}}\nsearch:\n  confirm: {seeds: 3}\n",
        14,
        "no trial depends on the seed: training.epochs is 0; remove confirm, or set training.epochs to at least 1",
    ),
    "confirmation with one seed": (
        changed("1e-4", "{low: 1e-4, high: 1e-2}") + "search:\n  confirm: {seeds: 1}\n",
        13,
        "search.confirm.seeds: must be at least 2, but got 1",
    ),
    "true for a confirmation": (
        changed("1e-4", "{low: 1e-4, high: 1e-2}") + "search:\n  confirm: true\n",
        13,
        "search.confirm: must be a section (allowed fields: top, seeds), but got true",
    ),
    "accuracy in per cent": (
        continued("promotion: {model: m, gate: {test/accuracy: {at_least: 90}}}\n"),
        12,
        "promotion.gate.test/accuracy.at_least: must be between 0 and 1 (not a percentage), but got 90",
    ),
    "bounds that nothing keeps": (
        continued("promotion: {model: m, gate: {test/loss: {at_least: 2, at_most: 1}}}\n"),
        12,
        "at_least must not exceed at_most, but got 2 and 1",
    ),
    "threshold without a bound": (
        continued("promotion: {model: m, gate: {test/loss: {}}}\n"),
        12,
        "promotion.gate.test/loss: a threshold requires at_least, at_most or both",
    ),
    # Invalid YAML.
    "field given twice": (
        continued("  epochs: 4\n"),
        12,
        "epochs: duplicate field, first defined at recipe.yaml:10; remove one",
    ),
    "list that is not closed": (changed("1e-4", "{choices: [1, 2}"), 11, "invalid YAML at column"),
    "second colon": (changed("name: resnet18", "name: resnet: 18"), 8, "this line contains a second ': '"),
    "tab": (changed("  source", "\tsource"), 3, "a tab is used for indentation; use spaces instead"),
    "open quotation mark": (changed("resnet18", "'resnet18"), 8, "a quotation mark is not closed"),
    "crooked indentation": (changed("  learning_rate", " learning_rate"), 11, "not aligned"),
    "two documents": (continued("---\nname: b\n"), 12, "a second document"),
    "tag": (changed("resnet18", "!!python/object:os.system x"), 8, "the tag !!python/object:os.system is not allowed"),
    "merge key": (continued("head: {<<: {dropout: 0.1}}\n"), 12, "use extends: FILE"),
    "control character": (changed("resnet18", "res\x00net"), 8, "a control character"),
    "no mapping": ("- name\n", 1, "not a recipe: expected fields such as name: ants-bees"),
}


@pytest.fixture
def folder(isolated: Path) -> Path:
    (isolated / "photos").mkdir()
    (isolated / "my.safetensors").touch()
    return isolated


def problems(text: str) -> tuple[str, ...]:
    Path("recipe.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(RecipeError) as caught:
        load_recipe("recipe.yaml")
    return tuple(map(str, caught.value.problems))


@pytest.mark.parametrize(("text", "line", "message"), CASES.values(), ids=CASES)
def test_an_invalid_recipe_is_reported_with_line_rule_and_fix(folder: Path, text: str, line: int, message: str) -> None:
    found = problems(text)
    assert len(found) == 1, "one mistake is one problem"
    assert found[0].startswith(f"recipe.yaml:{line}: ")
    assert message in found[0]
    assert "Input should" not in found[0]


def test_the_plain_recipe_is_valid(folder: Path) -> None:
    Path("recipe.yaml").write_text(PLAIN, encoding="utf-8")
    assert load_recipe("recipe.yaml").training.learning_rate == 1e-4


def test_everything_is_reported_at_once_in_the_order_of_the_file(folder: Path) -> None:
    text = """\
        nam: ants
        dataset:
          source: phots
          splits: {train: a, validation: a, test: 0.1}
        backbone:
          name: resnet81
        training:
          epochs: -1
          optimiser: sgd
          learning_rate: {low: 1e-4, high: 1e-2}
        promotion: {model: m, gate: {test/accuracy: {at_least: 95}}}
        """
    found = problems(dedent(text))
    assert [message.split(": ")[:2] for message in found] == [
        ["recipe.yaml:1", "nam"],
        ["recipe.yaml:3", "dataset.source"],
        ["recipe.yaml:4", "dataset.splits.validation"],
        ["recipe.yaml:6", "backbone.name"],
        ["recipe.yaml:8", "training.epochs"],
        ["recipe.yaml:9", "training.optimiser"],
        ["recipe.yaml:10", "training.learning_rate"],
        ["recipe.yaml:11", "promotion.gate.test/accuracy.at_least"],
    ]


def test_duplicates_and_tags_are_reported_together(folder: Path) -> None:
    found = problems(PLAIN + "name: a\nseed: !!set {1}\nname: b\n")
    assert [message.split(": ")[0] for message in found] == ["recipe.yaml:12", "recipe.yaml:13", "recipe.yaml:14"]


class RecipeWithAnotherUnion(Recipe):
    limit: Annotated[
        Annotated[int, Tag("whole")] | Annotated[str, Tag("text")],
        Discriminator(lambda value: "text" if isinstance(value, str) else "whole"),
    ]


def test_the_tags_of_unions_are_those_of_the_schema(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(error_messages, "Recipe", RecipeWithAnotherUnion, raising=False)
    tree = parse_yaml(continued("limit: 1.5\n"), "recipe.yaml")
    with pytest.raises(ValidationError) as error:
        RecipeWithAnotherUnion.model_validate(tree.plain())
    assert [found.path for found in error_messages.validation_errors(error.value, tree)] == [("limit",)]


@pytest.mark.parametrize("text", ["", "# only a comment\n"])
def test_an_empty_file_lists_the_required_fields(folder: Path, text: str) -> None:
    assert problems(text) == ("recipe.yaml: the file is empty; a recipe needs at least name, dataset and backbone",)


def test_latin_1_is_rejected_with_its_line(folder: Path) -> None:
    Path("recipe.yaml").write_bytes("name: a\n# Käfer\n".encode("latin-1"))
    with pytest.raises(RecipeError, match=r"recipe.yaml:2: invalid UTF-8 byte 0xe4; save the file as UTF-8"):
        load_recipe("recipe.yaml")


def test_a_byte_order_mark_is_accepted(folder: Path) -> None:
    Path("recipe.yaml").write_bytes(PLAIN.encode("utf-8-sig"))
    assert load_recipe("recipe.yaml").name == "ants-bees"


def test_a_missing_file_names_its_nearest_sibling(folder: Path) -> None:
    Path("ants_bees.yaml").write_text(PLAIN, encoding="utf-8")
    with pytest.raises(RecipeError, match=r"ants_bee.yaml: the file does not exist; did you mean 'ants_bees.yaml'\?"):
        load_recipe("ants_bee.yaml")


def test_a_folder_is_rejected(folder: Path) -> None:
    with pytest.raises(RecipeError, match="photos: this is a folder; expected a recipe file"):
        load_recipe("photos")


def test_exponential_aliases_are_rejected(folder: Path) -> None:
    layers = "".join(
        f"{name}: &{name} [{', '.join([f'*{below}'] * 9)}]\n"
        for below, name in zip("abcdefgh", "bcdefghi", strict=True)
    )
    (found,) = problems("a: &a [x, x, x, x, x, x, x, x, x]\n" + layers)
    assert "more than 10000 values" in found


@pytest.mark.parametrize("text", ["a: &a [*a]\n", f"a: {'[' * 1000}\n"], ids=["circle", "depth"])
def test_endless_nesting_is_rejected(folder: Path, text: str) -> None:
    (found,) = problems(text)
    assert "nested too deeply" in found


def test_a_path_of_the_current_folder_is_explained(folder: Path) -> None:
    Path("recipes").mkdir()
    Path("recipes/a.yaml").write_text(changed("embedded:digits", "photos"), encoding="utf-8")
    with pytest.raises(RecipeError, match="paths are relative to the recipe's folder, not the current folder"):
        load_recipe("recipes/a.yaml")


JUNK = st.sampled_from(
    [None, True, 0, -1, 0.5, 1e300, "", "all", "a/b", [], [1, "a"], {}, {"low": 1}, {"low": 1, "high": 2},
     {"low": "a", "high": []}, {"choices": [1]}, {"choices": 3}, {"choices": [[], {}]}, {"": 1}]
)  # fmt: skip


@given(junk=st.dictionaries(st.sampled_from(sorted(all_fields())), JUNK, min_size=1, max_size=4))
@settings(max_examples=200)
def test_junk_in_any_field_gives_no_traceback(
    tmp_path_factory: pytest.TempPathFactory, junk: dict[tuple[str, ...], object]
) -> None:
    path = tmp_path_factory.getbasetemp() / "plain.yaml"
    path.write_text(PLAIN, encoding="utf-8")
    overrides = [f"{'.'.join(path)}={json.dumps(value)}" for path, value in junk.items()]
    with suppress(RecipeError):
        load_recipe(path, overrides)
