"""What pydantic found wrong, in the words of this project, at the paths of the recipe as it was written."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, NamedTuple

from transfer_platform.recipe.fields import CHOICE_KEYS, RANGE_KEYS, fields, names, paths_named
from transfer_platform.recipe.tree import Node, Path, format_path
from transfer_platform.suggest import closest_match, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pydantic import ValidationError
    from pydantic_core import ErrorDetails


class FieldError(NamedTuple):
    """Something wrong, before it is known on which line.

    Attributes:
        path: The field; where it is missing, where it should stand.
        message: Rule, value and remedy, without the field's name.
    """

    path: Path
    message: str


_UNION_TAGS = ("value", "range", "choices", "fraction", "folder", "cross_validation", "count", "word")
"""Which member of a union pydantic had in hand: a part of its `loc`, not of the recipe."""

_RULES = {
    "greater_than": "must be greater than {gt:g}",
    "greater_than_equal": "must be at least {ge:g}",
    "less_than": "must be less than {lt:g}",
    "less_than_equal": "must be at most {le:g}",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "int_type": "must be a whole number",
    "bool_type": "must be true or false",
    "string_type": "must be text",
    "string_too_long": "must have at most {max_length} characters",
    "tuple_type": "must be a list, such as [a, b]",
    "too_short": "must hold at least one value",
}

_PATTERNS = {
    r"^[0-9a-f]{64}$": "must be 64 hexadecimal digits in lower case",
    r"^[A-Za-z0-9][A-Za-z0-9._-]*$": "must be letters, digits, dots, _ and -, the first a letter or digit",
}


def validation_errors(error: ValidationError, tree: Node) -> list[FieldError]:
    """Every error of a validation, one finding per mistake that the writer made.

    Args:
        error: What `Recipe.model_validate(tree.plain())` raised.
        tree: The recipe as it was written.
    """
    errors = [(_path(details, tree), details) for details in error.errors(include_url=False)]
    unknown = [path for path, details in errors if details["type"] == "extra_forbidden"]
    found = [
        FieldError(*(_misplaced_range(path, tree) or (path, _message(path, details))))
        for path, details in errors
        if not (details["type"] == "missing" and _is_misspelt(path, unknown))
        and not (details["type"] == "too_short" and details["input"])
    ]
    return list(dict.fromkeys(found))


def _path(details: ErrorDetails, tree: Node) -> Path:
    path: Path = ()
    location = details["loc"]
    for position, step in enumerate(location):
        absent = position == len(location) - 1 and details["type"] == "missing"
        if tree.find((*path, step)) is not None or absent or step not in _UNION_TAGS:
            path = (*path, step)
    return path


def _is_misspelt(missing: Path, unknown: Iterable[Path]) -> bool:
    """A missing `source` beside an unknown `sorce` is one mistake, not two."""
    beside = [str(path[-1]) for path in unknown if path[:-1] == missing[:-1]]
    return any(closest_match(name, names(missing[:-1])) == missing[-1] for name in beside)


def _misplaced_range(path: Path, tree: Node) -> FieldError | None:
    """`optimizer: {low: 1, high: 2}`: said once, for the field, rather than for each of its keys."""
    field = fields().get(path[:-1])
    if not field or field.range_keys != CHOICE_KEYS:
        return None
    node = tree.find(path[:-1])
    if not node or not set(RANGE_KEYS) & node.entries.keys():
        return None
    return FieldError(path[:-1], "low and high are for numbers; to search here, write {choices: [a, b]}")


def _message(path: Path, details: ErrorDetails) -> str:
    special: dict[str, Callable[[], str]] = {
        "missing": lambda: _missing(path),
        "extra_forbidden": lambda: _unknown(path),
        "model_type": lambda: _no_section(path, details["input"]),
        "literal_error": lambda: _no_literal(details),
        "value_error": lambda: str(details["ctx"]["error"]),
    }
    if kind := special.get(details["type"]):
        return kind()
    return f"{_rule(details)}, but got {_shown(details['input'])}{_remedy(path, details)}"


def _rule(details: ErrorDetails) -> str:
    context = details.get("ctx", {})
    if details["type"] == "string_pattern_mismatch":
        return _PATTERNS.get(context["pattern"], f"must match {context['pattern']}")
    if rule := _RULES.get(details["type"]):
        return rule.format(**context)
    return details["msg"][0].lower() + details["msg"][1:]


def _remedy(path: Path, details: ErrorDetails) -> str:
    value, kind = details["input"], details["type"]
    if kind in ("float_type", "int_type") and isinstance(value, str) and _is_number(value):
        return "; remove the quotes"
    if kind == "string_type" and isinstance(value, int | float):
        return "; put it in quotes"
    if isinstance(value, list) and path in fields() and fields()[path].range_keys:
        return f"; to search these values, write {{choices: {_shown(value)}}}"
    return ""


def _missing(path: Path) -> str:
    if path in fields():
        return f"is missing, and has no default: {fields()[path].info.description}"
    return "is missing; a range has low and high, or choices"


def _unknown(path: Path) -> str:
    name, section = str(path[-1]), path[:-1]
    what = "a range" if section in fields() and fields()[section].range_keys else format_path(section)
    if hint := did_you_mean(name, names(section)):
        return f"is no field of {what or 'a recipe'}{hint}"
    if found := paths_named(name):
        return f"is no field of {what or 'a recipe'}; there is {' and '.join(found[:3])}"
    return f"is no field of {what or 'a recipe'}, which has {', '.join(names(section))}"


def _no_section(path: Path, value: object) -> str:
    allowed = ", ".join(names(path))
    if value is None:
        return f"is empty; give it fields ({allowed}), or leave it out"
    return f"must be a section with fields ({allowed}), but got {_shown(value)}"


def _no_literal(details: ErrorDetails) -> str:
    allowed = re.findall(r"'([^']*)'", details["ctx"]["expected"])
    hint = did_you_mean(details["input"], allowed) if isinstance(details["input"], str) else ""
    return f"must be one of {', '.join(allowed)}, but got {_shown(details['input'])}{hint}"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _shown(value: Any) -> str:  # noqa: ANN401 - whatever stood in the file
    if value is None:
        return "nothing"
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."
