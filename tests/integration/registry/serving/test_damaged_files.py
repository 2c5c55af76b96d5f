"""Damaged files of a registered model end every command with one message, and `models verify` finds them."""

from __future__ import annotations

import hashlib
import importlib.util
import marshal
import os
import shutil
import sqlite3
import struct
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import mlflow
import pytest
import torch
from click.testing import CliRunner, Result
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from PIL import Image
from safetensors.torch import save_file

from transfer_model.classifier import save
from transfer_model.model_json import ModelConfig, OodThreshold
from transfer_model.network import NetworkSpec, build_network
from transfer_model.ood import OodScorer
from transfer_model.preprocessing import Preprocessing
from transfer_platform.cli import main

with warnings.catch_warnings():
    # MLflow warns about one of its own type hints on import.
    warnings.filterwarnings("ignore", ".*Any type hint is inferred as AnyType", UserWarning)
    from transfer_registry.errors import RegistryError
    from transfer_registry.model_files import CHECKSUMS_TAG, write_checksums
    from transfer_registry.model_uri import model_uri
    from transfer_registry.packaging import log_model
    from transfer_registry.serving.server import create_app
    from transfer_registry.serving.smoke_test import predict_over_http

pytestmark = pytest.mark.filterwarnings("ignore:Operation with range is deprecated")

MODEL = "ants-bees"
REMEDY = "restore the folder from a backup, or register a new version with `platform run RECIPE --fresh`"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a small registered model, which is the champion; its project folder is the current one."""
    project = tmp_path_factory.mktemp("project")
    with pytest.MonkeyPatch.context() as patch:
        for variable in [name for name in os.environ if name.startswith(("PLATFORM_", "MLFLOW_"))]:
            patch.delenv(variable)
        patch.setenv("PLATFORM_CACHE", str(project / "cache"))
        patch.setenv("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
        patch.chdir(project)
        mlflow.set_tracking_uri(None)
        yield _register(project)
        mlflow.set_tracking_uri(None)


def _register(project: Path) -> Path:
    saved = project / "model"  # MLflow keeps the name of the folder
    saved.mkdir()
    spec = NetworkSpec("timm/test_resnet", 2, 0.0, 64)
    preprocessing = Preprocessing(64, 1.0, "bilinear", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    config = ModelConfig(spec, ("ants", "bees"), preprocessing, "float32", 1.0, OodThreshold(0.25, 0.05))
    network = build_network(spec).eval()
    features: list[torch.Tensor] = []
    with torch.inference_mode(), network.register_feature_hook(features.append):
        network(torch.rand(4, 3, 64, 64))
    save(saved, config, network, OodScorer(features[0]))
    client = MlflowClient()
    run_id = client.create_run(client.create_experiment("damage")).info.run_id
    info = log_model(saved, MODEL, run_id)
    client.create_registered_model(MODEL)
    client.create_model_version(MODEL, info.model_uri, run_id, model_id=info.model_id)
    promoted = platform("models", "promote", f"{MODEL}/1", "--override", "the first")
    assert promoted.exit_code == 0, promoted.output
    (project / "images").mkdir()
    Image.new("RGB", (64, 64), "green").save(project / "images" / "a.png")
    return Path(client.get_logged_model(info.model_id).artifact_location)


def platform(*words: str) -> Result:
    return CliRunner().invoke(main, words)


# Files of the model's folder.

FILES = [
    "MLmodel",
    "loader.py",
    "requirements.txt",
    "code/transfer_model_*/decode.py",
    "artifacts/model/model.json",
    "artifacts/model/weights.safetensors",
    "artifacts/model/reference.safetensors",
]


# Damages.


def missing(file: Path) -> None:
    file.unlink()


def empty(file: Path) -> None:
    file.write_bytes(b"")


def cut_in_half(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def other_content(file: Path) -> None:
    """Replaces the file by a valid one of the same format, or by a text."""
    if file.suffix == ".safetensors":
        save_file({"features": torch.ones(3, 7)}, file)
    elif file.suffix == ".json":
        file.write_text(file.read_text().replace('"ants"', '"wasps"'))
    else:
        file.write_text("# another file\n")


@pytest.fixture
def restored(folder: Path, tmp_path: Path) -> Iterator[Path]:
    """The model's folder, which is restored from a backup after the test."""
    backup = shutil.copytree(folder, tmp_path / "backup")
    yield folder
    with suppress(FileNotFoundError):
        shutil.rmtree(folder)
    shutil.copytree(backup, folder)


@pytest.fixture
def untagged(restored: Path) -> Iterator[Path]:
    """The model's folder, while the tag of the logged model is deleted."""
    client = MlflowClient()
    digest = _digest(restored / "SHA256SUMS")
    client.delete_logged_model_tag(restored.parent.name, CHECKSUMS_TAG)
    yield restored
    client.set_logged_model_tags(restored.parent.name, {CHECKSUMS_TAG: digest})


# Commands: each returns the message of the error.


def predict(tmp_path: Path) -> str:
    return refused("predict", "images", "--model", MODEL, "--out", str(tmp_path / "out.csv"))


def evaluate(_tmp_path: Path) -> str:
    for name, color in (("ants", "green"), ("bees", "red")):
        Path("labeled", name).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (64, 64), color).save(Path("labeled", name, "a.png"))
    return refused("evaluate", MODEL, "labeled")


def serve(_tmp_path: Path) -> str:
    with pytest.raises(RegistryError) as caught:
        create_app(model_uri(MODEL))
    return str(caught.value)


def check_serving_parity(_tmp_path: Path) -> str:
    with pytest.raises(RegistryError) as caught:
        predict_over_http(f"models:/{MODEL}/1", [Path("images", "a.png")], ("ants", "bees"))
    return str(caught.value)


def export_onnx(tmp_path: Path) -> str:
    return refused("export", MODEL, "--to", "onnx", "--out", str(tmp_path / "exported"))


def export_safetensors(tmp_path: Path) -> str:
    message = refused("export", MODEL, "--to", "safetensors", "--out", str(tmp_path / "exported"))
    assert not (tmp_path / "exported").exists()
    return message


def verify(_tmp_path: Path) -> str:
    return refused("models", "verify")


def refused(*words: str) -> str:
    done = platform(*words)
    assert done.exit_code == 1, done.output
    assert isinstance(done.exception, SystemExit), repr(done.exception)
    return " ".join(done.output.split())


COMMANDS = [predict, serve, check_serving_parity, export_onnx, export_safetensors, verify]


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("damage", [missing, empty, cut_in_half, other_content])
@pytest.mark.parametrize("pattern", FILES)
def test_a_damaged_file_is_named_with_model_cause_and_remedy(
    restored: Path, tmp_path: Path, pattern: str, damage: Callable[[Path], None], command: Callable[[Path], str]
) -> None:
    (file,) = restored.glob(pattern)
    name = file.relative_to(restored).as_posix()
    damage(file)
    message = command(tmp_path)
    assert MODEL in message
    assert f"{name} is missing" in message if damage is missing else f"{name} has changed" in message
    assert str(restored) in message
    assert REMEDY in message


@pytest.mark.parametrize("command", [*COMMANDS, evaluate])
def test_a_missing_folder_is_named_with_model_and_remedy(
    restored: Path, tmp_path: Path, command: Callable[[Path], str]
) -> None:
    shutil.rmtree(restored)
    message = command(tmp_path)
    assert f"the folder of models:/{MODEL}" in message
    assert f"is missing: {restored}; {REMEDY}" in message


def test_the_folder_of_all_artifacts_may_be_missing(restored: Path, tmp_path: Path) -> None:
    artifacts = restored.parents[3]
    assert artifacts.name == "mlruns"
    artifacts.rename(tmp_path / "elsewhere")
    try:
        messages = [command(tmp_path) for command in (predict, export_safetensors, verify)]
    finally:
        (tmp_path / "elsewhere").rename(artifacts)
    assert all(f"is missing: {restored}; {REMEDY}" in message for message in messages)


def test_a_copy_of_the_folder_from_a_backup_is_a_remedy(restored: Path, tmp_path: Path) -> None:
    backup = shutil.copytree(restored, tmp_path / "copy")
    missing(restored / "artifacts" / "model" / "weights.safetensors")
    assert "weights.safetensors is missing" in predict(tmp_path)
    shutil.rmtree(restored)
    shutil.copytree(backup, restored)
    assert platform("predict", "images", "--model", MODEL, "--out", str(tmp_path / "out.csv")).exit_code == 0
    verified = platform("models", "verify").output
    assert verified == (
        "verified 1 ledger entry: consistent with the version tags and aliases\n"
        "verified the files of 1 version: unchanged\n"
    )


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("damage", [missing, empty, cut_in_half, other_content])
def test_a_damaged_list_of_checksums_is_found(
    restored: Path, tmp_path: Path, damage: Callable[[Path], None], command: Callable[[Path], str]
) -> None:
    damage(restored / "SHA256SUMS")
    assert f"SHA256SUMS {'is missing' if damage is missing else 'has changed'}" in command(tmp_path)


def change_code_and_list(folder: Path) -> None:
    with (folder / "loader.py").open("a") as file:
        file.write("\nraise SystemExit('executed')\n")
    write_checksums(folder)


def copy_of_the_version() -> str:
    return f"models:/copied/{MlflowClient().copy_model_version(f'models:/{MODEL}/1', 'copied').version}"


@pytest.mark.parametrize("command", COMMANDS)
def test_code_that_was_changed_consistently_with_the_list_is_not_executed(
    restored: Path, tmp_path: Path, command: Callable[[Path], str]
) -> None:
    change_code_and_list(restored)
    message = command(tmp_path)
    assert "SHA256SUMS has changed since the model was registered" in message
    assert "executed" not in message


@pytest.mark.parametrize("kind", ["version", "logged model", "latest", "copy"])
def test_the_recorded_checksum_is_found_for_every_reference_to_a_model(
    restored: Path, tmp_path: Path, kind: str
) -> None:
    uri = {
        "version": lambda: f"models:/{MODEL}/1",
        "logged model": lambda: f"models:/{restored.parent.name}",
        "latest": lambda: f"models:/{MODEL}/latest",
        "copy": copy_of_the_version,
    }[kind]()
    change_code_and_list(restored)
    try:
        message = refused("predict", "images", "--model", uri, "--out", str(tmp_path / "out.csv"))
        assert "SHA256SUMS has changed since the model was registered" in message
    finally:
        if kind == "copy":
            MlflowClient().delete_registered_model("copied")


def test_all_damaged_files_are_named_together(restored: Path, tmp_path: Path) -> None:
    missing(restored / "loader.py")
    cut_in_half(restored / "artifacts" / "model" / "model.json")
    message = predict(tmp_path)
    assert "loader.py is missing" in message
    assert "artifacts/model/model.json has changed" in message


@pytest.mark.parametrize("command", [predict, serve, export_onnx, export_safetensors])
@pytest.mark.parametrize("damage", [missing, empty, cut_in_half])
@pytest.mark.parametrize("pattern", ["MLmodel", *FILES[4:]])
def test_without_checksums_files_that_cannot_be_read_are_named(
    untagged: Path, tmp_path: Path, pattern: str, damage: Callable[[Path], None], command: Callable[[Path], str]
) -> None:
    """A model that an earlier version of the platform logged."""
    (untagged / "SHA256SUMS").unlink()
    damage(untagged / pattern)
    if (pattern, damage) == ("MLmodel", cut_in_half):  # the first half is valid YAML
        (untagged / pattern).write_text("flavors: [")
    message = command(tmp_path)
    assert f"{pattern} is missing" in message if damage is missing else f"{pattern} cannot be read" in message
    assert f"{untagged} are damaged" in message
    assert REMEDY in message


@pytest.mark.parametrize("file", ["loader.py", "artifacts/model/model.json"])
def test_without_checksums_a_model_that_cannot_be_loaded_ends_in_a_message(
    untagged: Path, tmp_path: Path, file: str
) -> None:
    (untagged / "SHA256SUMS").unlink()
    found = untagged / file
    found.write_text("{}" if found.suffix == ".json" else "import nothing_of_this_name\n")
    assert f"cannot load models:/{MODEL}@champion from {untagged}" in predict(tmp_path)


def test_a_cause_outside_of_the_files_is_not_called_damage(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLATFORM_THREADS", "many")
    message = predict(tmp_path)
    assert message.endswith(f"from {folder}: PLATFORM_THREADS must be a whole number of at least 1, but is 'many'")


def test_the_model_card_may_be_edited(restored: Path) -> None:
    (restored / "artifacts" / "model" / "README.md").write_text("another card")
    assert "files of 1 version: unchanged" in platform("models", "verify").output


@pytest.fixture
def deleted(restored: Path) -> Iterator[Path]:
    """The model's folder, while the logged model is deleted."""
    MlflowClient().delete_logged_model(restored.parent.name)
    yield restored
    with closing(sqlite3.connect("mlflow.db")) as connection, connection:
        connection.execute("UPDATE logged_models SET lifecycle_stage = 'active'")


def test_a_version_without_recorded_checksums_is_named(untagged: Path) -> None:
    (untagged / "SHA256SUMS").unlink()
    output = platform("models", "verify").output
    assert f"files of 0 versions: unchanged; not checked (no recorded checksums): {MODEL}/1" in output


@pytest.mark.parametrize("state", ["untagged", "deleted"])
def test_a_list_of_checksums_whose_own_checksum_was_deleted_is_reported_and_used(
    tmp_path: Path, request: pytest.FixtureRequest, state: str
) -> None:
    folder: Path = request.getfixturevalue(state)
    missing_tag = (
        f"models:/{MODEL}/1 contains SHA256SUMS, but its logged model or the tag platform.checksums was deleted"
    )
    assert missing_tag in verify(tmp_path)
    other_content(folder / "loader.py")
    assert missing_tag in verify(tmp_path)
    assert "loader.py has changed" in verify(tmp_path)


def test_a_copy_of_a_version_is_checked(restored: Path, tmp_path: Path) -> None:
    client = MlflowClient()
    client.copy_model_version(f"models:/{MODEL}/1", "copied")
    try:
        assert "files of 2 versions: unchanged\n" in platform("models", "verify").output
        other_content(restored / "loader.py")
        assert "the files of models:/copied/1" in verify(tmp_path)
    finally:
        client.delete_registered_model("copied")


def test_a_server_that_cannot_be_reached_is_not_a_deleted_model(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(client: MlflowClient, model_id: str) -> None:
        raise MlflowException(f"API request for {folder.parent.name} failed with timeout")

    monkeypatch.setattr(MlflowClient, "get_logged_model", fail)
    assert f"API request for {folder.parent.name} failed with timeout" in verify(tmp_path)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_file_that_was_added_is_named(restored: Path, tmp_path: Path, command: Callable[[Path], str]) -> None:
    (restored / "code" / "numpy.py").write_text("raise SystemExit('executed')\n")
    assert f"code/numpy.py was added after the model was registered, so delete it; {REMEDY}" in command(tmp_path)


@pytest.mark.parametrize("pattern", ["loader.py", "code/transfer_model_*/pyfunc.py"])
def test_bytecode_in_the_folder_of_a_model_is_not_executed(
    restored: Path, tmp_path: Path, pattern: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "pycache_prefix", None)  # set by commands that were called in this process
    (source,) = restored.glob(pattern)
    stat = source.stat()
    bytecode = Path(importlib.util.cache_from_source(str(source)))
    bytecode.parent.mkdir(exist_ok=True)
    code = compile("raise SystemExit('executed')", source, "exec")
    header = importlib.util.MAGIC_NUMBER + struct.pack("<III", 0, int(stat.st_mtime), stat.st_size)
    bytecode.write_bytes(header + marshal.dumps(code))
    command = ["-m", "transfer_platform", "predict", "images", "--model", MODEL, "--out", str(tmp_path / "out.csv")]
    subprocess.run([sys.executable, *command], check=True)


@pytest.mark.usefixtures("folder")
def test_files_that_mlflow_adds_when_a_model_is_loaded_or_downloaded_are_not_damage(tmp_path: Path) -> None:
    mlflow.pyfunc.load_model(f"models:/{MODEL}/1")
    mlflow.artifacts.download_artifacts(f"models:/{MODEL}/1", dst_path=str(tmp_path))
    assert "files of 1 version: unchanged\n" in platform("models", "verify").output


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def test_sha256sum_accepts_the_list(folder: Path) -> None:
    listed = dict(line.split("  ")[::-1] for line in (folder / "SHA256SUMS").read_text().splitlines())
    assert {"MLmodel", "loader.py", "requirements.txt", "artifacts/model/weights.safetensors"} <= listed.keys()
    assert all(_digest(folder / name) == digest for name, digest in listed.items())
