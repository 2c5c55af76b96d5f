"""Batch size from which a training step on stored features gains from several threads.

Measures steps of a linear head (AdamW, 10 classes) on batches of increasing size, with one thread and with
all threads, on an idle machine and while another process occupies one core. `MIN_PARALLEL_ELEMENTS` in
`transfer_platform.training.device` is derived from this table.

    python benchmarks/threads.py
    python benchmarks/threads.py --elements 20000 --steps 5      # smoke test
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness import Row, environment, last_json_line, parser, report, run_process, work_folder

BATCH, CLASSES = 32, 10
ELEMENTS = (20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000, 5_000_000)
"""Elements of a batch; the search on ants and bees has 16 or 32 times 1,280."""
BUSY_LOOP = "while True: pass"


def main() -> None:
    """Measures all sizes; with `--worker`, runs the measured process."""
    options = _options()
    if options.worker:
        print(json.dumps(steps(options)))
        return
    with work_folder(options.work) as folder:
        idle = _measure(options, folder / "idle")
        with _busy_core():
            busy = _measure(options, folder / "busy")
    rows = [
        {
            "elements": count,
            **_columns("idle", idle, count, options.threads),
            **_columns("one core busy", busy, count, options.threads),
        }
        for count in options.elements
    ]
    report(options, rows, [f"median of {options.steps} steps, batch size {BATCH}"])


def _options() -> Namespace:
    arguments = parser(__doc__, photos=False)
    arguments.add_argument("--elements", type=int, nargs="+", default=ELEMENTS)
    arguments.add_argument("--steps", type=int, default=100)
    arguments.add_argument("--worker", action="store_true", help="internal")
    return arguments.parse_args()


@contextmanager
def _busy_core() -> Iterator[None]:
    """Runs a process that occupies one core."""
    busy = subprocess.Popen([sys.executable, "-c", BUSY_LOOP])
    try:
        yield
    finally:
        busy.kill()
        busy.wait()


def _measure(options: Namespace, folder: Path) -> dict[str, float]:
    """Returns the milliseconds per step by elements and threads, measured in a separate process."""
    command = [sys.executable, Path(__file__).resolve(), "--worker", "--steps", options.steps]
    command += ["--threads", options.threads, "--elements", *options.elements]
    return last_json_line(run_process(command, folder, environment(options.threads)))


def _columns(name: str, milliseconds: dict[str, float], count: int, threads: int) -> Row:
    one, several = milliseconds[f"{count} in 1"], milliseconds[f"{count} in {threads}"]
    return {f"{name}: 1 thread, ms": one, f"{name}: {threads} threads, ms": several, f"{name}: speedup": one / several}


def steps(options: Namespace) -> dict[str, float]:
    """Returns the milliseconds per step (forward, backward, AdamW) by elements and threads."""
    import statistics

    import torch
    from torch import nn
    from torch.nn import functional

    milliseconds = {}
    for count in options.elements:
        for threads in (1, options.threads):
            torch.set_num_threads(threads)
            features, labels = torch.randn(BATCH, count // BATCH), torch.randint(CLASSES, (BATCH,))
            head = nn.Linear(count // BATCH, CLASSES)
            optimizer = torch.optim.AdamW(head.parameters())
            seconds = []
            for _ in range(options.steps + 5):
                start = time.perf_counter()
                optimizer.zero_grad()
                functional.cross_entropy(head(features), labels).backward()
                optimizer.step()
                seconds.append(time.perf_counter() - start)
            milliseconds[f"{count} in {threads}"] = statistics.median(seconds[5:]) * 1000
    return milliseconds


if __name__ == "__main__":
    main()
