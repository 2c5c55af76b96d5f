"""Rules that no single field can keep by itself: ranges and search, splits, schedule, gate."""

from __future__ import annotations

import posixpath
from itertools import combinations
from typing import TYPE_CHECKING

from transfer_platform.recipe.fields import is_section, names
from transfer_platform.recipe.messages import FieldError
from transfer_platform.recipe.tree import format_path

if TYPE_CHECKING:
    from collections.abc import Iterator

    from transfer_platform.recipe.sound import ValidFields
    from transfer_platform.recipe.tree import Path

_SPLITS = ("train", "validation", "test")
_GATE = "promotion.gate"
_UNBOUNDED = ("test/loss", "served/latency_ms", "served/size_mb")


def consistency_errors(said: ValidFields) -> Iterator[FieldError]:
    """Everything in a recipe that contradicts itself, as far as its fields are sound."""
    yield from _ranges_without_search(said)
    yield from _search_without_ranges(said)
    yield from _overlapping_folders(said)
    yield from _fractions_of_everything(said)
    yield from _warmup_without_end(said)
    yield from _gate_that_nothing_passes(said)


def _ranges_without_search(said: ValidFields) -> Iterator[FieldError]:
    if said.is_requested("search") or not said.ranges():
        return
    first, *others = said.ranges()
    also = f" (and for {', '.join(map(format_path, others))})" if others else ""
    remedy = f"add one, such as search: {{trials: 20}}, or write a value here{also}"
    yield FieldError(first, f"a range needs a search: block; {remedy}")


def _search_without_ranges(said: ValidFields) -> Iterator[FieldError]:
    trials = said.get("search.trials")
    if trials and trials > 1 and not said.ranges():
        remedy = (
            "write a range, such as training.learning_rate: {low: 1e-4, high: 1e-2, log: true}, or trials: 1"
        )
        yield FieldError(
            ("search", "trials"), f"{trials} trials would be the same, as nothing varies; {remedy}"
        )


def _overlapping_folders(said: ValidFields) -> Iterator[FieldError]:
    written = {name: said.get(f"dataset.splits.{name}") for name in _SPLITS}
    folders = {
        name: posixpath.normpath(folder) for name, folder in written.items() if isinstance(folder, str)
    }
    for name, folder in folders.items():
        if folder.startswith(("..", "/")):
            yield FieldError(_split(name), f"must be a folder inside the source, but got {folder}")
    for (one, first), (other, second) in combinations(folders.items(), 2):
        if _inside(first, second) or _inside(second, first):
            how = "is the same folder as" if first == second else "overlaps"
            remedy = "name another folder, or a fraction such as 0.2"
            yield FieldError(_split(other), f"{second} {how} {one} ({first}); {remedy}")


def _split(name: str) -> Path:
    return ("dataset", "splits", name)


def _inside(folder: str, outer: str) -> bool:
    return outer == "." or folder == outer or folder.startswith(f"{outer}/")


def _fractions_of_everything(said: ValidFields) -> Iterator[FieldError]:
    shares = [said.get(f"dataset.splits.{name}") for name in ("validation", "test")]
    fractions = [share for share in shares if isinstance(share, int | float)]
    if sum(fractions) >= 1:
        shares_taken = " + ".join(map(str, fractions))
        message = f"validation and test take {shares_taken} of the images and leave none to train on"
        yield FieldError(_split("validation"), message)


def _warmup_without_end(said: ValidFields) -> Iterator[FieldError]:
    warmups, epochs = said.values("training.warmup_epochs"), said.values("training.epochs").values()
    for path, warmup in warmups.items():
        if epochs and warmup > min(epochs):
            yield FieldError(path, f"a warm-up of {warmup} epochs is longer than a training of {min(epochs)}")


def _gate_that_nothing_passes(said: ValidFields) -> Iterator[FieldError]:
    for metric in names(tuple(_GATE.split("."))):
        path = (*_GATE.split("."), metric)
        if "at_least" not in names(path) or not is_section(path):
            continue
        bounds = {name: said.get(f"{_GATE}.{metric}.{name}") for name in ("at_least", "at_most")}
        yield from _impossible_bounds(path, bounds)


def _impossible_bounds(path: tuple[str, ...], bounds: dict[str, float | None]) -> Iterator[FieldError]:
    low, high = bounds["at_least"], bounds["at_most"]
    if low is not None and high is not None and low > high:
        yield FieldError((*path, "at_least"), f"at_least <= at_most must hold, but got {low} and {high}")
    largest = float("inf") if path[-1] in _UNBOUNDED else 1.0
    for name, bound in bounds.items():
        if bound is not None and not 0 <= bound <= largest:
            span = "0 or more" if largest > 1 else "0 to 1, not per cent"
            yield FieldError((*path, name), f"{path[-1]} is {span}, but got {bound}")
