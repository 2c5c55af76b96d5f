from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import mlflow
import pandas as pd
import pytest
import yaml
from mlflow import MlflowClient

import transfer_model
from transfer_model.classifier import FILES
from transfer_registry.errors import RegistryError
from transfer_registry.model_uri import model_uri
from transfer_registry.packaging import artifact_digest, code_digest, find_logged_model, log_model, requirements

if TYPE_CHECKING:
    from conftest import Registered

pytestmark = [
    # pandas warns MLflow of how it counts the rows of an input example.
    pytest.mark.filterwarnings("ignore:Operation with range is deprecated")
]


@pytest.fixture
def photos(photographs: Path) -> list[Path]:
    return sorted((photographs / "val" / "ants").glob("*.jpg"))[:3]


def test_the_model_holds_no_pickle_and_no_path_of_this_machine(registered: Registered) -> None:
    files = {path.relative_to(registered.location).as_posix() for path in registered.location.rglob("*")}
    assert {"loader.py", "artifacts/model/model.json", "artifacts/model/weights.safetensors"} <= files
    assert not [name for name in files if name.endswith((".pkl", ".pth", ".pt", ".lock"))]
    description = yaml.safe_load((registered.location / "MLmodel").read_text())
    location = description.pop("artifact_path")  # where the tracking server keeps it, in every MLflow model
    assert location.endswith(registered.location.as_posix())
    assert "/" not in description["flavors"]["python_function"]["model_code_path"]
    assert str(registered.folder) not in yaml.safe_dump(description)
    assert "/tmp" not in yaml.safe_dump(description)


def test_tags_params_and_metadata_of_the_logged_model(here: Registered) -> None:
    logged = MlflowClient().get_logged_model(here.model_id)
    assert logged.experiment_id == here.experiment_id
    assert logged.source_run_id == here.run_id
    assert logged.params == {"backbone": "efficientnet_lite0"}
    assert logged.tags["origin"] == "test"
    metadata = mlflow.models.get_model_info(f"models:/{here.model_id}").metadata
    assert metadata["classes"] == ["ants", "bees"]
    assert metadata["recipe"] == "ants_bees"
    assert metadata["precision"] == "float32"
    assert metadata["code"] == f"transfer_model_{code_digest(Path(transfer_model.__path__[0]))}"


def test_requirements_are_pinned_and_free_of_local_parts(registered: Registered) -> None:
    requirements_txt = (registered.location / "requirements.txt").read_text().split()
    assert requirements_txt == requirements()
    assert all("==" in line and "+" not in line for line in requirements_txt)


def test_two_versions_of_the_code_can_be_loaded_into_one_process(
    here: Registered, photos: list[Path], tmp_path: Path
) -> None:
    other = tmp_path / "transfer_model"
    shutil.copytree(Path(transfer_model.__path__[0]), other, ignore=shutil.ignore_patterns("__pycache__"))
    pyfunc = other / "pyfunc.py"
    pyfunc.write_text(pyfunc.read_text().replace("DEFAULT_TOP_K = 5", "DEFAULT_TOP_K = 1"))
    pyfunc.write_text(pyfunc.read_text().replace('"top": top}', '"top": top, "version": 2}'))
    second = log_model(here.model, "other", here.run_id, package=other)
    table = pd.DataFrame({"image": [photos[0].read_bytes()]})
    old, new = (mlflow.pyfunc.load_model(uri) for uri in (f"models:/{here.model_id}", second.model_uri))
    assert "version" not in old.predict(table)[0]
    assert new.predict(table)[0]["version"] == 2
    assert old.predict(table)[0]["probability"] == new.predict(table)[0]["probability"]
    assert len({name for name in sys.modules if name.startswith("transfer_model_") and "." not in name}) == 2


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ("ants-bees", "models:/ants-bees@champion"),
        ("ants-bees/1", "models:/ants-bees/1"),
        ("ants-bees@champion", "models:/ants-bees@champion"),
        ("models:/ants-bees/1", "models:/ants-bees/1"),
        ("models:/m-0123", "models:/m-0123"),
        ("runs:/abc/model", "runs:/abc/model"),
        ("s3://bucket/model", "s3://bucket/model"),
    ],
)
def test_model_references(here: Registered, reference: str, expected: str) -> None:
    assert model_uri(reference) == expected


def test_a_folder_is_a_model(here: Registered) -> None:
    assert model_uri(str(here.location)) == str(here.location)


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("ants-bee", "no model 'ants-bee' is registered; registered models: ants-bees"),
        ("ants-bees/7", "ants-bees has no version 7; available versions: 1"),
        ("ants-bees@best", "ants-bees has no alias 'best'; available aliases: champion"),
        ("models:/nobody@champion", "no model 'nobody' is registered"),
        ("./nowhere/at/all", "is not a model: expected NAME"),
    ],
)
def test_missing_models(here: Registered, reference: str, message: str) -> None:
    with pytest.raises(RegistryError, match=message):
        model_uri(reference)


@pytest.mark.parametrize("file", FILES)
def test_the_artifact_digest_depends_on_every_file_but_the_model_card(
    here: Registered, tmp_path: Path, file: str
) -> None:
    copy = Path(shutil.copytree(here.model, tmp_path / "copy"))
    (copy / "README.md").write_text("another card")
    assert artifact_digest(copy) == artifact_digest(here.model)
    with (copy / file).open("ab") as changed:
        changed.write(b" ")
    assert artifact_digest(copy) != artifact_digest(here.model)


def test_a_logged_model_is_found_and_incomplete_ones_are_deleted(here: Registered) -> None:
    client, tags = MlflowClient(), {"platform.trial": "7"}
    assert find_logged_model(here.run_id, tags) is None
    incomplete = client.create_logged_model(here.experiment_id, "cut", source_run_id=here.run_id, tags=tags)
    assert find_logged_model(here.run_id, tags) is None
    with pytest.raises(mlflow.exceptions.MlflowException, match="not found"):
        client.get_logged_model(incomplete.model_id)
    assert find_logged_model(here.run_id, {"origin": "test"}) == f"models:/{here.model_id}"
