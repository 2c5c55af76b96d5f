"""Converts pydantic validation errors into user-facing recipe errors."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from transfer_platform.recipe.fields import CHOICE_KEYS, RANGE_KEYS, all_fields, field_names, paths_named
from transfer_platform.recipe.schema import Recipe
from transfer_platform.recipe.yaml_tree import FieldPath, Node, format_path
from transfer_platform.suggest import closest_match, did_you_mean

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError
    from pydantic_core import ErrorDetails


class FieldError(NamedTuple):
    """The path of an invalid field and an error message without the field name or line number."""

    path: FieldPath
    message: str


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
    "string_too_long": "must be at most {max_length} characters long",
    "tuple_type": "must be a list, such as [a, b]",
    "too_short": "must contain at least one value",
}

_PATTERN_RULES = {
    r"^[0-9a-f]{64}$": "must be 64 lowercase hexadecimal digits",
    r"^[A-Za-z0-9][A-Za-z0-9._-]*$": (
        "must start with a letter or digit and contain only letters, digits, dots, underscores and hyphens"
    ),
}


def validation_errors(error: ValidationError, tree: Node) -> list[FieldError]:
    """Converts the errors from `Recipe.model_validate(tree.plain())` to field errors, one per mistake."""
    errors = [(_path(details, tree), details) for details in error.errors(include_url=False)]
    unknown = [path for path, details in errors if details["type"] == "extra_forbidden"]
    messages = [
        _misplaced_range(path, tree) or FieldError(path, _message(path, details))
        for path, details in errors
        if not (details["type"] == "missing" and _is_misspelled(path, unknown))
        and not (details["type"] == "too_short" and details["input"])
    ]
    return list(dict.fromkeys(messages))


def _path(details: ErrorDetails, tree: Node) -> FieldPath:
    path: FieldPath = ()
    location = details["loc"]
    for position, step in enumerate(location):
        missing = position == len(location) - 1 and details["type"] == "missing"
        if tree.find((*path, step)) is not None or missing or step not in _union_tags(Recipe):
            path = (*path, step)
    return path


@cache
def _union_tags(model: type[BaseModel]) -> frozenset[str]:
    """Returns the tags of a model's discriminated unions; pydantic adds these tags to the locations of errors."""
    return frozenset(_tags_in(model.__pydantic_core_schema__))


def _tags_in(schema: object) -> Iterator[str]:
    if isinstance(schema, dict) and schema.get("type") == "tagged-union":
        yield from schema["choices"]
    if isinstance(schema, dict | list | tuple):
        for part in schema.values() if isinstance(schema, dict) else schema:
            yield from _tags_in(part)


def _is_misspelled(missing: FieldPath, unknown: Iterable[FieldPath]) -> bool:
    """Returns whether an unknown field (such as `sorce`) is probably a misspelling of the missing field (`source`)."""
    siblings = [str(path[-1]) for path in unknown if path[:-1] == missing[:-1]]
    return any(closest_match(name, field_names(missing[:-1])) == missing[-1] for name in siblings)


def _misplaced_range(path: FieldPath, tree: Node) -> FieldError | None:
    """Returns an error if a non-numeric field has a range, such as `optimizer: {low: 1, high: 2}`; otherwise None."""
    field = all_fields().get(path[:-1])
    node = tree.find(path[:-1])
    if not field or field.range_keys != CHOICE_KEYS or not node or not set(RANGE_KEYS) & node.entries.keys():
        return None
    return FieldError(path[:-1], "low and high require a numeric field; to tune this field, use {choices: [a, b]}")


def _message(path: FieldPath, details: ErrorDetails) -> str:
    special: dict[str, Callable[[], str]] = {
        "missing": lambda: _missing(path),
        "extra_forbidden": lambda: _unknown(path),
        "model_type": lambda: _invalid_section(path, details["input"]),
        "literal_error": lambda: _invalid_literal(details),
        "value_error": lambda: str(details["ctx"]["error"]),
    }
    if format_message := special.get(details["type"]):
        return format_message()
    return f"{_rule(details)}, but got {_format_value(details['input'])}{_fix(path, details)}"


def _rule(details: ErrorDetails) -> str:
    context = details.get("ctx", {})
    if details["type"] == "string_pattern_mismatch":
        return _PATTERN_RULES.get(context["pattern"], f"must match {context['pattern']}")
    if rule := _RULES.get(details["type"]):
        return rule.format(**context)
    return details["msg"][0].lower() + details["msg"][1:]


def _fix(path: FieldPath, details: ErrorDetails) -> str:
    value, kind = details["input"], details["type"]
    if kind in ("float_type", "int_type") and isinstance(value, str) and _is_number(value):
        return "; remove the quotes"
    if kind == "string_type" and isinstance(value, int | float):
        return "; put it in quotes"
    if isinstance(value, list) and path in all_fields() and all_fields()[path].range_keys:
        return f"; to search over these values, use {{choices: {_format_value(value)}}}"
    return ""


def _missing(path: FieldPath) -> str:
    if path in all_fields():
        return f"required field is missing: {all_fields()[path].description}"
    field = all_fields().get(path[:-1])
    if field and not field.range_keys:
        return f"is missing; expected {' and '.join(field.mapping_keys)}"
    return "is missing; a range requires either low and high, or choices"


def _unknown(path: FieldPath) -> str:
    name, section = str(path[-1]), path[:-1]
    if hint := did_you_mean(name, field_names(section)):
        return f"unknown field{hint}"
    if paths := paths_named(name):
        return f"unknown field; did you mean {' or '.join(map(repr, paths[:3]))}?"
    in_range = section in all_fields() and all_fields()[section].range_keys
    parent = "a range" if in_range else format_path(section) or "a recipe"
    return f"unknown field; allowed fields in {parent}: {', '.join(field_names(section))}"


def _invalid_section(path: FieldPath, value: object) -> str:
    allowed = ", ".join(field_names(path))
    if value is None:
        return f"the section is empty; add at least one field ({allowed}) or remove the section"
    return f"must be a section (allowed fields: {allowed}), but got {_format_value(value)}"


def _invalid_literal(details: ErrorDetails) -> str:
    allowed = re.findall(r"'([^']*)'", details["ctx"]["expected"])
    hint = did_you_mean(details["input"], allowed) if isinstance(details["input"], str) else ""
    return f"must be one of {', '.join(allowed)}, but got {_format_value(details['input'])}{hint}"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _format_value(value: Any) -> str:  # noqa: ANN401 - any YAML value
    if value is None:
        return "nothing"
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."
