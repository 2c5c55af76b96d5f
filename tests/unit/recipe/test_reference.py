"""The recipe reference and the JSON Schema: up to date and readable."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest

from transfer_platform.recipe import reference
from transfer_platform.recipe.fields import value_fields

REPOSITORY = Path(__file__).parents[3]
REMEDY = "run `python -m transfer_platform.recipe.reference` in the root of the repository"


def validate(values: object) -> None:
    jsonschema.validate(values, reference.json_schema(), jsonschema.Draft202012Validator)


def test_the_reference_is_current() -> None:
    assert (REPOSITORY / reference.REFERENCE_FILE).read_text(encoding="utf-8") == reference.markdown_reference(), REMEDY


def test_the_schema_file_is_current() -> None:
    written = json.loads((REPOSITORY / reference.SCHEMA_FILE).read_text(encoding="utf-8"))
    assert written == reference.json_schema(), REMEDY


def test_every_field_is_in_the_reference_with_its_description() -> None:
    rows = re.findall(r"^\| `(\S+)` \|.*\| (.+) \|$", reference.markdown_reference(), re.MULTILINE)
    assert [name for name, _ in rows] == sorted((name for name, _ in rows), key=[name for name, _ in rows].index)
    assert {name for name, _ in rows} == {".".join(path) for path in value_fields()}


def test_the_schema_shows_no_type_of_pydantic() -> None:
    assert not re.search(r"FieldInfo|Annotated|\$ref|Optional", json.dumps(reference.json_schema()))


def test_the_schema_is_valid() -> None:
    jsonschema.Draft202012Validator.check_schema(reference.json_schema())


@pytest.mark.parametrize(
    "values",
    [
        {"name": "a", "dataset": {"source": "b"}, "backbone": {"name": "c"}},
        {"extends": "base.yaml"},
        {"extends": "base.yaml", "dataset": {"image_size": 64}, "promotion": {"gate": {}}},
        {"extends": "base.yaml", "search": None},
        {"extends": "base.yaml", "training": {"epochs": {"choices": [1, 2]}, "learning_rate": {"low": 1, "high": 2}}},
        {"extends": "base.yaml", "promotion": {"gate": {"test/accuracy": {"at_least": 0.9}}}},
    ],
)
def test_the_schema_accepts_what_the_program_accepts(values: object) -> None:
    validate(values)


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"name": "a", "dataset": {}, "backbone": {"name": "c"}},
        {"name": "a", "dataset": {"source": "b"}, "backbone": {"name": "c"}, "promotion": {}},
        {"extends": "base.yaml", "trainings": {}},
        {"extends": "base.yaml", "training": {"epochs": -1}},
        {"extends": "base.yaml", "training": {"optimizer": {"low": 1, "high": 2}}},
        {"extends": "base.yaml", "promotion": {"gate": {"accuracy": {"at_least": 0.9}}}},
    ],
)
def test_the_schema_rejects_what_the_program_rejects(values: object) -> None:
    with pytest.raises(jsonschema.ValidationError):
        validate(values)


def test_reading_recipes_imports_nothing_heavy() -> None:
    """`platform check` is fast only if it does not import torch."""
    code = (
        "import sys; from transfer_platform.recipe import load, reference, resolve;"
        "print({'torch', 'timm', 'mlflow', 'optuna', 'numpy'} & set(sys.modules))"
    )
    path = [str(REPOSITORY / root) for root in ("platform", "registry")]
    command = [sys.executable, "-c", f"import sys; sys.path[:0] = {path!r}; {code}"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "set()\n"
