"""Detects processes that may be using MLflow's SQLite database.

When a run starts, MLflow stores the location of the run's files. If the stored location changed during the run,
the run's process would continue to write to the former folder or lose its files.
"""

import shlex
import socket
import sqlite3
from pathlib import Path

from transfer_registry.errors import DatabaseInUseError
from transfer_registry.files import sqlite_url
from transfer_registry.locks import holder_of, last_holder
from transfer_registry.mlflow_registry import STUDY_TAG

_RUNNING = """
SELECT runs.run_uuid, COALESCE(own.value, parents.value) FROM runs
LEFT JOIN tags AS own ON own.run_uuid = runs.run_uuid AND own.key = :study
LEFT JOIN tags AS child ON child.run_uuid = runs.run_uuid AND child.key = 'mlflow.parentRunId'
LEFT JOIN tags AS parents ON parents.run_uuid = child.value AND parents.key = :study
WHERE runs.status = 'RUNNING' AND runs.lifecycle_stage = 'active'
"""
"""IDs of active runs, and the names of the studies to which they belong."""


def require_no_study(folder: Path) -> None:
    """Raises a `DatabaseInUseError` if a study is running in a project folder."""
    for lock in _study_locks(folder):
        if holder := holder_of(lock):
            raise DatabaseInUseError(
                f"study {lock.parent.name} is running in {folder}: {holder}; wait for it to finish, or stop it, "
                "then run the command again"
            )


def require_no_run(connection: sqlite3.Connection, file: Path) -> None:
    """Checks that no process can still be writing to a run.

    A study's run cannot be active if no process holds the study's lock and the last holder ran on this machine.
    A lock held on another machine or on this container's host may be undetectable.

    Raises:
        DatabaseInUseError: A run has the status RUNNING, and its process may still exist.
    """
    here = f" on {socket.gethostname()}, "
    ended = [lock.parent.name for lock in _study_locks(file.parent) if here in last_holder(lock)]
    for run, study in connection.execute(_RUNNING, {"study": STUDY_TAG}):
        if not (study and study.startswith(tuple(ended))):
            code = f"import mlflow; mlflow.MlflowClient({sqlite_url(file)!r}).set_terminated({run!r}, 'KILLED')"
            raise DatabaseInUseError(
                f"run {run} in {file} has the status RUNNING, so its process may still write to the folder's "
                f"former path; wait until the run ends. If the process no longer exists, set the run's status with "
                f"`{shlex.join(['python', '-c', code])}`"
            )


def _study_locks(folder: Path) -> list[Path]:
    return sorted(folder.glob("studies/*/held.lock"))
