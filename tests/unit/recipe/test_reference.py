"""What is generated from the schema: the page of fields and the JSON Schema, current and readable."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest

from transfer_platform.recipe import reference
from transfer_platform.recipe.fields import leaves

REPOSITORY = Path(__file__).parents[3]
REMEDY = "run `python -m transfer_platform.recipe.reference` in the root of the repository"


def validate(values: object) -> None:
    jsonschema.validate(values, reference.json_schema(), jsonschema.Draft202012Validator)


def test_the_page_of_fields_is_current() -> None:
    assert (REPOSITORY / reference.FIELDS_FILE).read_text(encoding="utf-8") == reference.fields(), REMEDY


def test_the_schema_file_is_current() -> None:
    written = json.loads((REPOSITORY / reference.SCHEMA_FILE).read_text(encoding="utf-8"))
    assert written == reference.json_schema(), REMEDY


def test_every_field_is_on_the_page_with_its_meaning() -> None:
    rows = re.findall(r"^\| `(\S+)` \|.*\| (.+) \|$", reference.fields(), re.MULTILINE)
    assert [name for name, _ in rows] == sorted(
        (name for name, _ in rows), key=[name for name, _ in rows].index
    )
    assert {name for name, _ in rows} == {".".join(path) for path in leaves()}


def test_the_schema_shows_no_type_of_pydantic() -> None:
    assert not re.search(r"FieldInfo|Annotated|\$ref|Optional", json.dumps(reference.json_schema()))


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(reference.json_schema())


@pytest.mark.parametrize(
    "values",
    [
        {"name": "a", "dataset": {"source": "b"}, "backbone": {"name": "c"}},
        {"extends": "base.yaml"},
        {"extends": "base.yaml", "dataset": {"image_size": 64}, "promotion": {"gate": {}}},
        {"extends": "base.yaml", "search": None},
        {
            "extends": "base.yaml",
            "training": {"epochs": {"choices": [1, 2]}, "learning_rate": {"low": 1, "high": 2}},
        },
        {"extends": "base.yaml", "promotion": {"gate": {"test/accuracy": {"at_least": 0.9}}}},
    ],
)
def test_the_schema_takes_what_the_program_takes(values: object) -> None:
    validate(values)


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"name": "a", "dataset": {}, "backbone": {"name": "c"}},
        {"name": "a", "dataset": {"source": "b"}, "backbone": {"name": "c"}, "promotion": {}},
        {"extends": "base.yaml", "trainings": {}},
        {"extends": "base.yaml", "training": {"epochs": 0}},
        {"extends": "base.yaml", "training": {"optimizer": {"low": 1, "high": 2}}},
        {"extends": "base.yaml", "promotion": {"gate": {"accuracy": {"at_least": 0.9}}}},
    ],
)
def test_the_schema_refuses_what_the_program_refuses(values: object) -> None:
    with pytest.raises(jsonschema.ValidationError):
        validate(values)


def test_reading_recipes_loads_nothing_heavy() -> None:
    """`platform check` answers in three seconds only if nobody imports torch on the way."""
    code = (
        "import sys; from transfer_platform.recipe import load, reference, resolve;"
        "print({'torch', 'timm', 'mlflow', 'optuna', 'numpy'} & set(sys.modules))"
    )
    path = [str(REPOSITORY / root) for root in ("platform", "registry")]
    command = [sys.executable, "-c", f"import sys; sys.path[:0] = {path!r}; {code}"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "set()\n"
