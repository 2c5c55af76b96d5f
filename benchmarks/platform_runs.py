"""`platform run` as a measured process: the shipped recipe on local photographs, and what MLflow knows of it.

Imports no library before the measured processes have ended, as `measuring`.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from measuring import BIN, REPOSITORY, Ended, environment, timed

SHIPPED = REPOSITORY / "recipes" / "ants_bees.yaml"
VALIDATION = 0.2
"""Share of train/ that validates: of the platform's recipes, and of the loops that they are compared with."""
STRAY = "train/ants/imageNotFound.gif"
"""In the original archive; an image that says that there is no image."""


@dataclass(frozen=True)
class Study:
    """What MLflow knows of the one study in a folder.

    Attributes:
        trials: How many were run.
        epochs: How many were executed in all of them.
        epoch_seconds: How long each epoch took, as the platform logged it; in no particular order.
        span: Seconds from the start of the first trial to the end of the last, Optuna and MLflow included.
        test_accuracy: Of the best trial on the test images, 0 to 1.
    """

    trials: int
    epochs: int
    epoch_seconds: tuple[float, ...]
    span: float
    test_accuracy: float


def ants_bees(photos: Path, **changes: object) -> dict[str, Any]:
    """The shipped recipe on local photographs.

    Args:
        photos: The folder that holds train/ and val/.
        changes: Fields with `__` for the dot, `training__epochs=3`; None takes a field or section out.
    """
    from ruamel.yaml import YAML

    recipe: dict[str, Any] = YAML(typ="safe").load(SHIPPED)
    exclude = [STRAY] if (photos / STRAY).exists() else []
    local = {
        "dataset__source": str(photos),
        "dataset__splits": {"train": "train", "validation": VALIDATION, "test": "val"},
        "dataset__exclude": exclude,
    }
    for field, value in {**local, **changes}.items():
        _lay(recipe, field.split("__"), value)
    return recipe


def _lay(recipe: dict[str, Any], field: Sequence[str], value: object) -> None:
    *sections, last = field
    for section in sections:
        recipe = recipe.setdefault(section, {})
    recipe.pop(last, None)
    if value is not None:
        recipe[last] = value


def platform_run(
    recipe: Mapping[str, Any],
    folder: Path,
    cache: Path,
    threads: int,
    device: str = "cpu",
    limit: str | None = None,
) -> tuple[Ended, Study]:
    """`platform run` as a process of its own, from its start to its end.

    Args:
        recipe: What it runs; JSON is YAML.
        folder: It runs in.
        cache: Its `PLATFORM_CACHE`; cold where it is empty.
        threads: Of torch.
        device: `cpu`, `cuda`.
        limit: Its `PLATFORM_CACHE_LIMIT`; None: the default.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "recipe.yaml"
    path.write_text(json.dumps(recipe, indent=1))
    command = [BIN / "platform", "run", path, "--device", device]
    limits = {"PLATFORM_CACHE_LIMIT": limit} if limit is not None else {}
    ended = timed(command, folder, environment(threads, cache) | limits)
    return ended, newest_study(folder)


def newest_study(folder: Path) -> Study:
    """What MLflow's database in a folder says of the study that was started last."""
    with closing(sqlite3.connect(f"file:{folder / 'mlflow.db'}?mode=ro", uri=True)) as database:
        (parent,) = database.execute(
            "SELECT run_uuid FROM runs WHERE run_uuid IN (SELECT value FROM tags WHERE key = ?)"
            " ORDER BY start_time DESC LIMIT 1",
            ("mlflow.parentRunId",),
        ).fetchone()
        children = "(SELECT run_uuid FROM tags WHERE key = 'mlflow.parentRunId' AND value = ?)"
        trials, first, last = database.execute(
            f"SELECT count(*), min(start_time), max(end_time) FROM runs WHERE run_uuid IN {children}",
            (parent,),
        ).fetchone()
        (epochs,) = database.execute(
            f"SELECT count(*) FROM metrics WHERE key = 'train/loss' AND run_uuid IN {children}", (parent,)
        ).fetchone()
        seconds = database.execute(
            f"SELECT value FROM metrics WHERE key = 'seconds' AND run_uuid IN {children} ORDER BY step",
            (parent,),
        ).fetchall()
        accuracy = database.execute(
            "SELECT value FROM metrics WHERE key = 'test/accuracy' AND run_uuid = ? ORDER BY timestamp DESC",
            (parent,),
        ).fetchone()
    return Study(trials, epochs, tuple(value for (value,) in seconds), (last - first) / 1000, accuracy[0])
