"""Concurrent promotions, and processes that are killed during a promotion."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import mlflow
import pytest

from transfer_registry.audit import verify
from transfer_registry.ledger import EntryKind

pytestmark = [
    pytest.mark.filterwarnings(
        "ignore:The ``noload`` loader strategy is deprecated:sqlalchemy.exc.SADeprecationWarning"
    ),
    pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType:UserWarning"),
]

PROCESSES, CANDIDATES, KILLS = 4, 50, 30

SCRIPT = """
import json, os, signal, sys, time
from dataclasses import dataclass
from pathlib import Path

import mlflow
import numpy as np

from transfer_registry.candidate import ServedOutput
from transfer_registry.candidate import Candidate, Evaluation
from transfer_registry.ledger import Ledger
from transfer_registry.promote import promote_candidate
from transfer_registry.rules import OverChampion

folder = Path(sys.argv[1])
offered = json.loads((folder / "offered.json").read_text())
labels = ("ants", "bees") * 20


def promote(one):
    mlflow.set_tracking_uri(f"sqlite:///{folder / 'mlflow.db'}")
    right = np.arange(40) >= one["wrong"]
    ants = right == (np.arange(40) % 2 == 0)
    probabilities = np.where(ants[:, None], [0.9, 0.1], [0.1, 0.9]).astype(np.float32)
    evaluation = Evaluation(
        {"test/accuracy": float(right.mean())},
        ("ants", "bees"),
        tuple(Path(f"{i}.png") for i in range(40)),
        tuple(f"{i}" for i in range(40)),
        labels,
        probabilities,
        "test-set",
    )
    offer = Candidate(**one["candidate"]), evaluation, {"over_champion": OverChampion()}
    with Ledger.open(f"sqlite:///{folder / 'ledger.db'}") as ledger:
        def serve(uri, images, classes):
            own = probabilities[[int(image.stem) for image in images]]
            return ServedOutput(own, np.full(len(own), np.nan, np.float32), (None,) * len(own))

        promote_candidate(*offer, ledger, serve)


if sys.argv[2] == "share":
    for one in offered[int(sys.argv[3]) :: int(sys.argv[4])]:
        promote(one)
else:  # each candidate in a child process that is killed after a delay, then again to its end
    for one, delay in zip(offered, json.loads(sys.argv[3]), strict=False):
        for patience in (delay, None):
            child = os.fork()
            if child == 0:
                promote(one)
                os._exit(0)
            if patience is not None:
                time.sleep(patience)
                os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
            if patience is None and status:
                sys.exit(f"the second attempt ended with {status}")
"""


@pytest.fixture
def offered(world):
    """Candidates of one logged model, each of a run of its own, written where the processes find them."""

    def make(count: int, wrong) -> Path:
        first, _ = world.candidate(wrong=30)
        experiment = mlflow.get_experiment_by_name("tests").experiment_id
        candidates = [
            replace(first, run_id=world.client.create_run(experiment).info.run_id, trial=number)
            for number in range(count)
        ]
        content = [
            {"candidate": vars(candidate), "wrong": wrong(number)} for number, candidate in enumerate(candidates)
        ]
        (world.folder / "offered.json").write_text(json.dumps(content))
        (world.folder / "script.py").write_text(SCRIPT)
        return world.folder

    return make


def started(folder: Path, *words: object) -> subprocess.Popen[str]:
    command = [sys.executable, folder / "script.py", folder, *words]
    return subprocess.Popen([str(word) for word in command], stderr=subprocess.PIPE, text=True)


def ended(process: subprocess.Popen[str]) -> None:
    _, errors = process.communicate(timeout=500)
    assert process.returncode == 0, errors


def test_fifty_promotions_from_four_processes_make_one_champion_and_a_whole_ledger(world, offered) -> None:
    folder = offered(CANDIDATES, lambda number: 39 - number % 40)
    processes = [started(folder, "share", number, PROCESSES) for number in range(PROCESSES)]
    for process in processes:
        ended(process)
    entries = world.ledger.entries()
    moves = [entry for entry in entries if entry.kind != EntryKind.VERDICT]
    assert len(entries) - len(moves) == CANDIDATES
    assert [entry.id for entry in entries] == list(range(1, len(entries) + 1))
    # Each move follows the one before it.
    assert [entry.previous_version for entry in moves] == [None, *(entry.version for entry in moves[:-1])]
    assert world.champion() == moves[-1].version
    assert verify(world.ledger) == ()


def test_killed_at_thirty_moments_of_a_promotion_alias_and_ledger_agree(world, offered) -> None:
    # Each is better than all before it, so that every promotion moves the alias.
    folder = offered(KILLS, lambda number: 38 - number)
    draw = random.Random(0)
    ended(started(folder, "kill", json.dumps([draw.uniform(0.05, 0.8) for _ in range(KILLS)])))
    entries = world.ledger.entries()
    verdicts = [entry for entry in entries if entry.kind == EntryKind.VERDICT]
    assert sorted(entry.version for entry in verdicts) == list(range(1, KILLS + 1))
    last = world.ledger.last_move("ants-bees")
    assert last is not None
    assert world.champion() == last.version
    assert verify(world.ledger) == ()
