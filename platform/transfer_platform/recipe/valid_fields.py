"""The valid fields of a recipe that may contain mistakes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from transfer_platform.recipe.fields import all_fields, value_fields

if TYPE_CHECKING:
    from transfer_platform.recipe.yaml_tree import FieldPath, Node


@dataclass(frozen=True)
class ValidFields:
    """Valid fields of a possibly incomplete recipe, with defaults for unset fields.

    Attributes:
        tree: The recipe as written, before validation.
        invalid: Field paths rejected by the schema. `get` returns None for them, their parents and their children.
    """

    tree: Node
    invalid: Sequence[FieldPath]

    def get(self, name: str) -> Any:  # noqa: ANN401 - any field type
        """Returns the value of a dotted field (a dict for a range), or None if the field is invalid or has no value."""
        path = tuple(name.split("."))
        if any(path[: len(bad)] == bad or bad[: len(path)] == path for bad in self.invalid):
            return None
        if (node := self.tree.find(path)) is not None:
            return node.plain()
        sections = (path[:length] for length in range(1, len(path)))
        exists = all(self.is_set(section) or all_fields()[section].default is not None for section in sections)
        return all_fields()[path].default if exists else None

    def possible_values(self, name: str) -> dict[FieldPath, Any]:
        """Returns a dotted field's value, each of its choices, or both bounds of its range, keyed by path."""
        path, value = tuple(name.split(".")), self.get(name)
        if not isinstance(value, dict):
            return {} if value is None else {path: value}
        if "choices" in value:
            return {(*path, "choices", index): choice for index, choice in enumerate(value["choices"])}
        return {(*path, end): value[end] for end in ("low", "high")}

    def ranges(self) -> list[FieldPath]:
        """Returns the paths of all fields with a range, including invalid ranges."""
        nodes = {path: self.tree.find(path) for path, field in value_fields().items() if field.range_keys}
        return [path for path, node in nodes.items() if node and isinstance(node.value, dict)]

    def is_set(self, path: FieldPath) -> bool:
        """Returns True if a field or section is present and not null, whether or not it is valid."""
        node = self.tree.find(path)
        return node is not None and node.value is not None
