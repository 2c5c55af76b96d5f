"""Resolves trial recipes, formats recipes as YAML and computes study identities."""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Iterator, Mapping
from functools import reduce
from io import StringIO
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.scalarstring import DoubleQuotedScalarString

from transfer_platform.errors import RecipeError, RecipeProblem
from transfer_platform.recipe.error_messages import validation_errors
from transfer_platform.recipe.fields import all_fields, value_fields
from transfer_platform.recipe.ladder import EPOCHS, LEARNING_RATE, STAGE, rung_recipe
from transfer_platform.recipe.schema import Recipe
from transfer_platform.recipe.search_space import Choice, Range, combination_count
from transfer_platform.recipe.yaml_tree import Node, Place, format_path, is_range
from transfer_platform.suggest import did_you_mean

if TYPE_CHECKING:
    from transfer_platform.recipe.search_space import Space

_PLAIN_TEXT = re.compile(r"[\w./](?:[\w./+-]|:(?=[\w/]))*")
"""Pattern for text that ruamel.yaml can write without quotes and read back unchanged."""

_AMBIGUOUS_TEXT = re.compile(r"[\d.+-].*\d.*|\.(inf|nan)|null|true|false|yes|no|on|off|y|n")
"""Pattern for text that YAML 1.1 or 1.2 parses as a number, date, boolean or null."""

_LATER_FIELDS = (
    ("backbone", "options"),
    ("head", "kind"),
    ("head", "label_map"),
    ("training", "initial_phases"),
    ("training", "plateau"),
)
"""Fields that were added after the first studies. They do not affect a study's identity if they have default values."""


def search_ranges(recipe: Recipe) -> dict[str, Range[Any] | Choice[Any]]:
    """Returns the search space of a recipe, keyed by dotted field path, in schema order."""
    paths = [path for path, field in value_fields().items() if field.range_keys]
    values: dict[str, Any] = {format_path(path): attrgetter(format_path(path))(recipe) for path in paths}
    return {field: value for field, value in values.items() if isinstance(value, Range | Choice)}


def trial_count(recipe: Recipe) -> int:
    """Returns the number of trials, limited to the number of value combinations; 1 if the recipe has no `search:`."""
    return int(min(recipe.search.trials, combination_count(search_ranges(recipe)))) if recipe.search else 1


def resolve(recipe: Recipe, values: Mapping[str, object]) -> Recipe:
    """Returns the recipe for a single trial, with ranges replaced by `values` and without other trials or seeds.

    Args:
        recipe: The recipe of the study.
        values: Trial values, keyed by dotted field path, with exactly the keys of `search_ranges(recipe)`; for a rung,
            also those of `ladder.rung_values`.

    Raises:
        RecipeError: Values are missing, unexpected, or out of range; the error lists all problems.
    """
    plain = {field: _to_python(value) for field, value in values.items()}
    rung = {field: plain.pop(field) for field in (STAGE, LEARNING_RATE, EPOCHS) if field in plain}
    if problems := sorted(_value_errors(search_ranges(recipe), plain)):
        raise RecipeError([RecipeProblem("trial", field, message) for field, message in problems])
    content = recipe.model_dump(by_alias=True)
    for field, value in plain.items():
        *sections, name = field.split(".")
        reduce(lambda parent, section: parent[section], sections, content)[name] = value
    if recipe.search:
        content["search"] |= {"trials": 1, "confirm": None}
    trial = validated(content, "trial")
    return rung_recipe(trial, rung) if rung else trial


def validated(content: Mapping[str, Any], source: str) -> Recipe:
    """Builds a recipe from plain values; `source` says in error messages where the values come from.

    Raises:
        RecipeError: A value is invalid; the error lists all problems.
    """
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        errors = validation_errors(error, Node(Place(source), {}))
        raise RecipeError([RecipeProblem(source, format_path(path), message) for path, message in errors]) from error


def study_identity(recipe: Recipe) -> str:
    """Returns the SHA-256 hash (64 hexadecimal digits) of the recipe settings that affect trials.

    The hash excludes the number of trials, `search.confirm`, `evaluation`, `promotion`, `variants`, the file validation
    options and `group_near_duplicates`. Comments, field order and explicitly written defaults do not change it. The
    caller must resolve the splits and `dataset.intensity` first. Otherwise, a detected value and the same value written
    in the recipe yield different hashes.
    """
    image_options = {"on_bad_image", "allow_duplicates", "few_images", "group_near_duplicates"}
    excluded: dict[str, Any] = {
        "search": {"trials", "confirm", "ladder"},
        "evaluation": True,
        "promotion": True,
        "variants": True,
        "dataset": image_options,
    }
    content = recipe.model_dump(mode="json", by_alias=True, exclude=excluded)
    if recipe.dataset.intensity in ("auto", "full"):  # then the pixels of 8-bit images are the same
        del content["dataset"]["intensity"]
    for section, field in _LATER_FIELDS:
        if getattr(getattr(recipe, section), field) == all_fields()[section, field].default:
            del content[section][field]
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def to_yaml(recipe: Recipe) -> str:
    """Formats a recipe, including defaults, as YAML that `load_recipe` converts back to an equal recipe."""
    return _dump(_styled(recipe.model_dump(mode="json", by_alias=True, exclude_none=True)), YAML())


def yaml_scalar(text: str) -> str:
    """Formats text as a single-line YAML value, quoted if YAML 1.1 or 1.2 would not parse it as a string.

    >>> yaml_scalar("ants-bees"), yaml_scalar("no"), yaml_scalar("1e3"), yaml_scalar("a: b")
    ('ants-bees', '"no"', '"1e3"', '"a: b"')
    """
    yaml = YAML(pure=True)
    yaml.default_flow_style = True
    return _dump([_quoted(text)], yaml).strip()[1:-1]


def _dump(content: object, yaml: YAML) -> str:
    yaml.width = sys.maxsize
    text = StringIO()
    yaml.dump(content, text)
    return text.getvalue()


def _quoted(text: str) -> str:
    plain = _PLAIN_TEXT.fullmatch(text) and not _AMBIGUOUS_TEXT.fullmatch(text.casefold())
    return text if plain else DoubleQuotedScalarString(text)


def _styled(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    """Formats each section in block style and each range or list on a single line; quotes ambiguous text."""
    if isinstance(value, dict):
        block = CommentedMap({key: _styled(item) for key, item in value.items()})
        if is_range(value):
            block.fa.set_flow_style()
        return block
    if isinstance(value, list):
        line = CommentedSeq(map(_styled, value))
        line.fa.set_flow_style()
        return line
    return _quoted(value) if isinstance(value, str) else value


def _value_errors(space: Space, values: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    for field, span in space.items():
        if field not in values:
            yield field, f"value is missing; expected a value in {_format_range(span)}"
        elif not _contains(span, values[field]):
            yield field, f"must be in {_format_range(span)}, but got {values[field]!r}"
    for field in values.keys() - space.keys():
        yield field, f"unexpected value; this field has no range{did_you_mean(field, space)}"


def _contains(span: Range[Any] | Choice[Any], value: object) -> bool:
    if isinstance(span, Choice):
        return value in span.choices
    return isinstance(value, int | float) and bool(span.low <= value <= span.high)


def _format_range(span: Range[Any] | Choice[Any]) -> str:
    return json.dumps(span.model_dump(mode="json", exclude_defaults=True))


def _to_python(value: Any) -> Any:  # noqa: ANN401 - any value from a sampler
    """Converts a NumPy scalar, which the strict schema rejects, to a Python number."""
    item = getattr(value, "item", None)
    return item() if callable(item) else value
