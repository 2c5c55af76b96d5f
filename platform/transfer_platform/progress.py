"""Progress reporting for long operations, with progress bars on a terminal."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, slots=True)
class Step:
    """A progress update for a single operation.

    Attributes:
        task: Name of the operation, such as `downloading photos.zip`; identical in all updates for that operation.
        done: Number of completed units.
        total: Total number of units; `None` if unknown.
        unit: Name of the unit, such as `bytes`, `images` or `epochs`.
        text: Additional information, such as the current loss.
    """

    task: str
    done: int
    total: int | None
    unit: str
    text: str = ""


Progress = Callable[[Step], None]
Say = Callable[[str], None]
"""Called with each message that should stay on the screen."""


def silent(_: Step | str) -> None:
    """Ignores a progress update or a message."""


def once(say: Say) -> Say:
    """Returns a callback that passes each distinct message to `say` only once."""
    printed: set[str] = set()

    def say_once(line: str) -> None:
        if line not in printed:
            printed.add(line)
            say(line)

    return say_once


class Screen:
    """Prints messages and, on a terminal, progress bars to standard error. Removes the progress bars on exit."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TaskID, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bars

        self._console = Console(stderr=True)
        columns = (
            TextColumn("{task.description:<34}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[count]}"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[text]}", markup=False),
        )
        self._bars = Bars(*columns, console=self._console, transient=True, disable=not self._console.is_terminal)
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def say(self, text: str) -> None:
        """Prints a message above the progress bars."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def step(self, step: Step) -> None:
        """Updates an operation's progress bar, or removes the bar once the operation is complete."""
        if step.task not in self._tasks:
            self._tasks[step.task] = self._bars.add_task(step.task, total=step.total, count="", text="")
        task = self._tasks[step.task]
        self._bars.update(task, completed=step.done, total=step.total, count=_count(step), text=step.text)
        if step.done == step.total and step.unit != "epochs":
            self._bars.remove_task(self._tasks.pop(step.task))


def _count(step: Step) -> str:
    if step.unit == "bytes":
        total = "" if step.total is None else f"/{step.total / 1e6:.1f}"
        return f"{step.done / 1e6:.1f}{total} MB"
    return f"{step.done}/{step.total or '?'} {step.unit}"
