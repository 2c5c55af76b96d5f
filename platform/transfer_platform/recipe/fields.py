"""The schema as a tree of names: which sections there are, their fields, and where a range may stand."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, TypeGuard, get_args, get_origin

from pydantic_core import PydanticUndefined

from transfer_platform.recipe import search_space
from transfer_platform.recipe.schema import Recipe, Section
from transfer_registry.rules import Rule

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic import BaseModel
    from pydantic.fields import FieldInfo

    from transfer_platform.recipe.tree import Path

RANGE_KEYS = tuple(search_space.Range.model_fields)
CHOICE_KEYS = tuple(search_space.Choice.model_fields)


@dataclass(frozen=True)
class Field:
    """One field of the schema.

    Attributes:
        path: Names that lead to it, as a recipe spells them (`test/accuracy`, not `accuracy`).
        info: pydantic's own record of it.
        section: The model behind it if it is a section, else none.
    """

    path: tuple[str, ...]
    info: FieldInfo
    section: type[BaseModel] | None

    @property
    def range_keys(self) -> tuple[str, ...]:
        """What a mapping that stands for its value may hold; empty where only a value may stand."""
        alias = getattr(get_origin(self.info.annotation), "__name__", "")
        return {"Searchable": RANGE_KEYS + CHOICE_KEYS, "Option": CHOICE_KEYS}.get(alias, ())

    @property
    def keys(self) -> tuple[str, ...]:
        """What any mapping that stands for its value may hold: the parts of a range, or of a section."""
        sections = filter(_is_section, _members(self.info.annotation))
        return self.range_keys or tuple(name for section in sections for name in section.model_fields)

    @property
    def default(self) -> Any:  # noqa: ANN401 - as many types as there are fields
        """What stands where the recipe says nothing; none too where the field is required."""
        default = self.info.get_default()
        return None if default is PydanticUndefined else default


@cache
def fields() -> dict[Path, Field]:
    """Every field by its path, sections before what is in them, in the schema's order."""
    return {field.path: field for field in _fields(Recipe, ())}


def leaves() -> dict[Path, Field]:
    """The fields that hold values, without the sections."""
    return {path: field for path, field in fields().items() if not field.section}


def is_section(path: Path) -> bool:
    """Whether `path` leads to a section; the empty one, the recipe itself, does."""
    return not path or (path in fields() and fields()[path].section is not None)


def names(path: Path) -> tuple[str, ...]:
    """What may stand below `path`: a section's fields, or the parts of a mapping in place of a value."""
    if is_section(path):
        return tuple(field.path[-1] for field in fields().values() if field.path[:-1] == path)
    return fields()[path].keys if path in fields() else ()


def paths_named(name: str) -> tuple[str, ...]:
    """Every field called `name`, dotted: `("backbone.name", "name")`."""
    return tuple(".".join(field.path) for field in fields().values() if field.path[-1] == name)


def _fields(section: type[BaseModel], above: tuple[str, ...]) -> Iterator[Field]:
    for name, info in section.model_fields.items():
        field = Field((*above, info.alias or name), info, _section(info.annotation))
        yield field
        if field.section:
            yield from _fields(field.section, field.path)


def _members(annotation: object) -> Iterator[object]:
    """Everything that an annotation is made of: of `A | B | None` first itself, then its parts."""
    yield annotation
    for part in get_args(annotation):
        yield from _members(part)


def _section(annotation: object) -> type[BaseModel] | None:
    return next(filter(_is_section, (annotation, *get_args(annotation))), None)


def _is_section(candidate: object) -> TypeGuard[type[BaseModel]]:
    return isinstance(candidate, type) and issubclass(candidate, Section | Rule)
