"""MLflow runs for a study and its trials, including artifacts.

This is the only module in this package that imports MLflow; `transfer_registry` handles registered models.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from filelock import FileLock
from mlflow.entities import Dataset, DatasetInput, InputTag, LifecycleStage, Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT, MLFLOW_LOGGED_ARTIFACTS, MLFLOW_PARENT_RUN_ID

from transfer_platform import paths
from transfer_platform.progress import Say, silent
from transfer_registry import mlflow_server
from transfer_registry.errors import StorageError
from transfer_registry.mlflow_registry import STUDY_TAG, TRIAL_TAG

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_PARAM_LENGTH = 6000
"""Maximum length of a parameter value, in characters; MLflow silently truncates longer values."""
MAX_DIGEST_LENGTH = 36
"""Maximum length of a dataset digest, in characters; MLflow rejects longer digests."""
MAX_BATCH_METRICS = 1000
"""Maximum number of metrics per batch; MLflow rejects larger batches."""
CONFIRMED_TAG = "platform.confirmed_trial"
"""Tag of a run that trained a trial with a further seed: the number of the trial. The run has no `TRIAL_TAG`."""
SEED_TAG = "platform.seed"
"""Tag of a run that trained a trial with a further seed: the seed."""
GROUP_TAG = "platform.group"
"""Tag of a run that is the parent of several studies; its value is the name of the group."""
FLUSH_SECONDS = 2.0
"""Minimum number of seconds between flushes of a trial's buffered metrics."""


class Tracker:
    """An experiment on the tracking server, created if it does not exist.

    A deleted experiment is restored with its runs, because its name is reserved; `say` is then called with a message.

    Raises:
        StorageError: The tracking server or its database cannot be used.
    """

    def __init__(self, experiment: str, say: Say = silent) -> None:
        try:
            mlflow_server.create_database()
            mlflow_server.require_original()
            self._client = MlflowClient()
            self.experiment_id = self._get_or_create_experiment(experiment, say)
        except MlflowException as error:
            raise StorageError(
                f"cannot use MLflow at {mlflow_server.tracking_uri()}: {error.message}; "
                "set MLFLOW_TRACKING_URI to another server or database"
            ) from error

    @contextmanager
    def start_study_run(self, name: str, tags: Mapping[str, str]) -> Iterator[Run]:
        """Resumes or creates the parent run of a study; the run ends when the `with` block exits."""
        run = self._resume_or_create_run(name, {STUDY_TAG: name}, tags)
        try:
            yield run
        except BaseException as error:  # after Ctrl-C, the same command resumes the study
            run.end("FAILED" if isinstance(error, Exception) else "KILLED")
            raise
        run.end()

    def start_trial_run(
        self, parent: Run, number: int, values: Mapping[str, object], *, resumed: bool = True
    ) -> TrialRun:
        """Resumes or creates the child run of a trial and logs the trial's hyperparameters.

        If `resumed` is True, this function first searches for a run created by an earlier process.
        """
        name, identity = f"trial {number}", {MLFLOW_PARENT_RUN_ID: parent.run_id, TRIAL_TAG: str(number)}
        run = self._resume_or_create_run(name, identity, {}) if resumed else self._create_run(name, identity)
        return TrialRun(self._client, run.run_id, values, resumed=resumed)

    def start_confirming_run(self, parent: Run, number: int, values: Mapping[str, object], seed: int) -> TrialRun:
        """Resumes or creates the child run in which a trial is trained with a further seed, and logs its parameters."""
        identity = {MLFLOW_PARENT_RUN_ID: parent.run_id, CONFIRMED_TAG: str(number), SEED_TAG: str(seed)}
        run = self._resume_or_create_run(f"trial {number}, seed {seed}", identity, {})
        return TrialRun(self._client, run.run_id, {**values, "seed": seed}, resumed=True)

    def find_trial_run(self, parent: Run, number: int) -> Run | None:
        """Returns the child run of a trial without resuming it, or None if there is no such run."""
        return self._find_run({MLFLOW_PARENT_RUN_ID: parent.run_id, TRIAL_TAG: str(number)})

    def group_runs(self, name: str, run_ids: Sequence[str]) -> Run:
        """Resumes or creates a finished run and makes it the parent of the given runs."""
        group = self._resume_or_create_run(name, {GROUP_TAG: name}, {})
        group.end()
        for run_id in run_ids:
            self._client.set_tag(run_id, MLFLOW_PARENT_RUN_ID, group.run_id)
        return group

    def _get_or_create_experiment(self, name: str, say: Say) -> str:
        with FileLock(paths.studies_folder() / "mlflow.lock"):
            experiment = self._client.get_experiment_by_name(name)
            if experiment is None:
                return str(self._client.create_experiment(name))
            if experiment.lifecycle_stage == LifecycleStage.DELETED:
                self._client.restore_experiment(experiment.experiment_id)
                say(f"the MLflow experiment {name!r} had been deleted; it was restored with its runs")
            return str(experiment.experiment_id)

    def _find_run(self, identity: Mapping[str, str]) -> Run | None:
        query = " and ".join(f"tags.`{tag}` = '{value}'" for tag, value in identity.items())
        runs = self._client.search_runs([self.experiment_id], query, max_results=1)
        return Run(self._client, runs[0].info.run_id) if runs else None

    def _resume_or_create_run(self, name: str, identity: Mapping[str, str], tags: Mapping[str, str]) -> Run:
        """Resumes the run that has the tags in `identity`; creates a run only if no such run exists."""
        if run := self._find_run(identity):
            self._client.update_run(run.run_id, status="RUNNING")
            return run
        return self._create_run(name, {**tags, **identity})

    def _create_run(self, name: str, tags: Mapping[str, str]) -> Run:
        run = self._client.create_run(self.experiment_id, run_name=name, tags=dict(tags))
        return Run(self._client, run.info.run_id)


class Run:
    """The MLflow run of a study or a trial."""

    def __init__(self, client: MlflowClient, run_id: str) -> None:
        self._client, self.run_id = client, run_id

    def log_params(self, values: Mapping[str, object]) -> None:
        """Logs parameters; skips those already logged, because MLflow does not allow them to be changed."""
        logged = self._client.get_run(self.run_id).data.params
        new = {key: value for key, value in values.items() if key not in logged}
        self._client.log_batch(self.run_id, params=_params(new))

    def last_step(self, metric: str) -> int:
        """Returns the last logged step of a metric, or -1 if the metric was never logged."""
        return max((step for step, _ in self.metric_history(metric)), default=-1)

    def metric_history(self, metric: str) -> list[tuple[int, float]]:
        """Returns the (step, value) pairs of a metric, sorted by step."""
        return sorted((entry.step, entry.value) for entry in self._client.get_metric_history(self.run_id, metric))

    def log_metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Logs the metrics of one step in a single request."""
        self._client.log_batch(self.run_id, metrics=_metrics(values, step))

    def log_latest(self, values: Mapping[str, float], step: int) -> None:
        """Logs metrics at a step, or at a later one if needed, so that MLflow shows them instead of earlier values."""
        self.log_metrics(values, max(step, *map(self.last_step, values)))

    def set_tags(self, values: Mapping[str, object]) -> None:
        """Sets tags, replacing existing values."""
        self._client.log_batch(self.run_id, tags=_tags(values))

    def log_dataset(self, name: str, source: str, fingerprint: str, images: int, context: str) -> None:
        """Logs a dataset, along with its number of images, as an input to the run.

        `source` is the path or URL in the recipe, `fingerprint` is the hexadecimal SHA-256 of the content, and
        `context` is `train`, `validation` or `test`.
        """
        dataset = Dataset(
            name=name,
            digest=fingerprint[:MAX_DIGEST_LENGTH],
            source_type="http" if source.startswith(("http://", "https://")) else "local",
            source=json.dumps({"url" if "://" in source else "uri": source}),
            profile=json.dumps({"images": images, "fingerprint": fingerprint}),
        )
        dataset_input = DatasetInput(dataset, [InputTag(MLFLOW_DATASET_CONTEXT, context)])
        self._client.log_inputs(self.run_id, datasets=[dataset_input])

    def log_text(self, text: str, path: str) -> None:
        """Logs a text artifact."""
        self._client.log_text(self.run_id, text, path)

    def log_figures(self, figures: Mapping[str, Figure], folder: str) -> None:
        """Logs matplotlib figures as PNG files and closes them."""
        from matplotlib import pyplot as plt

        for name, figure in figures.items():
            self._client.log_figure(self.run_id, figure, f"{folder}/{name}.png")
            plt.close(figure)

    def log_table(self, columns: Mapping[str, Sequence[Any]], path: str) -> None:
        """Logs a table that the MLflow UI can display, replacing any table at the same path."""
        rows = [list(row) for row in zip(*columns.values(), strict=True)]
        self.log_text(json.dumps({"columns": list(columns), "data": rows}), path)
        tags = self._client.get_run(self.run_id).data.tags
        tables = json.loads(tags.get(MLFLOW_LOGGED_ARTIFACTS, "[]"))
        entry = {"path": path, "type": "table"}
        if entry not in tables:
            self._client.set_tag(self.run_id, MLFLOW_LOGGED_ARTIFACTS, json.dumps([*tables, entry]))

    def end(self, status: str = "FINISHED") -> None:
        """Ends the run with the status FINISHED, FAILED or KILLED."""
        self._client.set_terminated(self.run_id, status=status)


class TrialRun(Run):
    """The run of a trial. Buffers params, metrics and tags because sending them may take longer than an epoch.

    Unlike MLflow's asynchronous logging, this class sends batches in order and raises an error if one fails. This is
    necessary because a resumed trial continues after its last logged step, so all earlier steps must have been logged.
    """

    def __init__(self, client: MlflowClient, run_id: str, values: Mapping[str, object], *, resumed: bool) -> None:
        super().__init__(client, run_id)
        self._metrics: list[Metric] = []
        self._tags: dict[str, object] = {}
        self._flushed_at = time.monotonic()
        if resumed:  # an earlier process may already have logged them
            self.log_params(values)
        self._params = [] if resumed else _params(values)

    def log_metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Buffers a step's metrics; flushes the buffer if the last flush was more than `FLUSH_SECONDS` seconds ago."""
        self._metrics += _metrics(values, step)
        if time.monotonic() - self._flushed_at > FLUSH_SECONDS:
            self._flush()

    def set_tags(self, values: Mapping[str, object]) -> None:
        """Buffers tags, replacing existing values."""
        self._tags |= values

    def end(self, status: str = "FINISHED") -> None:
        """Flushes the buffer and ends the run."""
        self._flush()
        super().end(status)

    def _flush(self) -> None:
        tags = _tags(self._tags)
        for start in range(0, max(1, len(self._metrics)), MAX_BATCH_METRICS):
            metrics = self._metrics[start : start + MAX_BATCH_METRICS]
            self._client.log_batch(self.run_id, metrics=metrics, params=self._params, tags=tags)
            self._params, tags = [], []
        self._metrics, self._tags, self._flushed_at = [], {}, time.monotonic()


def read_text(run_id: str, path: str) -> str | None:
    """Returns a text artifact of a run, or None if the run has no artifact at this path.

    Raises:
        StorageError: The run does not exist, or MLflow cannot be reached.
    """
    mlflow_server.require_registry()
    client = MlflowClient()
    try:
        client.get_run(run_id)
        folder = path.rpartition("/")[0]
        if path not in {artifact.path for artifact in client.list_artifacts(run_id, folder)}:
            return None
        with TemporaryDirectory() as temporary:
            return Path(client.download_artifacts(run_id, path, temporary)).read_text(encoding="utf-8")
    except MlflowException as error:
        raise StorageError(f"cannot read run {run_id} from {mlflow_server.tracking_uri()}: {error.message}") from error


def _params(values: Mapping[str, object]) -> list[Param]:
    return [Param(key, str(value)[:MAX_PARAM_LENGTH]) for key, value in values.items()]


def _metrics(values: Mapping[str, float], step: int) -> list[Metric]:
    now = round(time.time() * 1000)
    return [Metric(key, float(value), now, step) for key, value in values.items()]


def _tags(values: Mapping[str, object]) -> list[RunTag]:
    return [RunTag(key, str(value)) for key, value in values.items()]
