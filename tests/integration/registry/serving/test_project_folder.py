"""A project folder works wherever it is, and never writes into the folder that it was copied from."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import mlflow
import pytest
from click.testing import CliRunner, Result
from mlflow import MlflowClient
from PIL import Image

from transfer_platform.cli import main
from transfer_registry.model_uri import model_uri
from transfer_registry.packaging import log_model
from transfer_registry.serving.server import create_app
from transfer_registry.serving.smoke_test import predict_over_http

pytestmark = pytest.mark.filterwarnings("ignore:Operation with range is deprecated")


def files(folder: Path) -> dict[Path, tuple[int, int]]:
    """Size and time of every file below a folder."""
    stats = {path: path.stat() for path in folder.rglob("*") if path.is_file()}
    return {path: (stat.st_size, stat.st_mtime_ns) for path, stat in stats.items()}


@pytest.fixture(scope="session")
def template(register, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a registered model after its first command, `models promote`.

    The folder in which it was made does not exist any more, so no artifacts are found at the locations that its
    database has recorded.
    """
    folder = tmp_path_factory.mktemp("original") / "project"
    folder.mkdir()
    register(folder)
    with pytest.MonkeyPatch.context() as patch:
        _enter(patch, folder)
        done = CliRunner().invoke(main, ["models", "promote", "ants-bees/1", "--override", "the first"])
        assert done.exit_code == 0, done.output
        mlflow.set_tracking_uri(None)
    return folder.rename(tmp_path_factory.mktemp("moved") / "project")


@pytest.fixture
def project(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A project that was opened in `tmp_path / "project"`."""
    monkeypatch.setenv("PLATFORM_CACHE", str(tmp_path / "cache"))
    shutil.copytree(template, tmp_path / "project")
    _enter(monkeypatch, tmp_path / "project")
    assert platform("models", "list").exit_code == 0
    yield tmp_path / "project"
    monkeypatch.chdir(tmp_path)
    mlflow.set_tracking_uri(None)


def _enter(patch: pytest.MonkeyPatch, folder: Path) -> None:
    for variable in [name for name in os.environ if name.startswith("MLFLOW_")]:
        patch.delenv(variable)
    patch.setenv("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    patch.chdir(folder)
    mlflow.set_tracking_uri(None)


def platform(*words: str) -> Result:
    return CliRunner().invoke(main, words)


# Situations: each returns the folder in which commands are run.


def copied(project: Path, target: Path) -> Path:
    return shutil.copytree(project, target)


def moved(project: Path, target: Path) -> Path:
    return Path(shutil.move(project, target))


def renamed_with_an_accent(project: Path, target: Path) -> Path:
    return project.rename(target.with_name("My Disk é #1"))


def linked(project: Path, target: Path) -> Path:
    target.symlink_to(project)
    return target


def bind_mounted(project: Path, target: Path) -> Path:
    target.mkdir()
    _mount("--bind", str(project), str(target))
    return target


def copied_and_read_only(project: Path, target: Path) -> Path:
    shutil.copytree(project, target)
    return read_only(target, target)


def read_only(project: Path, _target: Path) -> Path:
    _mount("--bind", str(project), str(project))
    _mount("-o", "remount,ro,bind", str(project))
    return project


def write_protected(project: Path, _target: Path) -> Path:
    for path in [*project.rglob("*"), project]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    return project


def _mount(*words: str) -> None:
    done = subprocess.run(["mount", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"this kernel does not allow root to mount a folder: {done.stderr.strip()}")


IS_ROOT = os.geteuid() == 0
"""Only root can mount a folder, and permissions do not apply to root."""
WRITABLE = [copied, moved, renamed_with_an_accent, linked, *[bind_mounted] * IS_ROOT]
READ_ONLY = [read_only, copied_and_read_only] if IS_ROOT else [write_protected]


@pytest.fixture
def place(
    request: pytest.FixtureRequest, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    folder = request.param(project, tmp_path / "other")
    try:
        _enter(monkeypatch, folder)
        yield folder
    finally:
        monkeypatch.chdir(tmp_path)
        mlflow.set_tracking_uri(None)
        # `os.path.ismount` does not detect a bind mount within one file system. Open files would make it busy.
        while not subprocess.run(["umount", "--lazy", folder], capture_output=True, check=False).returncode:
            pass
        for path in [folder, *folder.rglob("*")]:
            if path.is_dir() and not path.is_symlink():
                path.chmod(0o755)


# Commands: each asserts its result.


def list_models(_place: Path, _tmp_path: Path) -> None:
    assert "champion" in _output("models", "list")


def show_history(_place: Path, _tmp_path: Path) -> None:
    assert "the first" in _output("models", "history", "ants-bees")


def verify(_place: Path, _tmp_path: Path) -> None:
    assert "consistent with the version tags" in _output("models", "verify")


def predict(_place: Path, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    Image.new("RGB", (64, 64), "green").save(tmp_path / "images" / "a.png")
    output = _output("predict", str(tmp_path / "images"), "--model", "ants-bees", "--out", str(tmp_path / "out.csv"))
    assert "1 image classified" in output


def export(_place: Path, tmp_path: Path) -> None:
    _output("export", "ants-bees", "--to", "safetensors", "--out", str(tmp_path / "exported"))
    assert (tmp_path / "exported" / "weights.safetensors").is_file()


def load_with_mlflow(place: Path, _tmp_path: Path) -> None:
    _output("models", "list")
    location = MlflowClient().get_model_version_download_uri("ants-bees", "1")
    assert Path(mlflow.artifacts.download_artifacts(location)).samefile(_model_folder(place))
    if os.access(place, os.W_OK):  # MLflow writes a file beside every registered model that it loads
        mlflow.pyfunc.load_model("models:/ants-bees@champion")


def serve(_place: Path, _tmp_path: Path) -> None:
    create_app(model_uri("ants-bees"))


def register(place: Path, _tmp_path: Path) -> None:
    """Logs and registers a model and moves the champion, like `platform run`."""
    _output("models", "list")
    client, before = MlflowClient(), set(place.rglob("weights.safetensors"))
    run = client.create_run(client.get_experiment_by_name("serving").experiment_id).info.run_id
    info = log_model(place / "model", "ants-bees", run)
    client.create_model_version("ants-bees", info.model_uri, run, model_id=info.model_id)
    assert len(set(place.rglob("weights.safetensors")) - before) == 1
    _output("models", "promote", "ants-bees/2", "--override", "the second")
    _output("models", "verify")


def _output(*words: str) -> str:
    done = platform(*words)
    assert done.exit_code == 0, done.output
    return done.output


def _model_folder(place: Path) -> Path:
    (model,) = (place / "mlruns").glob("*/models/m-*/artifacts")
    return model


READING = [list_models, show_history, verify, predict, serve, export, load_with_mlflow]


@pytest.mark.parametrize("command", [*READING, register], ids=lambda command: command.__name__)
@pytest.mark.parametrize("place", WRITABLE, indirect=True, ids=lambda place: place.__name__)
def test_a_command_works_wherever_the_folder_is(
    place: Path, command: Callable[[Path, Path], None], tmp_path: Path
) -> None:
    command(place, tmp_path)


@pytest.mark.parametrize("command", READING, ids=lambda command: command.__name__)
@pytest.mark.parametrize("place", READ_ONLY, indirect=True, ids=lambda place: place.__name__)
def test_a_command_that_reads_works_in_a_read_only_folder(
    place: Path, command: Callable[[Path, Path], None], tmp_path: Path
) -> None:
    command(place, tmp_path)


@pytest.mark.parametrize("command", [("promote", "ants-bees/1", "--override", "again"), ("rollback", "ants-bees")])
@pytest.mark.parametrize("place", READ_ONLY, indirect=True, ids=lambda place: place.__name__)
def test_a_command_that_writes_says_that_the_folder_is_read_only(place: Path, command: tuple[str, ...]) -> None:
    done = platform("models", *command)
    assert done.exit_code == 1
    assert isinstance(done.exception, SystemExit)
    (line,) = done.output.splitlines()
    assert line.startswith(
        f"error: {place / 'mlflow.db'} cannot be changed, because the file or its folder is read-only; "
    )
    assert f"allow this user to write the file and the folder {place}, or use a copy of the folder" in line


@pytest.mark.parametrize("command", [*READING, register], ids=lambda command: command.__name__)
def test_a_copy_never_writes_into_the_original(
    project: Path, command: Callable[[Path, Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = files(project)
    place = copied(project, tmp_path / "other")
    _enter(monkeypatch, place)
    command(place, tmp_path)
    assert files(project) == before


def test_mlflow_itself_sees_the_present_folder(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = moved(project, tmp_path / "other")
    _enter(monkeypatch, place)
    _output("models", "list")
    client = MlflowClient()
    for experiment in client.search_experiments():
        assert Path(experiment.artifact_location).is_relative_to(place)
        for run in client.search_runs([experiment.experiment_id]):
            assert Path(run.info.artifact_uri).is_relative_to(place)
    Image.new("RGB", (64, 64), "green").save(tmp_path / "a.png")
    assert predict_over_http("models:/ants-bees@champion", [tmp_path / "a.png"], ["ants", "bees"]).unknown


def test_a_copy_says_once_that_it_is_one(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    _enter(monkeypatch, copied(project, tmp_path / "other"))
    caplog.clear()
    for _ in range(2):
        _output("models", "list")
    (message,) = [record.getMessage() for record in caplog.records if record.name.startswith("transfer_registry")]
    assert message.startswith(f"This project folder was copied or moved from {project}: ")
    # the copied folder contains the backup of its original
    assert message.endswith(f"the backup is {tmp_path / 'other' / 'mlflow.db.before-move-2'}")


if not IS_ROOT:

    def test_mounted_folders_as_root_of_a_new_namespace() -> None:
        """An ordinary user may mount folders in a namespace, unless the kernel forbids it."""
        namespace = ["unshare", "--map-root-user", "--mount"]
        allowed = subprocess.run([*namespace, "true"], capture_output=True, text=True, check=False)
        if allowed.returncode:
            pytest.skip(f"this kernel does not allow an ordinary user to mount a folder: {allowed.stderr.strip()}")
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "bind_mounted or read_only"]
        done = subprocess.run([*namespace, *command, __file__], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "skipped" not in done.stdout
