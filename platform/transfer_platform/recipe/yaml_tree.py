"""YAML trees that record the source line of each value.

Trees are built from ruamel.yaml nodes so that duplicate keys are reported and tags cannot construct objects.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from ruamel.yaml import YAML
from ruamel.yaml.constructor import SafeConstructor
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, ScalarNode, SequenceNode
from ruamel.yaml.nodes import Node as YamlNode
from ruamel.yaml.reader import ReaderError

from transfer_platform.errors import RecipeError, RecipeProblem

Scalar: TypeAlias = str | int | float | bool | None
FieldPath: TypeAlias = tuple[str | int, ...]
"""Mapping keys and list indices that lead to a value, such as `("training", "learning_rate", "choices", 1)`."""

MAX_VALUES = 10_000
"""Maximum number of values in a file; needed because aliases can expand a few lines into billions of values."""

_TAG_PREFIX = "tag:yaml.org,2002:"
_CONSTRUCTORS: dict[str, Callable[[SafeConstructor, ScalarNode], Scalar]] = {
    "int": SafeConstructor.construct_yaml_int,
    "float": SafeConstructor.construct_yaml_float,
    "bool": SafeConstructor.construct_yaml_bool,
    "null": SafeConstructor.construct_yaml_null,
    "str": SafeConstructor.construct_yaml_str,
    "timestamp": SafeConstructor.construct_yaml_str,
}

_SYNTAX_MESSAGES = (
    (r"mapping values are not allowed here", "this line contains a second ': ' or is indented too far"),
    (r"expected ',' or '([\]}])', but got .*", r"a list or mapping is not closed: expected ',' or '\1'"),
    (r"expected <block end>, but found .*", "this line is not aligned with the lines above it"),
    (r"found character '\\t' that .*", "a tab is used for indentation; use spaces instead"),
    (r"found character '(.)' that .*", r"a value cannot start with \1; put it in quotes"),
    (r"found unexpected end of stream", "a quotation mark is not closed"),
    (r"found unknown escape character '(.*)'", r"\\\1 is not a valid escape sequence; use single quotes"),
    (r"could not find expected ':'", "expected ': ' after the field name"),
    (r"found undefined alias '(.*)'", r"no anchor &\1 is defined before the alias *\1"),
    (r"but found another document", "found a second document (---); a recipe file must contain only one"),
    (r"expected the node content, but found .*", "expected a value here"),
)
"""Patterns for ruamel.yaml messages, and their replacements."""


@dataclass(frozen=True)
class Place:
    """Source location of a value: a file and a 1-based line number, or only the text of an override."""

    source: str
    line: int | None = None

    def __str__(self) -> str:
        return self.source if self.line is None else f"{self.source}:{self.line}"


@dataclass(frozen=True)
class Node:
    """A value and the source location of its key or, for a list item, of the item itself."""

    place: Place
    value: Scalar | dict[str, Node] | list[Node]

    @property
    def entries(self) -> dict[str, Node]:
        """Entries of a mapping; empty for other values."""
        return self.value if isinstance(self.value, dict) else {}

    def plain(self) -> Any:  # noqa: ANN401 - any YAML value
        """Returns the value as nested dicts, lists and scalars."""
        if isinstance(self.value, dict):
            return {key: node.plain() for key, node in self.value.items()}
        if isinstance(self.value, list):
            return [node.plain() for node in self.value]
        return self.value

    def find(self, path: FieldPath) -> Node | None:
        """Returns the node at `path`, or None if it does not exist."""
        node: Node | None = self
        for step in path:
            node = node._child(step) if node else None
        return node

    def place_of(self, path: FieldPath) -> Place:
        """Returns the location of the value at `path` or, if it is missing, of its closest existing parent."""
        while path and self.find(path) is None:
            path = path[:-1]
        node = self.find(path)
        return node.place if node else self.place

    def replaced(self, path: FieldPath, value: Scalar) -> Node:
        """Returns a copy with `value` at `path`; the path must already exist and must not contain list indices."""
        if not path:
            return Node(self.place, value)
        key = str(path[0])
        return Node(self.place, {**self.entries, key: self.entries[key].replaced(path[1:], value)})

    def _child(self, step: str | int) -> Node | None:
        if isinstance(self.value, list):
            return self.value[step] if isinstance(step, int) and step < len(self.value) else None
        return self.entries.get(str(step))


def merge(base: Node, override: Node) -> Node:
    """Merges two trees: mappings are merged field by field; any other value in `override` replaces the value in `base`.

    A complete range (`low` and `high`, or `choices`) replaces the value in `base`; a partial range is merged with it.
    """
    if not isinstance(base.value, dict) or not isinstance(override.value, dict) or is_range(override.value):
        return override
    merged = dict(base.value)
    for key, node in override.value.items():
        merged[key] = merge(merged[key], node) if key in merged else node
    from_command_line = override.place.line is None  # contains a section only to reach one of its fields
    return Node(base.place if from_command_line else override.place, merged)


def is_range(value: object) -> bool:
    """Returns whether a value is a mapping that fully specifies a search range."""
    return isinstance(value, Mapping) and ("choices" in value or {"low", "high"} <= value.keys())


def format_path(path: FieldPath) -> str:
    """Formats a path, for example as `training.learning_rate.choices[1]`."""
    steps = (f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
    return "".join(steps).removeprefix(".")


def recipe_error(place: Place, field: str, message: str) -> RecipeError:
    """Returns an error with a single problem; `field` is empty if the problem concerns the whole file."""
    return RecipeError([RecipeProblem(str(place), field, message)])


def parse_yaml(text: str, source: str, first_line: int | None = 1) -> Node | None:
    """Parses a single YAML document; returns None if it is empty.

    Error messages contain `source` and, unless `first_line` is None, line numbers that start at `first_line`.

    Raises:
        RecipeError: The text is not valid YAML, or it contains tags, duplicate fields or too many values.
    """
    yaml = YAML(typ="safe", pure=True)
    try:
        builder = _TreeBuilder(source, first_line, yaml.constructor)
        root = yaml.compose(text)
        if root is None:
            return None
        tree = builder.build(root, builder.place(root.start_mark.line))
    except YAMLError as error:
        raise _syntax_error(error, text, source, first_line) from error
    except ValueError as error:
        raise recipe_error(Place(source), "", f"cannot parse a number: {error}") from error
    except RecursionError as error:
        raise recipe_error(Place(source), "", "lists or mappings are nested too deeply") from error
    if builder.problems:
        raise RecipeError(builder.problems)
    return tree


class _TreeBuilder:
    """Builds a tree from ruamel.yaml nodes and collects all problems."""

    def __init__(self, source: str, first_line: int | None, constructor: SafeConstructor) -> None:
        self.problems: list[RecipeProblem] = []
        self._source = source
        self._first_line = first_line
        self._constructor = constructor
        self._count = 0

    def place(self, line: int) -> Place:
        """Converts a zero-based ruamel.yaml line number to a source location."""
        return Place(self._source, None if self._first_line is None else self._first_line + line)

    def build(self, node: YamlNode, place: Place) -> Node:
        self._count += 1
        if self._count > MAX_VALUES:
            message = f"more than {MAX_VALUES} values; check for nested aliases (*name)"
            raise recipe_error(place, "", message)
        if isinstance(node, MappingNode) and node.tag == f"{_TAG_PREFIX}map":
            return Node(place, self._mapping(node))
        if isinstance(node, SequenceNode) and node.tag == f"{_TAG_PREFIX}seq":
            return Node(place, [self.build(item, self.place(item.start_mark.line)) for item in node.value])
        return Node(place, self._scalar(node, place))

    def _mapping(self, node: MappingNode) -> dict[str, Node]:
        entries: dict[str, Node] = {}
        for key, value in node.value:
            place = self.place(key.start_mark.line)
            name = str(key.value) if isinstance(key, ScalarNode) else ""
            if not name:
                self._report(place, "", "a field name must be a word, not a list or a mapping")
            elif name == "<<":
                self._report(place, name, "merge keys are not part of YAML 1.2; use extends: FILE instead")
            elif name in entries:
                self._report(place, name, f"duplicate field, first defined at {entries[name].place}; remove one")
            else:
                entries[name] = self.build(value, place)
        return entries

    def _scalar(self, node: YamlNode, place: Place) -> Scalar:
        kind = str(node.tag).removeprefix(_TAG_PREFIX)
        if isinstance(node, ScalarNode) and kind in _CONSTRUCTORS:
            return _CONSTRUCTORS[kind](self._constructor, node)
        tag = kind if kind == node.tag else f"!!{kind}"
        self._report(place, "", f"the tag {tag} is not allowed; write a plain value")
        return None

    def _report(self, place: Place, field: str, message: str) -> None:
        self.problems.append(RecipeProblem(str(place), field, message))


def _syntax_error(error: YAMLError, text: str, source: str, first_line: int | None) -> RecipeError:
    line, column, message = None, "", str(error)
    if isinstance(error, ReaderError):
        line, message = text.count("\n", 0, error.position), "found a control character; delete it"
    elif isinstance(error, MarkedYAMLError) and error.problem_mark is not None:
        mark: Any = error.problem_mark
        if "end of stream" in str(error.problem) and error.context_mark is not None:
            mark = error.context_mark  # the opening quotation mark instead of the end of the file
        line, column, message = (mark.line, f" at column {mark.column + 1}", _syntax_message(str(error.problem)))
    place = Place(source, None if line is None or first_line is None else first_line + line)
    return recipe_error(place, "", f"invalid YAML{column}: {message}")


def _syntax_message(problem: str) -> str:
    for pattern, message in _SYNTAX_MESSAGES:
        if match := re.fullmatch(pattern, problem):
            return match.expand(message)
    return problem
