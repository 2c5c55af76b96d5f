from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import mlflow
import numpy as np
import pandas as pd
import pytest
import yaml
from mlflow import MlflowClient

import transfer_model
from transfer_model.classifier import FILES, Classifier
from transfer_registry.errors import RegistryError
from transfer_registry.model_uri import model_uri
from transfer_registry.packaging import (
    artifact_digest,
    code_digest,
    find_logged_model,
    log_model,
    requirements,
)
from transfer_registry.serving.stranger import ask, predict

if TYPE_CHECKING:
    from conftest import Registered

pytestmark = [
    # pandas warns MLflow of how it counts the rows of an input example.
    pytest.mark.filterwarnings("ignore:Operation with range is deprecated"),
]


@pytest.fixture
def photos(photographs: Path) -> list[Path]:
    return sorted((photographs / "val" / "ants").glob("*.jpg"))[:3]


def test_a_stranger_gets_the_bits_of_the_classifier(here: Registered, photos: list[Path]) -> None:
    answers = ask("models:/ants-bees@champion", photos)
    own = Classifier.load(here.model).predict_proba(photos)
    assert answers.classes == ("ants", "bees")
    assert answers.labels == tuple(answers.classes[best] for best in own.argmax(axis=1))
    np.testing.assert_allclose(answers.probabilities, own, rtol=0, atol=1e-6)


def test_a_stranger_that_fails_says_why(here: Registered, tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("no image")
    with pytest.raises(RegistryError, match=r"exit status 1:\n(.*\n)*.*row 0 is not an image"):
        predict("models:/ants-bees/1", [tmp_path / "text.jpg"])


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


def test_what_is_recorded_with_it(here: Registered) -> None:
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
    written = (registered.location / "requirements.txt").read_text().split()
    assert written == requirements()
    assert all("==" in line and "+" not in line for line in written)


def test_two_versions_of_the_code_live_in_one_process(
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
    ("named", "expected"),
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
def test_names_of_models(here: Registered, named: str, expected: str) -> None:
    assert model_uri(named) == expected


def test_a_folder_is_a_model(here: Registered) -> None:
    assert model_uri(str(here.location)) == str(here.location)


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ("ants-bee", "no model 'ants-bee' is registered; registered here: ants-bees"),
        ("ants-bees/7", "ants-bees has no version 7; its versions: 1"),
        ("ants-bees@best", "ants-bees has no alias 'best'; its aliases: champion"),
        ("models:/nobody@champion", "no model 'nobody' is registered"),
        ("./nowhere/at/all", "is no model: expected NAME"),
    ],
)
def test_what_is_not_there(here: Registered, named: str, message: str) -> None:
    with pytest.raises(RegistryError, match=message):
        model_uri(named)


@pytest.mark.parametrize("file", FILES)
def test_a_form_is_known_by_each_of_its_files_and_not_by_its_card(
    here: Registered, tmp_path: Path, file: str
) -> None:
    copy = Path(shutil.copytree(here.model, tmp_path / "copy"))
    (copy / "README.md").write_text("another card")
    assert artifact_digest(copy) == artifact_digest(here.model)
    with (copy / file).open("ab") as changed:
        changed.write(b" ")
    assert artifact_digest(copy) != artifact_digest(here.model)


def test_a_model_that_was_logged_is_found_again_and_what_was_cut_off_is_deleted(here: Registered) -> None:
    client, tags = MlflowClient(), {"platform.trial": "7"}
    assert find_logged_model(here.run_id, tags) is None
    begun = client.create_logged_model(here.experiment_id, "cut", source_run_id=here.run_id, tags=tags)
    assert find_logged_model(here.run_id, tags) is None
    with pytest.raises(mlflow.exceptions.MlflowException, match="not found"):
        client.get_logged_model(begun.model_id)
    assert find_logged_model(here.run_id, {"origin": "test"}) == f"models:/{here.model_id}"
