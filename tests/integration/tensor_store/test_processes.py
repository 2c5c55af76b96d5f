"""Several processes, killed processes, and many rows."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import torch

from transfer_platform.tensor_store.eviction import clear, list_files
from transfer_platform.tensor_store.segment import RowSpec
from transfer_platform.tensor_store.store import Store

COMPUTE = """
import sys, time
from pathlib import Path
import torch
from transfer_platform.tensor_store.segment import RowSpec
from transfer_platform.tensor_store.store import Store

folder, log, gate = Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])
spec, keys = RowSpec((1000,), "float32"), [f"{n:064x}" for n in range(20)]

def compute(missing):
    for position in missing:
        with log.open("a") as file:
            file.write(f"{position}\\n")
        if position == 10:
            print("computing", flush=True)
            while not gate.exists():
                time.sleep(0.01)
        yield torch.full((1, 1000), float(position))

store = Store(folder, 1 << 30, segment_bytes=4 * 4000)
rows = store.get_or_compute("ab", spec, keys, compute, lambda: print("waiting", flush=True))
assert torch.equal(rows.take(range(20))[:, 5], torch.arange(20.0))
print("done", flush=True)
"""


def start(tmp_path: Path) -> subprocess.Popen[str]:
    arguments = [str(tmp_path / name) for name in ("features", "log", "gate")]
    return subprocess.Popen([sys.executable, "-c", COMPUTE, *arguments], stdout=subprocess.PIPE, text=True)


def read_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def computed(tmp_path: Path) -> list[int]:
    return [int(line) for line in (tmp_path / "log").read_text().split()]


def test_two_processes_at_once_compute_once(tmp_path: Path) -> None:
    first = start(tmp_path)
    assert read_line(first) == "computing"
    second = start(tmp_path)
    assert read_line(second) == "waiting"
    (tmp_path / "gate").touch()
    assert (first.communicate()[0], second.communicate()[0]) == ("done\n", "done\n")
    assert (first.returncode, second.returncode) == (0, 0)
    assert computed(tmp_path) == list(range(20))


def test_a_killed_writer_loses_at_most_one_segment(tmp_path: Path) -> None:
    killed = start(tmp_path)
    assert read_line(killed) == "computing"
    killed.kill()  # two files of four rows are whole, of the third there are two rows
    killed.communicate()
    assert len(list((tmp_path / "features").rglob("*.part"))) == 1
    (tmp_path / "gate").touch()
    again = start(tmp_path)
    assert again.communicate()[0].split() == ["computing", "done"]
    assert computed(tmp_path) == [*range(11), *range(8, 20)]
    assert not list((tmp_path / "features").rglob("*.part"))


def test_a_waiting_process_takes_over_from_a_killed_one(tmp_path: Path) -> None:
    killed = start(tmp_path)
    assert read_line(killed) == "computing"
    waiting = start(tmp_path)
    assert read_line(waiting) == "waiting"
    (tmp_path / "gate").touch()
    killed.kill()
    killed.communicate()
    assert waiting.communicate()[0].split()[-1] == "done"
    assert waiting.returncode == 0


MEMORY = """
import json, resource, sys
from pathlib import Path
import torch
from transfer_platform.tensor_store.segment import RowSpec
from transfer_platform.tensor_store.store import Store

COUNT, spec = 4000, RowSpec((25_000,), "float32")  # 400 MB
keys = [f"{n:064x}" for n in range(COUNT)]

def compute(missing):
    for start in range(0, len(missing), 50):
        positions = torch.tensor(missing[start : start + 50], dtype=torch.float32)
        yield positions[:, None].expand(-1, 25_000)

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

before = peak()
store = Store(Path(sys.argv[1]), 1 << 30, resident_bytes=32 << 20)
for address in ("ab", "ab"):
    rows = store.get_or_compute(address, spec, keys, compute)
    for start in range(0, COUNT, 50):
        assert rows.take(range(start, start + 50))[:, -1].tolist() == list(range(start, start + 50))
print(json.dumps({"rows": COUNT * spec.row_bytes, "above": peak() - before}))
"""


def test_memory_stays_flat(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-c", MEMORY, tmp_path / "features"], capture_output=True, text=True, check=True
    )
    measured = json.loads(run.stdout)
    assert measured["rows"] == 400_000_000
    # Two threads check files of 64 MiB, and some 30 MB are computed and taken.
    assert measured["above"] < 250_000_000, measured


def test_cleared_rows_remain_readable(tmp_path: Path) -> None:
    values = torch.randn(50, 1000)
    rows = Store(tmp_path, 1 << 30, in_memory_bytes=0).get_or_compute(
        "ab", RowSpec((1000,), "float32"), [f"{n}" for n in range(50)], lambda missing: iter([values])
    )
    assert clear(tmp_path).files == 1
    assert not list_files(tmp_path)
    assert torch.equal(rows.take(range(50)), values)
