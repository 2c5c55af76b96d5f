"""Predictions of a registered version over HTTP, as the gate requests them."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from transfer_model.classifier import Classifier
from transfer_registry.errors import RegistryError
from transfer_registry.serving import smoke_test

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Registered

SERVING = """
import time
from transfer_registry.serving import smoke_test
with smoke_test.serve_isolated("models:/ants-bees/1") as address:
    print(address, flush=True)
    time.sleep(600)
"""


@pytest.fixture
def photos(photographs: Path) -> list[Path]:
    return sorted((photographs / "val" / "bees").glob("*.jpg"))


def test_predictions_equal_those_of_the_classifier_in_the_requested_class_order(
    here: Registered, photos: list[Path], tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")  # images must not be sent to a proxy
    images = photos[: 2 * smoke_test.CONCURRENT_IMAGES + 1]
    (tmp_path / "text.jpg").write_text("no image")
    with smoke_test.serve_isolated("models:/ants-bees/1") as address:
        output = smoke_test.post_images(address, images, ("bees", "ants"))
        assert smoke_test.post_images(address, [], ("bees", "ants")).probabilities.shape == (0, 2)
        with pytest.raises(RegistryError, match=r"rejected .*text\.jpg with HTTP 400: .*row 0 is not an image"):
            smoke_test.post_images(address, [photos[0], tmp_path / "text.jpg"], ("bees", "ants"))
    own = Classifier.load(here.model).predict(images)
    np.testing.assert_allclose(output.probabilities, own.probabilities[:, ::-1], rtol=0, atol=1e-6)
    np.testing.assert_allclose(output.ood_scores, own.ood_scores, rtol=0, atol=1e-6)
    assert output.unknown == tuple(score > 0.25 for score in own.ood_scores)


def test_probabilities_are_in_the_class_order_of_the_model(here: Registered, photos: list[Path]) -> None:
    probabilities = smoke_test.predict_proba_over_http("models:/ants-bees@champion", photos[:3])
    own = Classifier.load(here.model).predict_proba(photos[:3])
    np.testing.assert_allclose(probabilities, own, rtol=0, atol=1e-6)


def test_the_error_of_a_model_that_cannot_be_served(here: Registered, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(here.location, broken)
    (broken / "artifacts" / "model" / "weights.safetensors").unlink()
    refused = pytest.raises(RegistryError, match=r"(?s)broken exited with status \d+:.*weights\.safetensors")
    with refused, smoke_test.serve_isolated(str(broken)):
        pass


def test_a_served_model_cannot_import_the_project(here: Registered, tmp_path: Path) -> None:
    dependent = tmp_path / "dependent"
    shutil.copytree(here.location, dependent)
    loader = dependent / "loader.py"
    loader.write_text(f"import transfer_model\n{loader.read_text()}")
    refused = pytest.raises(RegistryError, match=r"transfer_model is hidden from served models")
    with refused, smoke_test.serve_isolated(str(dependent)):
        pass


def test_scripts_called_like_libraries_are_not_imported(
    here: Registered, photos: list[Path], scripts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(scripts)
    served = smoke_test.predict_over_http(str(here.location), photos[:1], ("ants", "bees"))
    assert served.probabilities.shape == (1, 2)


def test_any_name_of_the_temporary_folder(
    here: Registered, photos: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = tmp_path / "My Disk é#?%20"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    before = sorted(here.folder.iterdir())
    served = smoke_test.predict_over_http("models:/ants-bees@champion", photos[:1], ("ants", "bees"))
    assert served.probabilities.shape == (1, 2)
    assert [*tmp_path.iterdir()] == [temporary]
    assert sorted(here.folder.iterdir()) == before


@pytest.mark.parametrize("kill", [os.kill, os.killpg], ids=["process", "group"])
def test_the_server_ends_when_its_parent_process_is_killed(here: Registered, kill: Callable[[int, int], None]) -> None:
    command = [sys.executable, "-c", SERVING]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    port = int(parent.stdout.readline().rpartition(":")[2])
    assert accepts_connections(port)
    kill(parent.pid, signal.SIGKILL)
    parent.communicate()
    deadline = time.monotonic() + 30
    while accepts_connections(port):
        assert time.monotonic() < deadline, "the server is still running"
        time.sleep(0.2)


def accepts_connections(port: int) -> bool:
    with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
        return True
    return False
