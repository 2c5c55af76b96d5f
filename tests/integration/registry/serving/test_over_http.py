"""A registered version asked over HTTP, as the gate asks it."""

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
with smoke_test._served("models:/ants-bees/1") as address:
    print(address, flush=True)
    time.sleep(600)
"""


def test_it_answers_as_the_classifier_and_names_a_photograph_that_it_refuses(
    here: Registered, photographs: Path, tmp_path: Path
) -> None:
    photos = sorted((photographs / "val" / "bees").glob("*.jpg"))[:4]
    (tmp_path / "text.jpg").write_text("no image")
    with smoke_test._served("models:/ants-bees/1") as address:
        answers = smoke_test.post_images(address, photos, ("bees", "ants"))
        with pytest.raises(
            RegistryError, match=r"answers .*text\.jpg with HTTP 400: .*row 0 is not an image"
        ):
            smoke_test.post_images(address, [photos[0], tmp_path / "text.jpg"], ("bees", "ants"))
    own = Classifier.load(here.model).predict_proba(photos)
    np.testing.assert_allclose(answers.probabilities, own[:, ::-1], rtol=0, atol=1e-6)


def test_no_photograph_is_sent_to_a_proxy(here: Registered, photographs: Path, monkeypatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    photo = min((photographs / "val" / "bees").glob("*.jpg"))
    with smoke_test._served("models:/ants-bees/1") as address:
        assert smoke_test.post_images(address, [photo], ("bees", "ants")).probabilities.shape == (1, 2)


def test_a_model_that_cannot_be_served_says_why(here: Registered, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(here.location, broken)
    (broken / "artifacts" / "model" / "weights.safetensors").unlink()
    with pytest.raises(RegistryError, match=r"(?s)broken ended with exit status \d+:.*weights\.safetensors"):
        smoke_test.predict_over_http(str(broken), [], ("ants", "bees"))


@pytest.mark.parametrize("kill", [os.kill, os.killpg], ids=["process", "group"])
def test_the_server_does_not_outlive_whoever_asks_it(
    here: Registered, kill: Callable[[int, int], None]
) -> None:
    command = [sys.executable, "-c", SERVING]
    asking = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    port = int(asking.stdout.readline().rpartition(":")[2])
    assert answers(port)
    kill(asking.pid, signal.SIGKILL)
    asking.communicate()
    deadline = time.monotonic() + 30
    while answers(port):
        assert time.monotonic() < deadline, "the server lives on"
        time.sleep(0.2)


def answers(port: int) -> bool:
    with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
        return True
    return False
