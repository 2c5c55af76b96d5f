"""How long operations tell how far they are: a callback that gets steps, and a rich bar that draws them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Step:
    """How far one operation has come.

    Attributes:
        task: What is being done, such as `fetching photos.zip`; steps of one operation share it.
        done: Units that are finished.
        total: Units in all, `None` while nobody knows.
        unit: What is counted, `bytes` or `images` or `files`.
    """

    task: str
    done: int
    total: int | None
    unit: str


Progress = Callable[[Step], None]


def silent(step: Step) -> None:
    """Tells nobody."""


@contextmanager
def bars() -> Iterator[Progress]:
    """Draws a bar for each operation on standard error, where that is a terminal.

    Yields:
        The callback to hand to `fetch`, `unpack`, `open_source`, `scan` and `make_splits`.
    """
    from rich.console import Console
    from rich.progress import Progress as Bars
    from rich.progress import TaskID, TimeRemainingColumn

    tasks: dict[str, TaskID] = {}
    with Bars(*Bars.get_default_columns()[:-1], "{task.fields[count]}", TimeRemainingColumn(),
              console=Console(stderr=True)) as drawn:  # fmt: skip

        def draw(step: Step) -> None:
            if step.task not in tasks:
                tasks[step.task] = drawn.add_task(step.task, total=step.total, count="")
            drawn.update(tasks[step.task], completed=step.done, total=step.total, count=_count(step))

        yield draw


def _count(step: Step) -> str:
    if step.unit == "bytes":
        total = "" if step.total is None else f"/{step.total / 1e6:.1f}"
        return f"{step.done / 1e6:.1f}{total} MB"
    return f"{step.done}/{step.total} {step.unit}"
