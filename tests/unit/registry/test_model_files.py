"""Files of models that other tools logged, and files that were added to a model."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from mlflow.store.artifact.models_artifact_repo import REGISTERED_MODEL_META_FILE_NAME

from transfer_registry.model_files import find_damage, write_checksums


def test_a_model_of_another_tool_may_have_an_artifact_called_model(tmp_path: Path) -> None:
    (tmp_path / "artifacts" / "model").mkdir(parents=True)
    (tmp_path / "MLmodel").write_text(yaml.safe_dump({"metadata": {"classes": ["ant", "bee"]}}), encoding="utf-8")
    assert not find_damage(tmp_path)
    (tmp_path / "artifacts" / "model" / "model.json").write_text("{", encoding="utf-8")
    assert find_damage(tmp_path)[0].startswith("artifacts/model/model.json cannot be read")
    assert find_damage(tmp_path)[1] == "artifacts/model/weights.safetensors is missing"


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    """A folder of a model with checksums."""
    folder = tmp_path / "model"
    for name in ("MLmodel", "loader.py", "code/package/__init__.py", "artifacts/model/model.json"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    write_checksums(folder)
    return folder


@pytest.mark.parametrize(
    "name",
    [
        "code/numpy.py", "code/numpy.pyc", "code/numpy.so", "code/package/more.py", "code/__pycache__/__init__.py",
        "__pycache__.pyc", "artifacts/x", "artifacts/registered_model_meta",
    ],
)  # fmt: skip
def test_a_file_that_was_added_is_damage(listed: Path, name: str) -> None:
    (listed / name).parent.mkdir(exist_ok=True)
    (listed / name).touch()
    assert find_damage(listed) == [f"{name} was added after the model was registered, so delete it"]


@pytest.mark.parametrize("target", ["package", "nothing"])
def test_a_link_that_was_added_is_damage(listed: Path, tmp_path: Path, target: str) -> None:
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").touch()
    (listed / "code" / "numpy").symlink_to(tmp_path / target)
    assert find_damage(listed) == ["code/numpy was added after the model was registered, so delete it"]


def test_a_hidden_link_that_was_added_is_damage(listed: Path, tmp_path: Path) -> None:
    (listed / "code" / ".numpy").symlink_to(tmp_path)
    assert find_damage(listed) == ["code/.numpy was added after the model was registered, so delete it"]


FIND_DAMAGE = """
import sys
from pathlib import Path
from transfer_registry.model_files import find_damage
print(*find_damage(Path(sys.argv[1])), sep=chr(10))
"""


@pytest.mark.parametrize(
    ("name", "checksums"), [("SHA256SUMS", True), ("loader.py", True), ("MLmodel", True), ("MLmodel", False)]
)
def test_a_fifo_is_damage(listed: Path, name: str, checksums: bool) -> None:
    if not checksums:
        (listed / "SHA256SUMS").unlink()
    (listed / name).unlink()
    os.mkfifo(listed / name)
    done = subprocess.run(
        [sys.executable, "-c", FIND_DAMAGE, str(listed)], capture_output=True, text=True, timeout=300, check=True
    )
    assert done.stdout.splitlines()[0] == f"{name} cannot be read: it is not a regular file"


def test_a_device_is_damage(listed: Path) -> None:
    (listed / "loader.py").unlink()
    (listed / "loader.py").symlink_to("/dev/zero")
    assert find_damage(listed) == ["loader.py cannot be read: it is not a regular file"]


def test_files_that_users_mlflow_python_and_desktops_write_into_a_model_are_not_damage(listed: Path) -> None:
    (listed / "code" / ".DS_Store").touch()
    (listed / "README.md").touch()
    (listed / REGISTERED_MODEL_META_FILE_NAME).touch()
    for folder in (listed, listed / "code" / "package"):
        (folder / "__pycache__").mkdir()
        (folder / "__pycache__" / "loader.cpython-312.pyc").touch()
    (listed / "empty").mkdir()
    assert find_damage(listed) == []


def test_a_list_without_files_does_not_call_every_file_an_addition(listed: Path) -> None:
    (listed / "SHA256SUMS").write_text("")
    assert find_damage(listed) == ["SHA256SUMS does not list MLmodel"]
