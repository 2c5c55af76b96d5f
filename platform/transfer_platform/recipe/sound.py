"""What a recipe says, as far as each field is valid on its own, so that the rest can be checked at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from transfer_platform.recipe.fields import fields, leaves

if TYPE_CHECKING:
    from collections.abc import Iterable

    from transfer_platform.recipe.tree import Node, Path


class ValidFields:
    """The valid fields of a recipe that may have invalid ones, with defaults in place of unwritten ones.

    Args:
        tree: The recipe as it was written.
        broken: Paths that the schema refuses; whatever is at, above or below them is not told.
    """

    def __init__(self, tree: Node, broken: Iterable[Path]) -> None:
        self._tree = tree
        self._broken = tuple(broken)

    def get(self, name: str) -> Any:  # noqa: ANN401 - as many types as there are fields
        """The value of a dotted field as it was written, a range as its mapping.

        None stands for a field that is unset, broken, or in an optional section that is not there.
        """
        path = tuple(name.split("."))
        if not self._is_sound(path):
            return None
        node = self._tree.find(path)
        if node is not None:
            return node.plain()
        return fields()[path].default if self._has_sections_around(path) else None

    def values(self, name: str) -> dict[Path, Any]:
        """The values that a dotted field may take, by path: one, each choice, or both ends of a range."""
        path, value = tuple(name.split(".")), self.get(name)
        if not isinstance(value, dict):
            return {} if value is None else {path: value}
        if "choices" in value:
            return {(*path, "choices", index): choice for index, choice in enumerate(value["choices"])}
        return {(*path, end): value[end] for end in ("low", "high")}

    def ranges(self) -> list[Path]:
        """The fields where a mapping stands for a value, broken ones too."""
        written = {path: self._tree.find(path) for path, field in leaves().items() if field.range_keys}
        return [path for path, node in written.items() if node and isinstance(node.value, dict)]

    def is_requested(self, section: str) -> bool:
        """Whether an optional section was written, soundly or not, other than as null."""
        return self._is_written((section,))

    def _is_sound(self, path: Path) -> bool:
        return not any(
            path[: len(broken)] == broken or broken[: len(path)] == path for broken in self._broken
        )

    def _has_sections_around(self, path: Path) -> bool:
        around = (path[:length] for length in range(1, len(path)))
        return all(self._is_written(section) or fields()[section].default is not None for section in around)

    def _is_written(self, section: Path) -> bool:
        node = self._tree.find(section)
        return node is not None and node.value is not None
