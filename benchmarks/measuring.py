"""What the benchmarks share: their arguments, timed processes, the report.

Only the standard library is imported before the measured processes have ended: a child's peak memory counts
what its parent held when it was started, and the other side of a comparison may live in another environment.
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
class Ended:
    """A process that ended well.

    Attributes:
        seconds: From its start to its end, by the clock on the wall.
        peak_bytes: Largest resident memory of it or one of its children.
        output: What it printed on both streams.
    """

    seconds: float
    peak_bytes: int
    output: str


def parser(description: str | None, *, photos: bool = True) -> argparse.ArgumentParser:
    """Arguments that every benchmark takes.

    Args:
        description: The docstring of the benchmark.
        photos: Whether it needs the photographs of ants and bees.
    """
    arguments = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    if photos:
        arguments.add_argument(
            "--photos", type=existing, required=True, help="the folder hymenoptera_data with train/ and val/"
        )
    name = Path(sys.argv[0]).stem
    arguments.add_argument("--out", type=Path, default=Path(f"{name}.json"), help="where the result goes")
    arguments.add_argument("--work", type=Path, help="for folders of runs, kept; default: a temporary one")
    arguments.add_argument(
        "--threads", type=int, default=len(os.sched_getaffinity(0)), help="of every measured process"
    )
    arguments.add_argument("--device", default="cpu", help="cpu or cuda")
    return arguments


def precision_argument(arguments: argparse.ArgumentParser) -> None:
    """Adds the arithmetic of the platform's runs."""
    arguments.add_argument(
        "--precision", default="auto", help="of the platform's runs: auto, float32, bfloat16, float16"
    )


def existing(text: str) -> Path:
    """An absolute path of something that is there."""
    path = Path(text).expanduser().resolve()
    if not path.exists():
        raise argparse.ArgumentTypeError(f"there is no {path}")
    return path


@contextmanager
def workplace(folder: Path | None) -> Iterator[Path]:
    """An empty folder for the runs: a new one below `folder`, which stays, or a temporary one, which goes."""
    if folder is None:
        with tempfile.TemporaryDirectory(prefix="benchmark-") as temporary:
            yield Path(temporary)
        return
    folder.mkdir(parents=True, exist_ok=True)
    yield Path(tempfile.mkdtemp(prefix=f"{datetime.now():%Y%m%d-%H%M%S}-", dir=folder.resolve()))


def environment(threads: int, cache: Path | None = None) -> dict[str, str]:
    """The environment of a measured process: no setting of this machine but the number of threads."""
    mine = ("PLATFORM_", "MLFLOW_", "OMP_", "MKL_")
    clean = {key: value for key, value in os.environ.items() if not key.startswith(mine)}
    clean |= {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "OMP_NUM_THREADS": str(threads)}
    return clean | ({"PLATFORM_CACHE": str(cache)} if cache else {})


def timed(command: Sequence[object], folder: Path, variables: Mapping[str, str]) -> Ended:
    """Runs a process to its end.

    Args:
        command: Program and arguments.
        folder: It runs in; made where it does not exist. `output.txt` in it gets what is printed.
        variables: Its whole environment.

    Raises:
        SystemExit: It failed; the message has its last lines.
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
        raise SystemExit(f"{shlex.join(words)}\nended with {child.returncode}:\n{last}")
    unit = 1 if sys.platform == "darwin" else 1024
    return Ended(seconds, usage.ru_maxrss * unit, output)


def script(name: str, *options: object, folder: Path, threads: int) -> dict[str, Any]:
    """Runs another benchmark as a process of its own, and gives the result that it wrote."""
    result = folder / f"{name}.json"
    command = [sys.executable, Path(__file__).with_name(f"{name}.py"), *options]
    timed([*command, "--threads", threads, "--out", result], folder, environment(threads))
    loaded: dict[str, Any] = json.loads(result.read_text())
    return loaded


def last_json(ended: Ended) -> dict[str, Any]:
    """What a worker printed as its last line."""
    loaded: dict[str, Any] = json.loads(ended.output.strip().splitlines()[-1])
    return loaded


def table(rows: Sequence[Row]) -> str:
    """Rows of the same columns as Markdown; numbers with three significant digits or more."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    cells = [columns, *([_cell(row.get(column)) for column in columns] for row in rows)]
    widths = [max(len(line[at]) for line in cells) for at in range(len(columns))]
    lines = [
        "| " + " | ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) + " |" for line in cells
    ]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]])


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return str(value)


def machine(threads: int) -> dict[str, object]:
    """On what a benchmark was run."""
    model = platform.processor()
    if (cpuinfo := Path("/proc/cpuinfo")).exists():
        named = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        model = named[0].partition(":")[2].strip() if named else model
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


def report(
    options: argparse.Namespace,
    rows: Sequence[Row],
    notes: Sequence[str] = (),
    **more: object,
) -> None:
    """Prints the table and writes it as JSON with the machine, the date and the command.

    Args:
        options: As they were parsed.
        rows: Of the table.
        notes: How the figures were made, where the columns do not say it.
        more: Further figures for the file.
    """
    facts = machine(options.threads)
    result = {
        "benchmark": Path(sys.argv[0]).stem,
        "date": f"{datetime.now().astimezone():%Y-%m-%d %H:%M %z}",
        "command": shlex.join(["python", *sys.argv]),
        "settings": {key: value for key, value in vars(options).items() if key != "out"},
        # Others who compute on the same machine spoil a figure: whoever reads it should see them.
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
