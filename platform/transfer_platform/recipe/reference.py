"""Generates the JSON Schema and Markdown reference for recipes.

Run `python -m transfer_platform.recipe.reference` in the repository root to write both files.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transfer_platform.recipe.fields import CHOICE_KEYS, RANGE_KEYS, SchemaField, all_fields, value_fields
from transfer_platform.recipe.schema import Recipe
from transfer_platform.recipe.yaml_tree import FieldPath, format_path

SCHEMA_FILE = Path("recipes/recipe.schema.json")
REFERENCE_FILE = Path("docs/recipe.md")

_EXTENDS = "Path to a base recipe, relative to this file; fields in this file override those in the base."

_TYPES = {"string": "text", "integer": "whole number", "number": "number", "boolean": "`true` or `false`"}
_BOUNDS = {
    "minimum": "at least",
    "exclusiveMinimum": "more than",
    "maximum": "at most",
    "exclusiveMaximum": "less than",
}
_TABLE = ("| field | value | search | default | meaning |", "|---|---|---|---|---|")

_INTRODUCTION = """\
# Recipe reference

Generated from the schema by `python -m transfer_platform.recipe.reference`; edit `recipe/schema.py` instead.

A recipe is a YAML 1.2 file. Relative paths are relative to the folder that contains the file.

- **Search.** Fields marked *range* in the *search* column accept `{low: 1e-4, high: 1e-2, log: true}` or
  `{low: 0.0, high: 0.5, step: 0.1}` instead of a value; fields marked *choices* accept `{choices: [16, 32]}`.
  A recipe with ranges requires a `search:` section.
- **Split detection.** Unset fields in `dataset.splits` are detected from folder names in the source or one
  level below it: `train` or `training`; `val`, `valid`, `validation`, `validate` or `dev`; `test` or
  `testing`. Case is ignored, and the suffixes `_set`, `_data`, `_images` and `_split` are allowed. If there is
  a validation folder but no test folder, the validation folder becomes the test split, and 20% of train is
  held out for validation. If there are only class folders, they form train, of which 20% is held out for
  validation and 20% for test. In a manifest, each split consists of the rows assigned to it; if validation
  or test has no rows, 20% of train is held out for it. `check`, `data` and `run` print the detected splits.
- **Base recipes.** `extends: base.yaml` builds on another recipe. Sections are merged field by field; values,
  lists and ranges replace those in the base. Paths in the base are relative to the base's folder.
- **Variants.** `variants: {scratch: {backbone: {weights: none}}}` names changes to the recipe, which are merged like
  those of a recipe that extends it. `platform run` runs each variant as a study of its own, in one MLflow experiment,
  and prints one table of their test metrics. `platform check` describes each of them.
- **Overrides.** `-o training.epochs=3` on the command line overrides a field, range or section in the file.
- **Completion.** Editors that support JSON Schema complete and validate recipes that contain the line
  `# yaml-language-server: $schema=recipe.schema.json`; the schema is `recipes/recipe.schema.json`.
"""


def json_schema() -> dict[str, Any]:
    """Returns the JSON Schema (draft 2020-12) for recipe files, including `extends`.

    Fields are required only in recipes that do not extend another recipe.
    """
    raw = Recipe.model_json_schema()
    schema = _inlined(raw, raw.pop("$defs"))
    for path in _section_paths():
        _property(schema, path).pop("required", None)
    schema["properties"] = {"extends": {"type": "string", "description": _EXTENDS}, **schema["properties"]}
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Recipe"}
    return {**head, **schema, "if": {"not": {"required": ["extends"]}}, "then": _required(())}


def markdown_reference() -> str:
    """Returns a Markdown page with the allowed values, default and description of every field."""
    schema = json_schema()
    parts = [_INTRODUCTION]
    for path in _section_paths():
        fields = [field for field in value_fields().values() if field.path[:-1] == path]
        if fields:
            heading = f"`{format_path(path)}`" if path else "Top level"
            text = all_fields()[path].description if path else Recipe.__doc__
            rows = [_row(field, _property(schema, field.path)) for field in fields]
            parts.append("\n".join([f"## {heading}", "", text or "", "", *_TABLE, *rows, ""]))
    return "\n".join(parts)


def write_files(repository: Path) -> None:
    """Writes the JSON Schema and the Markdown reference to a checkout of the repository."""
    schema = json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"
    (repository / SCHEMA_FILE).write_text(schema, encoding="utf-8")
    (repository / REFERENCE_FILE).write_text(markdown_reference(), encoding="utf-8")


def _section_paths() -> list[tuple[str, ...]]:
    return [(), *(field.path for field in all_fields().values() if field.section)]


def _inlined(schema: Any, definitions: Mapping[str, Any]) -> Any:  # noqa: ANN401 - JSON
    """Replaces references with their definitions, and drops the titles generated by pydantic."""
    if isinstance(schema, list):
        return [_inlined(item, definitions) for item in schema]
    if not isinstance(schema, dict):
        return schema
    body = {key: _inlined(value, definitions) for key, value in schema.items() if key not in ("$ref", "title")}
    if "$ref" not in schema:
        return body
    name = schema["$ref"].rpartition("/")[2]
    titles = {"Range": {"title": "range"}, "Choice": {"title": "choices"}}
    return {**titles.get(name.partition("_")[0], {}), **_inlined(definitions[name], definitions), **body}


def _property(schema: dict[str, Any], path: FieldPath) -> dict[str, Any]:
    """Returns the schema for a field or section. For an optional section, the returned schema does not allow `null`."""
    for name in path:
        schema = schema["properties"][name]
        schema = next((part for part in schema.get("anyOf", ()) if "properties" in part), schema)
    return schema


def _required(path: FieldPath) -> dict[str, Any]:
    """Returns a JSON Schema that enforces the required fields of a section and its subsections."""
    children = [field for field in all_fields().values() if field.path[:-1] == path]
    sections = {field.path[-1]: _required(field.path) for field in children if field.section}
    properties = {name: schema for name, schema in sections.items() if schema}
    required = [field.path[-1] for field in children if field.info.is_required()]
    return {**({"required": required} if required else {}), **({"properties": properties} if properties else {})}


def _row(field: SchemaField, schema: Mapping[str, Any]) -> str:
    search = {RANGE_KEYS + CHOICE_KEYS: "range, choices", CHOICE_KEYS: "choices"}.get(field.range_keys, "")
    default = "**required**" if field.info.is_required() else _literal(field.default)
    return f"| `{format_path(field.path)}` | {_describe(schema)} | {search} | {default} | {field.description} |"


def _literal(value: object) -> str:
    return "unset" if value is None else f"`{json.dumps(value, ensure_ascii=False)}`".replace('"', "")


def _describe(schema: Mapping[str, Any]) -> str:
    """Describes a type and its bounds, for example `whole number, at least 1`."""
    for union in ("anyOf", "oneOf"):
        if union in schema:
            return " or ".join(text for part in schema[union] if (text := _describe(part)))
    if schema.get("type") == "null" or schema.get("title") in ("range", "choices"):
        return ""
    if schema.get("type") == "object" and "properties" not in schema:
        return "mapping of names to values"
    if schema.get("type") == "object":
        return f"`{{{', '.join(f'{name}: ...' for name in schema['properties'])}}}`"
    if "const" in schema:
        return f"`{schema['const']}`"
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if schema["type"] == "array":
        return f"list of {_describe(schema['items'])}"
    bounds = [f"{text} {schema[key]:.12g}" for key, text in _BOUNDS.items() if key in schema]
    return ", ".join([_TYPES[schema["type"]], *bounds])


if __name__ == "__main__":
    write_files(Path.cwd())
