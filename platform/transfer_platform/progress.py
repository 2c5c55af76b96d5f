"""How long operations tell how far they are, and how that is drawn on a terminal.

Whoever takes a while calls a `Progress` with `Step`s and knows nothing of terminals.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self


@dataclass(frozen=True, slots=True)
class Step:
    """How far one operation has come.

    Attributes:
        task: What is being done, such as `fetching photos.zip`; steps of one operation share it.
        done: Units that are finished.
        total: Units in all, `None` while nobody knows.
        unit: What is counted: `bytes`, `images`, `epochs`, ...
        text: What else is worth seeing, such as the latest loss.
    """

    task: str
    done: int
    total: int | None
    unit: str
    text: str = ""


Progress = Callable[[Step], None]
Say = Callable[[str], None]
"""Takes a line that is worth keeping on the screen."""


def silent(_: Step | str) -> None:
    """Tells nobody."""


def tee(one: Say, other: Say) -> Say:
    """Tells two."""

    def say_both(line: str) -> None:
        one(line)
        other(line)

    return say_both


def once(say: Say) -> Say:
    """Says every line the first time, and not again."""
    said: set[str] = set()

    def say_once(line: str) -> None:
        if line not in said:
            said.add(line)
            say(line)

    return say_once


class Screen:
    """Draws a bar for every operation on standard error, where that is a terminal; lines are always printed.

    A context manager: the bars are gone when it ends, the lines stay.
    """

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
        self._bars = Bars(
            *columns, console=self._console, transient=True, disable=not self._console.is_terminal
        )
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def say(self, text: str) -> None:
        """Prints a line above the bars."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def step(self, step: Step) -> None:
        """Moves the bar of an operation, and removes it where the operation is done."""
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
