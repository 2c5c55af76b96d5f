"""A recipe before it is one: nested values, each of which knows where it was written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

Scalar: TypeAlias = str | int | float | bool | None
Path: TypeAlias = tuple[str | int, ...]
"""Keys and list positions that lead to a value: `("training", "learning_rate", "choices", 1)`."""


@dataclass(frozen=True)
class Place:
    """Where something was written.

    Attributes:
        source: A file, an override as it was typed, or "recipe" for a Python mapping.
        line: Counted from 1; none where the source has no lines.
    """

    source: str
    line: int | None = None

    def __str__(self) -> str:
        return self.source if self.line is None else f"{self.source}:{self.line}"


@dataclass(frozen=True)
class Node:
    """A value and the place of its key (in a list: of its item)."""

    place: Place
    value: Scalar | dict[str, Node] | list[Node]

    @property
    def entries(self) -> dict[str, Node]:
        """The fields of a section; empty for anything that is no mapping."""
        return self.value if isinstance(self.value, dict) else {}

    def plain(self) -> Any:  # noqa: ANN401 - whatever a YAML file may hold
        """The value without its places: dicts, lists and scalars."""
        if isinstance(self.value, dict):
            return {key: node.plain() for key, node in self.value.items()}
        if isinstance(self.value, list):
            return [node.plain() for node in self.value]
        return self.value

    def find(self, path: Path) -> Node | None:
        """What stands at `path`, if anything does."""
        node: Node | None = self
        for step in path:
            node = node._child(step) if node else None
        return node

    def place_of(self, path: Path) -> Place:
        """The place of `path`, or of the innermost section around it that was written at all."""
        while path and self.find(path) is None:
            path = path[:-1]
        node = self.find(path)
        return node.place if node else self.place

    def replaced(self, path: Path, value: Scalar) -> Node:
        """The same tree with another scalar at `path`, which must exist and lead through mappings only."""
        if not path:
            return Node(self.place, value)
        key = str(path[0])
        return Node(self.place, {**self.entries, key: self.entries[key].replaced(path[1:], value)})

    def _child(self, step: str | int) -> Node | None:
        if isinstance(self.value, list):
            return self.value[step] if isinstance(step, int) and step < len(self.value) else None
        return self.entries.get(str(step))


def merge(base: Node, over: Node) -> Node:
    """`over` laid on `base`: sections merge field by field, everything else is replaced whole.

    A complete range (`low` and `high`, or `choices`) replaces what was there; a part of one (`high: 0.1`)
    changes the range below it.
    """
    if not isinstance(base.value, dict) or not isinstance(over.value, dict) or is_range(over.value):
        return over
    merged = dict(base.value)
    for key, node in over.value.items():
        merged[key] = merge(merged[key], node) if key in merged else node
    in_passing = over.place.line is None  # an override names a section only to get at one of its fields
    return Node(base.place if in_passing else over.place, merged)


def is_range(value: object) -> bool:
    """Whether a mapping says by itself what to search."""
    return isinstance(value, Mapping) and ("choices" in value or {"low", "high"} <= value.keys())


def tree_from_value(value: object, place: Place) -> Node:
    """The tree of a Python value, all of it at one place; tuples become lists, ranges their mappings."""
    if isinstance(value, Mapping):
        return Node(place, {str(key): tree_from_value(item, place) for key, item in value.items()})
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return Node(place, [tree_from_value(item, place) for item in value])
    if dump := getattr(value, "model_dump", None):
        return tree_from_value(dump(by_alias=True, exclude_unset=True), place)
    return Node(place, value)  # type: ignore[arg-type]  # the schema says what it thinks of other types


def format_path(path: Path) -> str:
    """`training.learning_rate.choices[1]`."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}"
    return text.removeprefix(".")
