"""Shared parts of the benchmarks: arguments, measured processes, reports.

Imports only the standard library before the measured processes have ended: the peak memory of a child
includes the memory of its parent at the start, and the other side of a comparison may need another
environment.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
LIBRARIES = ("torch", "torchvision", "timm", "mlflow", "optuna")
Row = Mapping[str, object]


@dataclass(frozen=True)
class ProcessResult:
    """Result of a successful process.

    Attributes:
        seconds: Wall-clock time.
        peak_bytes: Maximum resident memory of the process or one of its children.
        output: Standard output and standard error.
    """

    seconds: float
    peak_bytes: int
    output: str


def parser(description: str | None, *, photos: bool = True) -> argparse.ArgumentParser:
    """Returns a parser with the arguments of all benchmarks.

    Args:
        description: Docstring of the benchmark.
        photos: Whether to add `--photos`, the photographs of ants and bees.
    """
    arguments = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    if photos:
        arguments.add_argument(
            "--photos", type=existing_path, required=True, help="folder hymenoptera_data with train/ and val/"
        )
    name = Path(sys.argv[0]).stem
    arguments.add_argument("--out", type=Path, default=Path(f"{name}.json"), help="JSON file for the result")
    arguments.add_argument(
        "--work", type=Path, help="parent of the run folders, which are not deleted; default: a temporary folder"
    )
    arguments.add_argument(
        "--threads", type=int, default=len(os.sched_getaffinity(0)), help="threads of each measured process"
    )
    arguments.add_argument("--device", default="cpu", help="cpu or cuda")
    return arguments


def precision_argument(arguments: argparse.ArgumentParser) -> None:
    """Adds `--precision`."""
    arguments.add_argument(
        "--precision", default="auto", help="precision of platform runs: auto, float32, bfloat16, float16"
    )


def existing_path(text: str) -> Path:
    """Returns an absolute path; for arguments that must exist."""
    path = Path(text).expanduser().resolve()
    if not path.exists():
        raise argparse.ArgumentTypeError(f"{path} does not exist")
    return path


@contextmanager
def work_folder(folder: Path | None) -> Iterator[Path]:
    """Yields an empty folder: a new one in `folder`, or a temporary one that is deleted on exit."""
    if folder is None:
        with tempfile.TemporaryDirectory(prefix="benchmark-") as temporary:
            yield Path(temporary)
        return
    folder.mkdir(parents=True, exist_ok=True)
    yield Path(tempfile.mkdtemp(prefix=f"{datetime.now():%Y%m%d-%H%M%S}-", dir=folder.resolve()))


def environment(threads: int, cache: Path | None = None) -> dict[str, str]:
    """Returns the environment of a measured process, without local settings of the platform or MLflow."""
    prefixes = ("PLATFORM_", "MLFLOW_", "OMP_", "MKL_")
    clean = {key: value for key, value in os.environ.items() if not key.startswith(prefixes)}
    clean |= {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "OMP_NUM_THREADS": str(threads)}
    return clean | ({"PLATFORM_CACHE": str(cache)} if cache else {})


def run_process(command: Sequence[object], folder: Path, variables: Mapping[str, str]) -> ProcessResult:
    """Runs a command and measures it.

    Args:
        command: Program and arguments.
        folder: Working directory, created if necessary; the output is written to `output.txt` in it.
        variables: Complete environment.

    Raises:
        SystemExit: The command failed; the message contains the last lines of its output.
    """
    folder.mkdir(parents=True, exist_ok=True)
    words = [str(word) for word in command]
    printed = folder / "output.txt"
    with printed.open("w") as stream:
        start = time.perf_counter()
        child = subprocess.Popen(words, cwd=folder, env=variables, stdout=stream, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(child.pid, 0)
        seconds = time.perf_counter() - start
    child.returncode = os.waitstatus_to_exitcode(status)
    output = printed.read_text(errors="replace")
    if child.returncode:
        last = "\n".join(output.splitlines()[-15:])
        raise SystemExit(f"{shlex.join(words)}\nexited with code {child.returncode}:\n{last}")
    unit = 1 if sys.platform == "darwin" else 1024
    return ProcessResult(seconds, usage.ru_maxrss * unit, output)


def run_benchmark(name: str, *options: object, folder: Path, threads: int) -> dict[str, Any]:
    """Runs another benchmark in a separate process and returns its result."""
    result = folder / f"{name}.json"
    command = [sys.executable, Path(__file__).with_name(f"{name}.py"), *options]
    run_process([*command, "--threads", threads, "--out", result], folder, environment(threads))
    loaded: dict[str, Any] = json.loads(result.read_text())
    return loaded


def last_json_line(process: ProcessResult) -> dict[str, Any]:
    """Parses the last line of the output as JSON."""
    loaded: dict[str, Any] = json.loads(process.output.strip().splitlines()[-1])
    return loaded


def table(rows: Sequence[Row]) -> str:
    """Returns a Markdown table; floats with at least three significant digits."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    cells = [columns, *([_cell(row.get(column)) for column in columns] for row in rows)]
    widths = [max(len(line[at]) for line in cells) for at in range(len(columns))]
    lines = ["| " + " | ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) + " |" for line in cells]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]])


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return str(value)


def machine(threads: int) -> dict[str, object]:
    """Returns the hardware and the library versions."""
    model = platform.processor()
    if (cpuinfo := Path("/proc/cpuinfo")).exists():
        models = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        model = models[0].partition(":")[2].strip() if models else model
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "threads": threads,
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "system": platform.platform(),
        "python": platform.python_version(),
        **{library: _version(library) for library in LIBRARIES},
    }


def _version(library: str) -> str | None:
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return None


def report(options: argparse.Namespace, rows: Sequence[Row], notes: Sequence[str] = (), **more: object) -> None:
    """Prints the table; writes it to `--out` with the machine, the date and the command.

    Args:
        options: Parsed arguments.
        rows: Rows of the table.
        notes: Details of the measurement that the columns do not state.
        more: Further fields of the JSON file.
    """
    facts = machine(options.threads)
    result = {
        "benchmark": Path(sys.argv[0]).stem,
        "date": f"{datetime.now().astimezone():%Y-%m-%d %H:%M %z}",
        "command": shlex.join(["python", *sys.argv]),
        "settings": {key: value for key, value in vars(options).items() if key != "out"},
        # Shows whether other processes disturbed the measurement.
        "machine": {**facts, "load_at_the_end": os.getloadavg()},
        "rows": rows,
        "notes": notes,
        **more,
    }
    print(table(rows))
    for note in notes:
        print(f"- {note}")
    named = f"{facts['cpu']}, {facts['cores']} cores, {facts['threads']} threads, torch {facts['torch']}"
    print(f"{result['date']}; {named}; load {os.getloadavg()[0]:.1f}")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1, default=str) + "\n")
