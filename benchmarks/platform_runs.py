"""Measured `platform run` processes on local photographs of ants and bees.

Imports no library before the measured processes have ended, like `harness`.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import BIN, REPOSITORY, ProcessResult, environment, run_process

TRAINED = REPOSITORY / "benchmarks" / "ants_bees_trained.yaml"
"""Recipe with a head that is trained for 20 trials of 15 epochs."""
SHIPPED = REPOSITORY / "recipes" / "ants_bees.yaml"
"""Recipe with heads that are solved, on three backbones."""
VALIDATION = 0.2
"""Share of train/ used for validation by the platform and by the loops it is compared with."""
PLACEHOLDER_IMAGE = "train/ants/imageNotFound.gif"
"""Placeholder for a missing image in the original archive."""


@dataclass(frozen=True)
class StudyResult:
    """Results of a study, read from MLflow.

    Attributes:
        trials: Number of trials.
        epochs: Number of executed epochs, all trials together.
        epoch_seconds: Duration of each epoch as logged by the platform, in no particular order.
        span: Seconds from the start of the first trial to the end of the last, including Optuna and MLflow.
        test_accuracy: Test accuracy of the best trial, 0 to 1.
    """

    trials: int
    epochs: int
    epoch_seconds: tuple[float, ...]
    span: float
    test_accuracy: float


def ants_bees_recipe(photos: Path, base: Path = TRAINED, **changes: object) -> dict[str, Any]:
    """Returns a recipe with local photographs as the source.

    Args:
        photos: Folder with train/ and val/.
        base: `TRAINED` or `SHIPPED`.
        changes: Fields, with `__` instead of the dot: `training__epochs=3`. None removes a field or section.
    """
    from ruamel.yaml import YAML

    recipe: dict[str, Any] = YAML(typ="safe").load(base)
    exclude = [PLACEHOLDER_IMAGE] if (photos / PLACEHOLDER_IMAGE).exists() else []
    local = {
        "dataset__source": str(photos),
        "dataset__splits": {**recipe["dataset"]["splits"], "train": "train", "test": "val"},
        "dataset__exclude": exclude,
    }
    for field, value in {**local, **changes}.items():
        _set_field(recipe, field.split("__"), value)
    return recipe


def _set_field(recipe: dict[str, Any], field: Sequence[str], value: object) -> None:
    *sections, last = field
    for section in sections:
        recipe = recipe.setdefault(section, {})
    recipe.pop(last, None)
    if value is not None:
        recipe[last] = value


def platform_run(
    recipe: Mapping[str, Any], folder: Path, cache: Path, threads: int, device: str = "cpu", limit: str | None = None
) -> tuple[ProcessResult, StudyResult]:
    """Runs `platform run` in a separate process.

    Args:
        recipe: Written to `recipe.yaml` as JSON, which is valid YAML.
        folder: Working directory.
        cache: `PLATFORM_CACHE`; an empty folder is a cold cache.
        threads: Number of torch threads.
        device: `cpu` or `cuda`.
        limit: `PLATFORM_CACHE_LIMIT`; None for the default.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "recipe.yaml"
    path.write_text(json.dumps(recipe, indent=1))
    command = [BIN / "platform", "run", path, "--device", device]
    limits = {"PLATFORM_CACHE_LIMIT": limit} if limit is not None else {}
    process = run_process(command, folder, environment(threads, cache) | limits)
    return process, read_study(folder)


def read_study(folder: Path) -> StudyResult:
    """Reads the most recent study from the MLflow database in a folder."""
    with closing(sqlite3.connect(f"file:{folder / 'mlflow.db'}?mode=ro", uri=True)) as database:
        (parent,) = database.execute(
            "SELECT run_uuid FROM runs WHERE run_uuid IN (SELECT value FROM tags WHERE key = ?)"
            " ORDER BY start_time DESC LIMIT 1",
            ("mlflow.parentRunId",),
        ).fetchone()
        children = "(SELECT run_uuid FROM tags WHERE key = 'mlflow.parentRunId' AND value = ?)"
        trials, first, last = database.execute(
            f"SELECT count(*), min(start_time), max(end_time) FROM runs WHERE run_uuid IN {children}", (parent,)
        ).fetchone()
        (epochs,) = database.execute(
            f"SELECT count(*) FROM metrics WHERE key = 'train/loss' AND run_uuid IN {children}", (parent,)
        ).fetchone()
        seconds = database.execute(
            f"SELECT value FROM metrics WHERE key = 'seconds' AND run_uuid IN {children} ORDER BY step", (parent,)
        ).fetchall()
        accuracy = database.execute(
            "SELECT value FROM metrics WHERE key = 'test/accuracy' AND run_uuid = ? ORDER BY timestamp DESC", (parent,)
        ).fetchone()
    return StudyResult(trials, epochs, tuple(value for (value,) in seconds), (last - first) / 1000, accuracy[0])


def read_test_metrics(folder: Path) -> dict[str, dict[str, float]]:
    """Returns the test accuracy (0 to 1) and loss (in nats) of each study in the MLflow database in a folder.

    The keys are the names of the studies without the digest, then `test/accuracy` and `test/loss`. If a study was run
    several times, the last run counts.
    """
    with closing(sqlite3.connect(f"file:{folder / 'mlflow.db'}?mode=ro", uri=True)) as database:
        rows = database.execute(
            "SELECT runs.name, key, latest_metrics.value FROM runs JOIN latest_metrics USING (run_uuid)"
            " WHERE key IN ('test/accuracy', 'test/loss')"
            " AND run_uuid IN (SELECT run_uuid FROM tags WHERE key = 'platform.study') ORDER BY start_time"
        ).fetchall()
    metrics: dict[str, dict[str, float]] = {}
    for name, key, value in rows:
        metrics.setdefault(name.rpartition("-")[0], {})[key] = value
    return metrics
