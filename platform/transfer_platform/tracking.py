"""Everything that is written to MLflow about a study: its run, its trials' runs, their artifacts.

The only module of this package that imports MLflow; what concerns registered models is `transfer_registry`'s.
All calls go through one client and batch what belongs together: a quick trial costs three calls.
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
from transfer_registry import mlflow_server
from transfer_registry.errors import StorageError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PARAMETER_LENGTH = 6000
"""MLflow cuts longer parameters without a word."""
STUDY_TAG, TRIAL_TAG = "platform.study", "platform.trial"
DIGEST_LENGTH = 36
"""MLflow refuses longer data set digests."""
BATCH_METRICS = 1000
"""MLflow refuses larger batches."""
FLUSH_SECONDS = 2.0
"""Seconds that a trial's metrics may wait for company."""


class Tracker:
    """One experiment of the tracking server.

    Args:
        experiment: Its name; made where it does not exist, restored where it was deleted.
    """

    def __init__(self, experiment: str) -> None:
        try:
            mlflow_server.create_database()
            self._client = MlflowClient()
            self.experiment_id = self._experiment(experiment)
        except MlflowException as error:
            raise StorageError(
                f"MLflow at {mlflow_server.tracking_uri()} cannot be used: {error.message}; "
                "MLFLOW_TRACKING_URI says where it is looked for"
            ) from error

    def _experiment(self, name: str) -> str:
        with FileLock(paths.studies_folder() / "mlflow.lock"):
            found = self._client.get_experiment_by_name(name)
            if found is None:
                return str(self._client.create_experiment(name))
            if found.lifecycle_stage == LifecycleStage.DELETED:
                self._client.restore_experiment(found.experiment_id)
            return str(found.experiment_id)

    @contextmanager
    def start_study_run(self, name: str, tags: Mapping[str, str]) -> Iterator[Run]:
        """The parent run of a study, the one it has or a new one; it ends as the `with` block does."""
        run = self._run(name, {STUDY_TAG: name}, tags)
        try:
            yield run
        except Exception:
            run.end("FAILED")
            raise
        except BaseException:  # Ctrl-C: the same command goes on from here
            run.end("KILLED")
            raise
        run.end()

    def start_trial_run(
        self, parent: Run, number: int, values: Mapping[str, object], *, resumed: bool = True
    ) -> TrialRun:
        """The child run of a trial.

        Args:
            parent: Of its study.
            number: Of the trial.
            values: To try; the run's parameters.
            resumed: Whether an earlier process may have made the run; it is then found, and gone on with.
        """
        identity = {MLFLOW_PARENT_RUN_ID: parent.run_id, TRIAL_TAG: str(number)}
        name = f"trial {number}"
        run = self._run(name, identity, {}) if resumed else self._new(name, identity)
        return TrialRun(self._client, run.run_id, values, resumed=resumed)

    def find_trial_run(self, parent: Run, number: int) -> Run | None:
        """The child run of a trial, left as it is; None where this server has none."""
        return self._found({MLFLOW_PARENT_RUN_ID: parent.run_id, TRIAL_TAG: str(number)})

    def _found(self, identity: Mapping[str, str]) -> Run | None:
        wanted = " and ".join(f"tags.`{tag}` = '{value}'" for tag, value in identity.items())
        found = self._client.search_runs([self.experiment_id], wanted, max_results=1)
        return Run(self._client, found[0].info.run_id) if found else None

    def _run(self, name: str, identity: Mapping[str, str], tags: Mapping[str, str]) -> Run:
        """Found by the tags that identify it, so that an interruption never leads to a second one."""
        if known := self._found(identity):
            self._client.update_run(known.run_id, status="RUNNING")
            return known
        return self._new(name, {**tags, **identity})

    def _new(self, name: str, tags: Mapping[str, str]) -> Run:
        run = self._client.create_run(self.experiment_id, run_name=name, tags=dict(tags))
        return Run(self._client, run.info.run_id)


class Run:
    """One MLflow run: a study or a trial.

    Attributes:
        run_id: MLflow's identifier.
    """

    def __init__(self, client: MlflowClient, run_id: str) -> None:
        self._client = client
        self.run_id = run_id

    def log_params(self, values: Mapping[str, object]) -> None:
        """Logs parameters; what is logged already stays as it is, since parameters cannot change."""
        logged = self._client.get_run(self.run_id).data.params
        fresh = {key: value for key, value in values.items() if key not in logged}
        self._client.log_batch(self.run_id, params=_params(fresh))

    def last_step(self, metric: str) -> int:
        """The last step at which a metric was logged, 0 where it never was."""
        return max((step for step, _ in self.metric_history(metric)), default=0)

    def metric_history(self, metric: str) -> list[tuple[int, float]]:
        """The steps at which a metric was logged, and its values, in order."""
        entries = self._client.get_metric_history(self.run_id, metric)
        return sorted((entry.step, entry.value) for entry in entries)

    def log_metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Logs metrics of one step in one call."""
        self._client.log_batch(self.run_id, metrics=_metrics(values, step))

    def set_tags(self, values: Mapping[str, object]) -> None:
        """Sets tags, replacing those of the same name."""
        self._client.log_batch(self.run_id, tags=[RunTag(key, str(value)) for key, value in values.items()])

    def log_dataset(self, name: str, source: str, fingerprint: str, images: int, context: str) -> None:
        """Records which images the run used.

        Args:
            name: Of the data set.
            source: Where it came from, as the recipe says.
            fingerprint: SHA-256 of its content, hexadecimal.
            images: How many they are.
            context: `train`, `validation` or `test`.
        """
        dataset = Dataset(
            name=name,
            digest=fingerprint[:DIGEST_LENGTH],
            source_type="http" if source.startswith(("http://", "https://")) else "local",
            source=json.dumps({"url" if "://" in source else "uri": source}),
            profile=json.dumps({"images": images, "fingerprint": fingerprint}),
        )
        self._client.log_inputs(
            self.run_id, datasets=[DatasetInput(dataset, [InputTag(MLFLOW_DATASET_CONTEXT, context)])]
        )

    def log_text(self, text: str, path: str) -> None:
        """Stores a text artifact."""
        self._client.log_text(self.run_id, text, path)

    def log_figures(self, drawings: Mapping[str, Figure], folder: str) -> None:
        """Stores matplotlib figures as PNG, and closes them."""
        from matplotlib import pyplot as plt

        for name, figure in drawings.items():
            self._client.log_figure(self.run_id, figure, f"{folder}/{name}.png")
            plt.close(figure)

    def log_table(self, columns: Mapping[str, Sequence[Any]], path: str) -> None:
        """Stores a table that the MLflow UI shows as one; an earlier one of the same path is replaced."""
        rows = [list(row) for row in zip(*columns.values(), strict=True)]
        self.log_text(json.dumps({"columns": list(columns), "data": rows}), path)
        tags = self._client.get_run(self.run_id).data.tags
        tables = json.loads(tags.get(MLFLOW_LOGGED_ARTIFACTS, "[]"))
        entry = {"path": path, "type": "table"}
        if entry not in tables:
            self._client.set_tag(self.run_id, MLFLOW_LOGGED_ARTIFACTS, json.dumps([*tables, entry]))

    def end(self, status: str = "FINISHED") -> None:
        """Ends the run as FINISHED, FAILED or KILLED."""
        self._client.set_terminated(self.run_id, status=status)


class TrialRun(Run):
    """The run of a trial: what is logged within a moment reaches MLflow in one call.

    A call takes longer than an epoch may. What a killed process has not sent is logged by the one that runs
    the trial again.

    Args:
        client: Of the tracking server.
        run_id: Of a run that exists.
        values: Parameters to log.
        resumed: Whether the run may hold something already.
    """

    def __init__(
        self, client: MlflowClient, run_id: str, values: Mapping[str, object], *, resumed: bool
    ) -> None:
        super().__init__(client, run_id)
        self._metrics: list[Metric] = []
        self._tags: dict[str, object] = {}
        self._sent = time.monotonic()
        if resumed:
            self.log_params(values)
        self._params = [] if resumed else _params(values)

    def log_metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Logs metrics of one step, soon."""
        self._metrics += _metrics(values, step)
        if time.monotonic() - self._sent > FLUSH_SECONDS:
            self._send()

    def set_tags(self, values: Mapping[str, object]) -> None:
        """Sets tags when the run ends."""
        self._tags |= values

    def end(self, status: str = "FINISHED") -> None:
        """Sends what is left, and ends the run."""
        self._send()
        super().end(status)

    def _send(self) -> None:
        tags = [RunTag(key, str(value)) for key, value in self._tags.items()]
        for start in range(0, max(1, len(self._metrics)), BATCH_METRICS):
            chunk = self._metrics[start : start + BATCH_METRICS]
            self._client.log_batch(self.run_id, metrics=chunk, params=self._params, tags=tags)
            self._params, tags = [], []
        self._metrics, self._tags, self._sent = [], {}, time.monotonic()


def read_text(run_id: str, path: str) -> str | None:
    """A text artifact of a run; None where it has none of this path.

    Raises:
        StorageError: MLflow has no such run, or cannot be asked.
    """
    mlflow_server.require_registry()
    client = MlflowClient()
    try:
        client.get_run(run_id)
        folder = path.rpartition("/")[0]
        if path not in {found.path for found in client.list_artifacts(run_id, folder)}:
            return None
        with TemporaryDirectory() as place:
            return Path(client.download_artifacts(run_id, path, place)).read_text(encoding="utf-8")
    except MlflowException as error:
        raise StorageError(
            f"{run_id} cannot be read from {mlflow_server.tracking_uri()}: {error.message}"
        ) from error


def _params(values: Mapping[str, object]) -> list[Param]:
    return [Param(key, str(value)[:PARAMETER_LENGTH]) for key, value in values.items()]


def _metrics(values: Mapping[str, float], step: int) -> list[Metric]:
    now = round(time.time() * 1000)
    return [Metric(key, float(value), now, step) for key, value in values.items()]
