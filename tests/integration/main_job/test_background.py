"""A run in the background of a shell: it ignores Ctrl-C like every such program, stops on SIGTERM, and resumes."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import optuna

SETTINGS = (
    "training.epochs=1",
    "backbone.freeze_through=all",
    "dataset.image_size=32",
    "dataset.splits.test=0.1",
    "training.learning_rate={low: 1e-4, high: 1e-2, log: true}",
    "search={trials: 8, pruning: false}",
    "promotion=null",
)
RUN = ("platform", "run", "digits", *(word for change in SETTINGS for word in ("-o", change)))
IN_BACKGROUND = """nohup "$@" > output.txt 2> errors.txt & echo $!; wait $!; echo $?"""
"""Shell script that prints the ID of the process and, at the end, its exit status."""


def wait_for(line: str, errors: Path, shell: subprocess.Popen[str]) -> None:
    while not errors.exists() or line not in errors.read_text():
        assert shell.poll() is None, errors.read_text()
        time.sleep(0.1)


def test_a_run_in_the_background_ignores_sigint_and_is_resumed_after_sigterm(workplaces) -> None:
    place = workplaces("background")
    errors = place.folder / "errors.txt"
    shell = place.start("sh", "-c", IN_BACKGROUND, "sh", *RUN)
    process = int(shell.stdout.readline())
    wait_for("trial 0:", errors, shell)
    os.kill(process, signal.SIGINT)
    os.kill(process, signal.SIGHUP)
    wait_for("trial 2:", errors, shell)
    os.kill(process, signal.SIGTERM)
    out, _ = shell.communicate(timeout=120)
    assert int(out) == 130
    assert errors.read_text().endswith("\nstopped; run the same command to resume\n")
    assert "Traceback" not in errors.read_text()

    url = f"sqlite:///{place.folder}/studies/studies.db"
    (name,) = optuna.get_all_study_names(url)
    before = optuna.load_study(study_name=name, storage=url).trials
    assert len(before) < 8, "it was to be stopped, but ended by itself"
    place.run(*RUN)
    after = optuna.load_study(study_name=name, storage=url).trials
    assert [trial.state.name for trial in after] == ["COMPLETE"] * 8
    finished = [trial for trial in before if trial.state.is_finished()]
    assert after[: len(finished)] == finished
