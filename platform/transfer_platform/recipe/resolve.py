"""What a study may vary, a recipe with one trial's values in place, and what makes two studies the same."""

from __future__ import annotations

import hashlib
import json
import re
import sys
from io import StringIO
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.scalarstring import DoubleQuotedScalarString

from transfer_platform.errors import RecipeError, RecipeProblem
from transfer_platform.recipe import messages
from transfer_platform.recipe.fields import leaves
from transfer_platform.recipe.schema import Recipe
from transfer_platform.recipe.search_space import Choice, Range
from transfer_platform.recipe.tree import Path, Place, format_path, is_range, tree_from_value
from transfer_platform.suggest import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Mapping

_PLAIN = re.compile(r"[\w./](?:[\w./+-]|:(?=[\w/]))*")
"""Text that ruamel.yaml writes without quotes and reads back; `[?0]` and line separators it does not."""

_OTHER_THAN_TEXT = re.compile(r"[\d.+-].*\d.*|\.(inf|nan)|null|true|false|yes|no|on|off|y|n")
"""What some version of YAML reads as a number, a date, a truth value or nothing, and some more."""


def search_ranges(recipe: Recipe) -> dict[str, Range[Any] | Choice[Any]]:
    """What a recipe leaves to the search, by dotted field, in the order of the schema."""
    searched = {field: _value(recipe, path) for path, field in _searchable().items()}
    return {field: value for field, value in searched.items() if isinstance(value, Range | Choice)}


def resolve(recipe: Recipe, values: Mapping[str, object]) -> Recipe:
    """The recipe of one trial: every range gives way to a value.

    Args:
        recipe: May hold ranges; not changed.
        values: Dotted field -> value, one for each of `ranges(recipe)` and no other.

    Returns:
        A recipe without ranges, and so of a single trial: `search.trials` is 1.

    Raises:
        RecipeError: A value is missing, foreign, or not in its range; all of them at once.
    """
    plain = {field: _plain(value) for field, value in values.items()}
    problems = [
        RecipeProblem("trial", field, message) for field, message in _misfits(search_ranges(recipe), plain)
    ]
    if problems:
        raise RecipeError(problems)
    tree = tree_from_value(recipe.model_dump(by_alias=True), Place("trial"))
    for field, value in plain.items():
        tree = tree.replaced(tuple(field.split(".")), value)
    if recipe.search:
        tree = tree.replaced(("search", "trials"), 1)
    try:
        return Recipe.model_validate(tree.plain())
    except ValidationError as error:
        found = messages.validation_errors(error, tree)
        raise RecipeError(
            [RecipeProblem("trial", format_path(path), message) for path, message in found]
        ) from error


_NOT_LEARNED_FROM: dict[str, Any] = {
    "search": {"trials"},
    "promotion": True,
    "dataset": {"on_bad_image", "allow_duplicates", "few_images"},
}

_LATER = ("dataset.group_by", "training.sampling")
"""Fields that the schema did not have at first; at their default they are no part of a study's identity.

So a new version of the program goes on with the studies of an older one. Their defaults must stay.
"""


def study_identity(recipe: Recipe) -> str:
    """What a study's identity has from its recipe: all that its trials depend on.

    That leaves out the number of trials, the promotion, and what only decides which files are images: the
    data's fingerprint says which are.

    Comments, the order of fields, and whether a default is written out make no difference. With the data's
    fingerprint it tells whether a study goes on or another one begins. Splits that are left out make another
    study than the same ones spelled out; `data.omitted.with_splits` fills them in first.

    Returns:
        SHA-256 over canonical JSON, 64 hexadecimal digits.
    """
    content = recipe.model_dump(mode="json", by_alias=True, exclude=_NOT_LEARNED_FROM)
    for field in _LATER:
        section, name = field.split(".")
        if content[section][name] == leaves()[section, name].default:
            del content[section][name]
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def to_yaml(recipe: Recipe) -> str:
    """The recipe as a file that `load` reads back to the same recipe, every default written out."""
    yaml = YAML()
    yaml.width = sys.maxsize
    text = StringIO()
    yaml.dump(_styled(recipe.model_dump(mode="json", by_alias=True, exclude_none=True)), text)
    return text.getvalue()


def yaml_scalar(text: str) -> str:
    """Text as a recipe holds it on one line, in quotes where YAML, 1.1 or 1.2, would read something else.

    >>> scalar("ants-bees"), scalar("no"), scalar("1e3"), scalar("a: b")
    ('ants-bees', '"no"', '"1e3"', '"a: b"')
    """
    yaml = YAML(pure=True)
    yaml.width = sys.maxsize
    yaml.default_flow_style = True
    written = StringIO()
    yaml.dump([_quoted(text)], written)
    return written.getvalue().strip()[1:-1]


def _quoted(text: str) -> str:
    """Text as ruamel.yaml shall write it: in quotes, unless every version of YAML reads it back without."""
    plain = _PLAIN.fullmatch(text) and not _OTHER_THAN_TEXT.fullmatch(text.casefold())
    return text if plain else DoubleQuotedScalarString(text)


def _searchable() -> dict[Path, str]:
    return {path: format_path(path) for path, field in leaves().items() if field.range_keys}


def _value(recipe: Recipe, path: Path) -> object:
    value: object = recipe
    for name in path:
        value = getattr(value, str(name))
    return value


def _misfits(
    spans: Mapping[str, Range[Any] | Choice[Any]], values: Mapping[str, object]
) -> list[tuple[str, str]]:
    missing = [
        (field, f"has no value, but a range: {_spelled(spans[field])}")
        for field in spans
        if field not in values
    ]
    foreign = [
        (field, f"has no range, so no value can be put in its place{did_you_mean(field, spans)}")
        for field in values
        if field not in spans
    ]
    outside = [
        (field, f"must be in {_spelled(span)}, but got {values[field]!r}")
        for field, span in spans.items()
        if field in values and not _admits(span, values[field])
    ]
    return sorted([*missing, *foreign, *outside])


def _admits(span: Range[Any] | Choice[Any], value: object) -> bool:
    if isinstance(span, Choice):
        return value in span.choices
    return isinstance(value, int | float) and bool(span.low <= value <= span.high)


def _spelled(span: Range[Any] | Choice[Any]) -> str:
    return json.dumps(span.model_dump(mode="json", exclude_defaults=True))


def _plain(value: Any) -> Any:  # noqa: ANN401 - whatever a sampler proposes
    """NumPy's scalars as Python's; the schema is strict about types."""
    item = getattr(value, "item", None)
    return item() if callable(item) else value


def _styled(value: Any) -> Any:  # noqa: ANN401 - whatever a recipe dumps to
    """Sections as blocks, ranges and lists on one line, unusual text in quotes."""
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
