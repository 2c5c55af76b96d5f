"""YAML 1.2 text -> `Node`s with their lines; what YAML itself forbids, in words.

Values are built here from ruamel.yaml's node graph rather than by its constructors: every value keeps its
line, no tag can construct an object, and a key that stands twice is reported instead of overwritten.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from ruamel.yaml import YAML
from ruamel.yaml.constructor import SafeConstructor
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, ScalarNode, SequenceNode
from ruamel.yaml.nodes import Node as YamlNode
from ruamel.yaml.reader import ReaderError

from transfer_platform.errors import RecipeError, RecipeProblem
from transfer_platform.recipe.tree import Node, Place, Scalar

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_VALUES = 10_000
"""Aliases can unfold a few lines into billions of values; no recipe has as many as this."""

_TAGS = "tag:yaml.org,2002:"
_CONSTRUCTED: dict[str, Callable[[SafeConstructor, ScalarNode], Scalar]] = {
    "int": SafeConstructor.construct_yaml_int,
    "float": SafeConstructor.construct_yaml_float,
    "bool": SafeConstructor.construct_yaml_bool,
    "null": SafeConstructor.construct_yaml_null,
}
_TEXT = ("str", "timestamp")

_WORDS = (
    (r"mapping values are not allowed here", "a second ': ' on this line, or a line indented too far"),
    (r"expected ',' or '([\]}])', but got .*", r"a list or mapping is not closed: expected ',' or '\1'"),
    (r"expected <block end>, but found .*", "this line is not aligned with the ones above it"),
    (r"found character '\\t' that .*", "a tab at the start of a line: indent with spaces"),
    (r"found character '(.)' that .*", r"a value cannot start with \1: put it in quotes"),
    (r"found unexpected end of stream", "a quotation mark is never closed"),
    (r"found unknown escape character '(.*)'", r"\\\1 means nothing in double quotes: use single ones"),
    (r"could not find expected ':'", "expected ': ' after the name of a field"),
    (r"found undefined alias '(.*)'", r"the alias *\1 stands for nothing: no &\1 before it"),
    (r"but found another document", "a second document (---): a recipe is one"),
    (r"expected the node content, but found .*", "expected a value here"),
)


class _Builder:
    """Builds one tree and gathers what is wrong with it on the way."""

    def __init__(self, source: str, first_line: int | None, constructor: SafeConstructor) -> None:
        self.problems: list[RecipeProblem] = []
        self._source = source
        self._first_line = first_line
        self._constructor = constructor
        self._values = 0

    def place(self, line: int) -> Place:
        """The place of a line that ruamel counts from 0."""
        return Place(self._source, None if self._first_line is None else self._first_line + line)

    def build(self, node: YamlNode, place: Place) -> Node:
        self._values += 1
        if self._values > MAX_VALUES:
            raise _refusal(place, f"more than {MAX_VALUES} values; do aliases (*name) repeat one another?")
        if isinstance(node, MappingNode) and node.tag == f"{_TAGS}map":
            return Node(place, self._mapping(node))
        if isinstance(node, SequenceNode) and node.tag == f"{_TAGS}seq":
            return Node(place, [self.build(item, self.place(item.start_mark.line)) for item in node.value])
        return Node(place, self._scalar(node, place))

    def _mapping(self, node: MappingNode) -> dict[str, Node]:
        entries: dict[str, Node] = {}
        for key, value in node.value:
            place = self.place(key.start_mark.line)
            name = str(key.value) if isinstance(key, ScalarNode) else ""
            if not name:
                self._report(place, "", "the name of a field is a word, not a list or a mapping")
            elif name == "<<":
                self._report(place, name, "merge keys are not YAML 1.2; use extends: FILE, or write it out")
            elif name in entries:
                self._report(place, name, f"is given twice, first at {entries[name].place}; keep one")
            else:
                entries[name] = self.build(value, place)
        return entries

    def _scalar(self, node: YamlNode, place: Place) -> Scalar:
        kind = str(node.tag).removeprefix(_TAGS)
        if isinstance(node, ScalarNode) and kind in _TEXT:
            return str(node.value)
        if isinstance(node, ScalarNode) and kind in _CONSTRUCTED:
            return _CONSTRUCTED[kind](self._constructor, node)
        self._report(place, "", f"the tag {_shown_tag(node)} is not allowed; write a plain value")
        return None

    def _report(self, place: Place, field: str, message: str) -> None:
        self.problems.append(RecipeProblem(str(place), field, message))


def parse_yaml(text: str, source: str, first_line: int | None = 1) -> Node | None:
    """Reads YAML.

    Args:
        text: One YAML document.
        source: How to call it in messages, usually the file as the user named it.
        first_line: Number of its first line; none where lines mean nothing (an override).

    Returns:
        Its tree, or none where the text holds nothing.

    Raises:
        RecipeError: It is no YAML, or has duplicate fields, tags, or aliases without end.
    """
    yaml = YAML(typ="safe", pure=True)
    try:
        builder = _Builder(source, first_line, yaml.constructor)
        root = yaml.compose(text)
        if root is None:
            return None
        tree = builder.build(root, builder.place(root.start_mark.line))
    except YAMLError as error:
        raise _in_words(error, text, source, first_line) from error
    except ValueError as error:
        raise _refusal(Place(source), f"a number that cannot be read: {error}") from error
    except RecursionError as error:
        raise _refusal(Place(source), "lists or mappings are nested too deeply") from error
    if builder.problems:
        raise RecipeError(builder.problems)
    return tree


def _shown_tag(node: YamlNode) -> str:
    tag = str(node.tag)
    return tag.replace(_TAGS, "!!") if tag.startswith(_TAGS) else tag


def _in_words(error: YAMLError, text: str, source: str, first_line: int | None) -> RecipeError:
    if isinstance(error, ReaderError):
        line = text.count("\n", 0, error.position)
        return _syntax(source, first_line, line, None, "a control character; delete it")
    if not isinstance(error, MarkedYAMLError) or error.problem_mark is None:
        return _refusal(Place(source), f"is not YAML: {error}")
    mark: Any = error.problem_mark
    if "end of stream" in str(error.problem) and error.context_mark is not None:
        mark = error.context_mark  # the quotation mark that opens, rather than the end of the file
    return _syntax(source, first_line, mark.line, mark.column, _words(str(error.problem)))


def _words(problem: str) -> str:
    for pattern, words in _WORDS:
        if match := re.fullmatch(pattern, problem):
            return match.expand(words)
    return problem


def _syntax(source: str, first_line: int | None, line: int, column: int | None, words: str) -> RecipeError:
    place = Place(source, None if first_line is None else first_line + line)
    where = "" if column is None else f" at column {column + 1}"
    return _refusal(place, f"is not YAML{where}: {words}")


def _refusal(place: Place, message: str) -> RecipeError:
    return RecipeError([RecipeProblem(str(place), "", message)])
