"""Detects processes that may be using MLflow's SQLite database.

When a run starts, MLflow stores the location of the run's files. If the stored location changed during the run,
the run's process would either continue to write to the old folder or lose its files. If the tables were upgraded,
a process that uses the older version of MLflow might be unable to use them.
"""

import json
import re
import shlex
import socket
import sqlite3
from collections.abc import Sequence
from pathlib import Path

from transfer_registry.errors import DatabaseInUseError, StorageError
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
_NUMBER = re.compile(r"-\d+\Z")
"""Suffix of the names of further studies in the same folder; for example, `-2` in `digits-0a-2`."""


def require_no_study(database: Path) -> None:
    """Raises a `DatabaseInUseError` if a study is running, or if this is unknown because a lock cannot be opened."""
    for lock in _study_locks(database):
        state = f"study {lock.parent.name} is running in {lock.parents[2]}"
        try:
            holder = holder_of(lock)
        except StorageError as error:
            raise DatabaseInUseError(f"it is unknown whether {state}: {error}") from error
        if holder:
            raise DatabaseInUseError(f"{state}: {holder}; wait for it to finish, or stop it, then try again")


def require_no_run(connection: sqlite3.Connection, file: Path) -> None:
    """Checks that no process can still be writing to a run.

    A study's run cannot be active if no process holds the study's lock and the last holder ran on this machine.
    A lock held on another machine or on this container's host may be undetectable.

    Raises:
        DatabaseInUseError: A run has the status RUNNING, and its process may still exist.
    """
    here, locks = f" on {socket.gethostname()}, ", _study_locks(file)
    ended = {lock.parent.name for lock in locks} - {lock.parent.name for lock in locks if here not in last_holder(lock)}
    runs = connection.execute(_RUNNING, {"study": STUDY_TAG})
    running = [run for run, study in runs if ended.isdisjoint((study, _NUMBER.sub("", study or "")))]
    if running:
        raise DatabaseInUseError(
            f"{file} contains runs with the status RUNNING ({', '.join(running)}), whose processes could not continue "
            "after an upgrade or relocation of the database; wait until the runs end. If their processes no longer "
            f"exist, change the status with `{_kill_command(file, running)}`, then run the command again"
        )


def _kill_command(file: Path, runs: Sequence[str]) -> str:
    """Returns a shell command that sets runs to KILLED without MLflow, because MLflow cannot open an older database."""
    path, values = json.dumps(str(file.absolute()), ensure_ascii=False), json.dumps([["KILLED", run] for run in runs])
    update = '"UPDATE runs SET status = ? WHERE run_uuid = ?"'
    code = f"import sqlite3; sqlite3.connect({path}, isolation_level=None).executemany({update}, {values})"
    return shlex.join(["python", "-c", code])


def _study_locks(database: Path) -> list[Path]:
    """Returns the locks of the studies beside a database or in the working folder; studies elsewhere are not found."""
    folders = {database.absolute().parent.resolve(), database.resolve().parent, Path.cwd()}
    return sorted(lock for folder in folders for lock in folder.glob("studies/*/held.lock"))
