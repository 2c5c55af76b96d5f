"""A preflight in several processes, stopped in any way: it ends, leaves none behind, and keeps its work."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from transfer_platform.data.scan import MAX_THREADED_FILES
from transfer_platform.disk_cache import FILE_NAME

RECIPE = """\
name: long
dataset: {source: set}
backbone: {name: efficientnet_lite0}
training: {epochs: 1}
"""
PATIENCE = 120
"""Seconds after which a test gives up."""


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a recipe and more images than threads are used for, each slow to decode and small."""
    folder = tmp_path_factory.mktemp("long")
    (folder / "recipe.yaml").write_text(RECIPE)
    slope = np.linspace(0, 255, 4000, dtype=np.uint8)[None, :, None].repeat(3000, 0).repeat(3, 2)
    image = Image.fromarray(slope)
    image.save(folder / "slope.png")
    content = (folder / "slope.png").read_bytes()
    for number in range(MAX_THREADED_FILES + 100):
        path = folder / "set" / ("ant", "bee")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content + str(number).encode())  # another image for the platform
    return folder


def session(leader: int) -> set[int]:
    """The processes of a session."""
    found = set()
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdecimal() and os.getsid(int(folder.name)) == leader:
                found.add(int(folder.name))
        except ProcessLookupError:
            continue
    return found


def seconds(processes: set[int]) -> float:
    """What processes have computed."""
    ticks = 0
    for process in processes:
        with suppress(OSError):
            ticks += sum(map(int, Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[11:13]))
    return ticks / os.sysconf("SC_CLK_TCK")


def prepare() -> None:
    """Lets a new process use two CPU cores."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])


def until(condition: object, what: str) -> None:
    for _ in range(10 * PATIENCE):
        if condition():  # type: ignore[operator]
            return
        time.sleep(0.1)
    pytest.fail(f"{what} after {PATIENCE} s")


def cached_images(cache: Path) -> int:
    """Number of images with cached statistics."""
    with sqlite3.connect(cache / FILE_NAME) as database:
        query = "SELECT count(*) FROM entries WHERE CAST(namespace AS TEXT) LIKE 'image statistics%'"
        [[count]] = database.execute(query)
    return int(count)


@pytest.mark.parametrize(
    ("number", "group", "code"),
    [
        (signal.SIGINT, True, 130),
        (signal.SIGINT, False, 130),
        (signal.SIGTERM, False, 130),
        (signal.SIGKILL, False, -9),
    ],
    ids=["Ctrl-C", "SIGINT", "SIGTERM", "SIGKILL"],
)
def test_it_ends_and_leaves_no_process_behind(long: Path, tmp_path: Path, number, group, code) -> None:
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("PLATFORM_", "MLFLOW_"))}
    variables = {**clean, "PLATFORM_CACHE": str(tmp_path / "cache"), "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [Path(sys.executable).with_name("platform"), "data", "recipe.yaml", "--no-features"]
    with subprocess.Popen(
        command, cwd=long, env=variables, start_new_session=True, stderr=subprocess.PIPE, text=True, preexec_fn=prepare
    ) as process:
        # Both readers have finished a chunk then, of 19, however busy the machine is.
        until(lambda: seconds(session(process.pid)) > 13, "hardly anything was read")
        assert process.poll() is None, "it was to be stopped, but ended by itself"
        (os.killpg if group else os.kill)(process.pid, number)
        _, output = process.communicate(timeout=PATIENCE)
    assert process.returncode == code
    until(lambda: not session(process.pid), "processes are left")
    if number != signal.SIGKILL:
        assert output.endswith("\nstopped\n")
        assert "Traceback" not in output
        assert cached_images(tmp_path / "cache") > 0
