"""Sections and fields of the recipe schema, and the keys allowed in ranges."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, TypeGuard, get_args, get_origin

from transfer_platform.recipe.schema import Recipe
from transfer_platform.recipe.search_space import Choice, Range, Section
from transfer_registry.rules import Rule

if TYPE_CHECKING:
    from pydantic import BaseModel
    from pydantic.fields import FieldInfo

    from transfer_platform.recipe.yaml_tree import FieldPath

RANGE_KEYS = tuple(Range.model_fields)
CHOICE_KEYS = tuple(Choice.model_fields)


@dataclass(frozen=True)
class SchemaField:
    """A field or section of the schema.

    Attributes:
        path: Field names as written in a recipe (`test/accuracy`, not `accuracy`), starting with the outermost section.
        section: Pydantic model if the field is a section; None if it holds a value.
    """

    path: tuple[str, ...]
    info: FieldInfo
    section: type[BaseModel] | None

    @property
    def description(self) -> str:
        """Docstring of the field or, if it has none, of its section."""
        return self.info.description or (self.section and self.section.__doc__) or ""

    @property
    def range_keys(self) -> tuple[str, ...]:
        """Keys allowed in a range for this field; empty if the field does not accept ranges."""
        alias = getattr(get_origin(self.info.annotation), "__name__", "")
        return {"Searchable": RANGE_KEYS + CHOICE_KEYS, "Option": CHOICE_KEYS}.get(alias, ())

    @property
    def mapping_keys(self) -> tuple[str, ...]:
        """Keys allowed if the value is a mapping: the keys of a range, or of a nested section such as `{folds: 5}`."""
        models = filter(_is_section_class, _type_parts(self.info.annotation))
        return self.range_keys or tuple(name for model in models for name in model.model_fields)

    @property
    def default(self) -> Any:  # noqa: ANN401 - any field type
        """The default value; None for a required field."""
        return None if self.info.is_required() else self.info.get_default()


@cache
def all_fields() -> dict[FieldPath, SchemaField]:
    """Returns all fields, keyed by path, in schema order; each section precedes its fields."""
    return {field.path: field for field in _walk(Recipe, ())}


def value_fields() -> dict[FieldPath, SchemaField]:
    """Returns the fields that hold values, excluding sections."""
    return {path: field for path, field in all_fields().items() if not field.section}


def is_section(path: FieldPath) -> bool:
    """Returns whether `path` refers to a section; the empty path refers to the recipe itself."""
    return not path or (path in all_fields() and all_fields()[path].section is not None)


def field_names(path: FieldPath) -> tuple[str, ...]:
    """Returns the names allowed directly below `path`: the fields of a section or the keys of a mapping."""
    if path and isinstance(path[-1], int):  # an item of a list
        return field_names(path[:-1])
    if is_section(path):
        return tuple(field.path[-1] for field in all_fields().values() if field.path[:-1] == path)
    return all_fields()[path].mapping_keys if path in all_fields() else ()


def paths_named(name: str) -> tuple[str, ...]:
    """Returns the dotted paths of all fields named `name`."""
    return tuple(".".join(field.path) for field in all_fields().values() if field.path[-1] == name)


def _walk(section: type[BaseModel], parent: tuple[str, ...]) -> Iterator[SchemaField]:
    for name, info in section.model_fields.items():
        types = () if _is_list(info.annotation) else (info.annotation, *get_args(info.annotation))
        field = SchemaField((*parent, info.alias or name), info, next(filter(_is_section_class, types), None))
        yield field
        if field.section:
            yield from _walk(field.section, field.path)


def _is_list(annotation: object) -> bool:
    return get_origin(annotation) is tuple


def _type_parts(annotation: object) -> Iterator[object]:
    yield annotation
    for part in get_args(annotation):
        yield from _type_parts(part)


def _is_section_class(candidate: object) -> TypeGuard[type[BaseModel]]:
    return isinstance(candidate, type) and issubclass(candidate, Section | Rule)
