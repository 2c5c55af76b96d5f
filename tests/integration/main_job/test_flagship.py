"""`platform run recipes/ants_bees.yaml` on the real photographs, and what can be done with its champion."""

from __future__ import annotations

import base64
import contextlib
import csv
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient
from PIL import Image
from sklearn.datasets import load_digits

REPOSITORY = Path(__file__).parents[3]
RECIPE = REPOSITORY / "recipes" / "ants_bees.yaml"


@pytest.fixture
def client(flagship, monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
    place, _ = flagship
    monkeypatch.chdir(place.folder)
    return MlflowClient(tracking_uri=f"sqlite:///{place.folder}/mlflow.db")


def test_it_ends_with_a_champion(flagship) -> None:
    _, out = flagship
    accuracy = float(re.search(r"test/accuracy (0\.\d+)", out)[1])
    assert accuracy >= 0.9608, "147 of 153 images, as with scikit-learn's LogisticRegression on these features"
    assert float(re.search(r"test/loss (0\.\d+)", out)[1]) <= 0.09
    assert "ants-bees version 1 is champion" in out
    assert re.search(r"^passed +serving parity: ", out, re.MULTILINE)


def test_one_parent_run_and_a_child_for_every_trial(client: MlflowClient) -> None:
    experiment = client.get_experiment_by_name("ants-bees")
    runs = client.search_runs([experiment.experiment_id], max_results=100)
    parents = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    children = [run for run in runs if run not in parents]
    assert len(parents) == 1
    assert sorted(int(run.data.tags["platform.trial"]) for run in children) == list(range(6))
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parents[0].info.run_id}
    assert {run.data.tags["platform.state"] for run in children} == {"COMPLETE"}
    assert {run.info.status for run in runs} == {"FINISHED"}, "nothing is left running"
    searched = {(run.data.params["backbone.name"], run.data.params["head.kind"]) for run in children}
    assert len(searched) == 6, "every combination was tried once"
    assert {entry.dataset.name for entry in parents[0].inputs.dataset_inputs} == {"ants-bees"}
    assert len(parents[0].inputs.dataset_inputs) == 2, "train and test: with folds, no images are set aside"


def test_the_parent_run_tells_the_whole_story(client: MlflowClient) -> None:
    experiment = client.get_experiment_by_name("ants-bees")
    (parent,) = client.search_runs([experiment.experiment_id], "tags.`platform.study` LIKE 'ants-bees-%'")
    names = set()
    for folder in ("", "study", "evaluation", "data"):
        names |= {artifact.path for artifact in client.list_artifacts(parent.info.run_id, folder)}
    assert names >= {
        "recipe.yaml",
        "network.txt",
        "study/history.png",
        "study/importance.png",
        "study/trials.json",
        "evaluation/confusion_matrix.png",
        "evaluation/calibration.png",
        "evaluation/learning_curves.png",
        "evaluation/worst_mistakes.png",
        "evaluation/classes.json",
        "evaluation/predictions.json",
        "evaluation/report.md",
        "evaluation/thresholds.json",
        "evaluation/coverage.json",
        "evaluation/thresholds.md",
        "data/report.html",
        "data/report.md",
        "data/findings.json",
        "data/manifest.csv",
        "data/label_errors.json",
    }
    assert parent.data.params["backbone.freeze_through"] == "all"
    assert re.fullmatch(r"installed sha256:[0-9a-f]{64}", parent.data.params["weights.efficientnet_lite0"])
    assert {
        "test/accuracy",
        "test/macro_f1",
        "test/macro_recall",
        "test/loss",
        "test/ece",
    } <= parent.data.metrics.keys()


def test_the_version_carries_its_card_and_an_example(client: MlflowClient) -> None:
    source = client.get_model_version("ants-bees", "1").source
    logged = client.get_logged_model(source.rpartition("/")[2])
    files = Path(logged.artifact_location)
    card = (files / "artifacts" / "model" / "README.md").read_text()
    assert card.startswith("# ants-bees\n\nClassifies images into 2 classes: ants, bees.")
    assert "| test/accuracy | 0.9" in card
    assert "image" in json.loads((files / "input_example.json").read_text())["columns"]


def test_it_knows_digits_from_insects_and_errs_as_often_as_it_may(flagship, photographs: Path) -> None:
    place, _ = flagship
    digits = place.folder / "digits"
    digits.mkdir()
    for index, digit in enumerate(load_digits().images[:60]):
        Image.fromarray(np.uint8(np.clip(16 * digit, 0, 255))).save(digits / f"{index}.png")
    strange = unknown(place, digits)
    familiar = unknown(place, photographs / "val")
    assert np.mean(strange) == 1.0
    assert np.mean(familiar) == pytest.approx(0.05, abs=0.03)


def unknown(place, folder: Path) -> list[bool]:
    place.run("platform", "predict", folder, "--model", "ants-bees", "--out", "unknown.csv")
    with (place.folder / "unknown.csv").open() as file:
        return [row["unknown"] == "true" for row in csv.DictReader(file)]


def test_the_same_command_adds_nothing(flagship, client: MlflowClient) -> None:
    place, first = flagship
    runs = len(client.search_runs([client.get_experiment_by_name("ants-bees").experiment_id]))
    again, _ = place.run("platform", "run", RECIPE)
    assert again == first
    assert len(client.search_runs([client.get_experiment_by_name("ants-bees").experiment_id])) == runs
    assert len(client.search_model_versions("name = 'ants-bees'")) == 1


def test_fifty_photographs_get_the_same_labels_over_http(flagship, photographs: Path) -> None:
    place, _ = flagship
    place.run("platform", "predict", photographs / "val", "--model", "ants-bees", "--out", "p.csv")
    with (place.folder / "p.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 153
    assert not any(row["error"] for row in rows)
    chosen = rows[::3][:50]
    with served(place, "mlflow", "models", "serve", "-m", "models:/ants-bees@champion") as ask:
        answers = [ask((photographs / "val" / row["file"]).read_bytes())["predictions"][0]["label"] for row in chosen]
    assert answers == [row["label"] for row in chosen]
    hits = sum(row["label"] == row["file"].split("/")[0] for row in rows)
    assert hits / len(rows) >= 0.90


def test_evaluate_reports_on_labelled_folders(flagship, photographs: Path) -> None:
    place, _ = flagship
    out, _ = place.run("platform", "evaluate", "ants-bees/1", photographs / "val")
    assert "| ants | 70 |" in out
    assert "of 153 images are classified correctly" in out


def test_classify_with_the_champion_draws_on_the_photograph(flagship, photographs: Path) -> None:
    place, _ = flagship
    photo = sorted((photographs / "val" / "bees").iterdir())[0]
    out, _ = place.run("platform", "classify", photo, "--model", "ants-bees", "--annotate", "seen.png")
    assert out.startswith(f"{photo}: bees ")
    assert (place.folder / "seen.png").read_bytes().startswith(b"\x89PNG")


def test_a_model_that_is_not_there_is_an_error_that_lists_those_that_are(flagship, photographs: Path) -> None:
    place, _ = flagship
    _, err = place.run("platform", "predict", photographs / "val", "--model", "ants", code=1)
    assert err == "error: no model 'ants' is registered; registered models: ants-bees\n"


def test_the_model_predicts_in_a_process_that_has_never_seen_the_project(flagship, photographs: Path) -> None:
    place, _ = flagship
    photo = sorted((photographs / "val" / "bees").iterdir())[0]
    script = f"""
import sys
for name in ("transfer_platform", "transfer_registry", "transfer_model"):
    sys.modules[name] = None
import base64, mlflow
model = mlflow.pyfunc.load_model("models:/ants-bees@champion")
image = base64.b64encode(open({str(photo)!r}, "rb").read()).decode()
print(model.predict([{{"image": image}}])[0]["label"])
"""
    out, _ = place.run(sys.executable, "-I", "-c", script)
    assert out.strip() == "bees"


@contextlib.contextmanager
def served(place, *command: object) -> Iterator[object]:
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as listener:
        port = listener.getsockname()[1]
    arguments = [*map(str, command), "--env-manager", "local", "--port", str(port)]
    server = subprocess.Popen(arguments, cwd=place.folder, env=place.environment, start_new_session=True)

    def ask(photo: bytes) -> object:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        body = json.dumps({"inputs": [{"image": base64.b64encode(photo).decode()}]})
        connection.request("POST", "/invocations", body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        assert response.status == 200
        answer = json.loads(response.read())
        connection.close()
        return answer

    try:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            assert server.poll() is None, "the server ended"
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", port)).close()
                break
            time.sleep(0.3)
        yield ask
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()
