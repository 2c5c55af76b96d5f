"""The schema for editors and for readers: a JSON Schema, and every field in a page of Markdown.

Both are generated, so that what stands in `docs/recipe.md` and `recipes/recipe.schema.json` is what the
program reads; `python -m transfer_platform.recipe.reference` writes them, from the root of the repository.
"""

from __future__ import annotations

import json
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Any

from transfer_platform.recipe.fields import CHOICE_KEYS, RANGE_KEYS, Field, leaves
from transfer_platform.recipe.fields import fields as every_field
from transfer_platform.recipe.schema import Recipe
from transfer_platform.recipe.tree import Path, format_path

if TYPE_CHECKING:
    from collections.abc import Mapping

SCHEMA_FILE = FilePath("recipes/recipe.schema.json")
FIELDS_FILE = FilePath("docs/recipe.md")

_EXTENDS = "A base recipe, relative to this file: what stands here is laid on it, section by section."

_TYPES = {"string": "text", "integer": "whole number", "number": "number", "boolean": "`true` or `false`"}
_BOUNDS = {
    "minimum": "at least",
    "exclusiveMinimum": "more than",
    "maximum": "at most",
    "exclusiveMaximum": "less than",
}
_TABLE = ("| field | value | search | default | meaning |", "|---|---|---|---|---|")

_INTRODUCTION = """\
# What may stand in a recipe

Generated from the schema by `python -m transfer_platform.recipe.reference`; edit `recipe/schema.py` instead.

A recipe is a YAML 1.2 file. Relative paths in it are relative to the file.

- **Search.** Where the column *search* says *range*, `{low: 1e-4, high: 1e-2, log: true}` or
  `{low: 0.0, high: 0.5, step: 0.1}` may stand in place of the value; where it says *choices*,
  `{choices: [16, 32]}`. Such a recipe needs a `search:` section.
- **Recognise.** What `dataset.splits` leaves out is recognised from the folders' names, in any case, in the
  source or one folder deeper: `train` or `training`; `val`, `valid`, `validation`, `validate` or `dev`;
  `test` or `testing`; `_set`, `_data`, `_images` and `_split` may follow. A validation folder without a test
  folder is the test split, and 0.2 of train is held out for validation. Class folders without splits are all
  train, and 0.2 of them each is held out. Of a manifest, the rows of a split are that split, and what has no
  rows is 0.2 of train. `check`, `data` and `run` say what was recognised.
- **Extend.** `extends: base.yaml` lays a recipe on another one. Sections merge field by field; values, lists
  and ranges replace what was there. Paths in the base stay relative to the base.
- **Override.** `-o training.epochs=3` on the command line lays one field, range or section on the file.
- **Complete.** With the line `# yaml-language-server: $schema=recipe.schema.json`, editors that know JSON
  Schema complete and check a recipe; the schema is `recipes/recipe.schema.json`.
"""


def json_schema() -> dict[str, Any]:
    """The recipe as JSON Schema (draft 2020-12), `extends` included.

    A recipe that extends another one need not be complete; any other must have every required field.
    """
    raw = Recipe.model_json_schema()
    schema = _inlined(raw, raw.pop("$defs"))
    for path in _section_paths():
        _property(schema, path).pop("required", None)
    schema["properties"] = {"extends": {"type": "string", "description": _EXTENDS}, **schema["properties"]}
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Recipe"}
    return {**head, **schema, "if": {"not": {"required": ["extends"]}}, "then": _required(())}


def fields() -> str:
    """Every field with its values, default and meaning, as Markdown."""
    schema = json_schema()
    parts = [_INTRODUCTION]
    for path in _section_paths():
        rows = [
            _row(field, _property(schema, field.path))
            for field in leaves().values()
            if field.path[:-1] == path
        ]
        if rows:
            heading = f"`{format_path(path)}`" if path else "The recipe itself"
            text = (every_field()[path].info.description if path else Recipe.__doc__) or ""
            parts.append("\n".join([f"## {heading}", "", text, "", *_TABLE, *rows, ""]))
    return "\n".join(parts)


def write(repository: FilePath) -> None:
    """Writes both files into a checkout."""
    schema = json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"
    (repository / SCHEMA_FILE).write_text(schema, encoding="utf-8")
    (repository / FIELDS_FILE).write_text(fields(), encoding="utf-8")


def _section_paths() -> list[tuple[str, ...]]:
    return [(), *(field.path for field in every_field().values() if field.section)]


def _inlined(schema: Any, definitions: Mapping[str, Any]) -> Any:  # noqa: ANN401 - JSON
    """Puts definitions where they are referred to, and drops the titles that pydantic makes of type names."""
    if isinstance(schema, list):
        return [_inlined(item, definitions) for item in schema]
    if not isinstance(schema, dict):
        return schema
    body = {
        key: _inlined(value, definitions) for key, value in schema.items() if key not in ("$ref", "title")
    }
    if "$ref" not in schema:
        return body
    name = schema["$ref"].rpartition("/")[2]
    titles = {"Range": {"title": "range"}, "Choice": {"title": "choices"}}
    return {**titles.get(name.partition("_")[0], {}), **_inlined(definitions[name], definitions), **body}


def _property(schema: dict[str, Any], path: Path) -> dict[str, Any]:
    """The schema of a field; of an optional section the object, without the null beside it."""
    for name in path:
        schema = schema["properties"][name]
        sections = [other for other in schema.get("anyOf", ()) if "properties" in other]
        schema = sections[0] if sections else schema
    return schema


def _required(path: Path) -> dict[str, Any]:
    """What a section must hold, all the way down."""
    inside = [field for field in every_field().values() if field.path[:-1] == path]
    sections = {field.path[-1]: _required(field.path) for field in inside if field.section}
    needed = {name: body for name, body in sections.items() if body}
    required = [field.path[-1] for field in inside if field.info.is_required()]
    return {
        **({"required": required} if required else {}),
        **({"properties": needed} if needed else {}),
    }


def _row(field: Field, schema: Mapping[str, Any]) -> str:
    search = {RANGE_KEYS + CHOICE_KEYS: "range, choices", CHOICE_KEYS: "choices"}.get(field.range_keys, "")
    default = "**required**" if field.info.is_required() else _literal(field.default)
    cells = (f"`{format_path(field.path)}`", _in_words(schema), search, default, field.info.description or "")
    return f"| {' | '.join(cells)} |"


def _literal(value: object) -> str:
    return "unset" if value is None else f"`{json.dumps(value, ensure_ascii=False)}`".replace('"', "")


def _in_words(schema: Mapping[str, Any]) -> str:
    """A type and its bounds: `whole number, at least 1`."""
    for union in ("anyOf", "oneOf"):
        if union in schema:
            return " or ".join(words for kind in schema[union] if (words := _in_words(kind)))
    if schema.get("type") == "null" or schema.get("title") in ("range", "choices"):
        return ""
    if schema.get("type") == "object":
        return f"`{{{', '.join(f'{name}: ...' for name in schema['properties'])}}}`"
    if "const" in schema:
        return f"`{schema['const']}`"
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if schema["type"] == "array":
        return f"list of {_in_words(schema['items'])}"
    bounds = [f"{words} {schema[key]:.12g}" for key, words in _BOUNDS.items() if key in schema]
    return ", ".join([_TYPES[schema["type"]], *bounds])


if __name__ == "__main__":
    write(FilePath.cwd())
