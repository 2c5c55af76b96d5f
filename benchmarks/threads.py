"""From what size on a training step on stored features gains anything from several threads.

Steps of a linear head (AdamW, 10 classes) on batches of growing size, with one thread and with all of them,
on a machine that is otherwise idle and with one of its cores kept busy by another process. `MIN_PARALLEL_ELEMENTS`
in `transfer_platform.training.device` was read off this table.

    python benchmarks/threads.py
    python benchmarks/threads.py --elements 20000 --steps 5      # a small form
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

from measuring import Row, environment, last_json, parser, report, timed, workplace

BATCH, CLASSES = 32, 10
ELEMENTS = (20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000, 5_000_000)
"""Numbers in a batch; the search on ants and bees has 16 or 32 times 1,280."""
BUSY = "while True: pass"


def main() -> None:
    """Times the steps, or is the process that times them."""
    options = _options()
    if options.worker:
        print(json.dumps(steps(options)))
        return
    with workplace(options.work) as folder:
        alone = _side(options, folder / "alone")
        with _company():
            beside = _side(options, folder / "beside")
    rows = [
        {
            "numbers in a batch": count,
            **_compared("alone", alone, count, options.threads),
            **_compared("beside a busy process", beside, count, options.threads),
        }
        for count in options.elements
    ]
    report(options, rows, [f"milliseconds: the median of {options.steps} steps of batches of {BATCH}"])


def _options() -> Namespace:
    arguments = parser(__doc__, photos=False)
    arguments.add_argument("--elements", type=int, nargs="+", default=ELEMENTS)
    arguments.add_argument("--steps", type=int, default=100)
    arguments.add_argument("--worker", action="store_true", help="used by the benchmark itself")
    return arguments.parse_args()


@contextmanager
def _company() -> Iterator[None]:
    """A process that keeps a core busy."""
    busy = subprocess.Popen([sys.executable, "-c", BUSY])
    try:
        yield
    finally:
        busy.kill()
        busy.wait()


def _side(options: Namespace, folder: Path) -> dict[str, float]:
    """Milliseconds of a step by numbers in a batch and threads."""
    command = [sys.executable, Path(__file__).resolve(), "--worker", "--steps", options.steps]
    command += ["--threads", options.threads, "--elements", *options.elements]
    return last_json(timed(command, folder, environment(options.threads)))


def _compared(name: str, side: dict[str, float], count: int, threads: int) -> Row:
    one, several = side[f"{count} in 1"], side[f"{count} in {threads}"]
    return {
        f"{name}: 1 thread, ms": one,
        f"{name}: {threads} threads, ms": several,
        f"{name}: ratio": one / several,
    }


def steps(options: Namespace) -> dict[str, float]:
    """Milliseconds of a step: forward, backward, AdamW."""
    import statistics

    import torch
    from torch import nn
    from torch.nn import functional

    found = {}
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
            found[f"{count} in {threads}"] = statistics.median(seconds[5:]) * 1000
    return found


if __name__ == "__main__":
    main()
