"""A script in the current folder never replaces a library in the processes that the platform starts."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from transfer_model.safe_path import safe_environment

RAISE = "raise SystemExit('imported from the current folder')"


@pytest.fixture(autouse=True)
def _scripts_called_like_libraries(isolated: Path) -> None:
    for name in ("colorsys", "json", "uvicorn"):
        (isolated / f"{name}.py").write_text(RAISE)


@pytest.mark.parametrize(
    "words",
    [("-c", "import colorsys"), ("-m", "colorsys"), ("-m", "json.tool", os.devnull), ("-m", "uvicorn", "--version")],
    ids=lambda words: words[1],
)
@pytest.mark.parametrize("configured", [None, f"{os.pathsep}{os.devnull}"])
def test_a_child_does_not_import_from_the_current_folder(
    words: tuple[str, ...], configured: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if configured is not None:  # an empty entry is the current folder
        monkeypatch.setenv("PYTHONPATH", configured)
    ended = subprocess.run([sys.executable, *words], env=safe_environment(), capture_output=True, text=True)
    assert "imported from the current folder" not in ended.stderr


def test_uvicorn_does_not_import_its_application_from_the_current_folder(isolated: Path) -> None:
    (isolated / "application.py").write_text(RAISE)
    command = [sys.executable, "-m", "uvicorn", "application:app"]
    ended = subprocess.run(command, env=safe_environment(), capture_output=True, text=True)
    assert 'Could not import module "application"' in ended.stderr


def test_the_folders_of_the_user_stay_importable(
    tmp_path: Path, isolated: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine.py").write_text(f"print({name!r})")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "second"))
    command = [sys.executable, "-c", "import mine"]
    run = {"capture_output": True, "text": True, "check": True}
    assert subprocess.run(command, env=safe_environment(), **run).stdout == "second\n"
    assert subprocess.run(command, env=safe_environment(tmp_path / "first"), **run).stdout == "first\n"


def test_the_command_line_does_not_import_from_the_current_folder(isolated: Path) -> None:
    (isolated / "click.py").write_text(RAISE)
    path = os.pathsep.join(each for each in sys.path if each)  # without the current folder
    command = [sys.executable, "-m", "transfer_platform", "--version"]
    environment = {**os.environ, "PYTHONPATH": path}
    environment.pop("PYTHONSAFEPATH", None)
    ended = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "transfer_platform, version" in ended.stdout


def test_worker_processes_of_a_scan_do_not_import_from_the_current_folder(isolated: Path, tmp_path: Path) -> None:
    (isolated / "json.py").write_text(f"open({str(tmp_path / 'imported')!r}, 'w')\n{RAISE}")
    program = (
        f"import sys; sys.path[:] = {[each for each in sys.path if each]!r}\n"
        "from transfer_platform.data import scan\n"
        "scan.MAX_THREADED_FILES = 0\n"
        "with scan._workers(1) as (workers, _):\n"
        "    print(workers.submit(abs, -1).result())\n"
    )
    ended = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, env=os.environ)
    assert ended.stdout == "1\n", ended.stderr
    assert not (tmp_path / "imported").exists()
