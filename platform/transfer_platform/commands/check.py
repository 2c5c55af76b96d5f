"""What a run would do, said beforehand: images, stages, trials. Imports no deep-learning library."""

from __future__ import annotations

import ctypes.util
import os
import platform
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from rich import box
from rich.console import Group, RenderableType
from rich.filesize import decimal
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from transfer_model import catalog
from transfer_model.catalog import BackboneInfo
from transfer_model.stages import count_through
from transfer_platform import paths
from transfer_platform.data.split_layout import resolve_recipe_splits
from transfer_platform.data.splits import Splits
from transfer_platform.inspection.preflight import require_valid
from transfer_platform.progress import Progress, silent
from transfer_platform.recipe.load import load_recipe
from transfer_platform.recipe.resolve import search_ranges, to_yaml
from transfer_platform.recipe.schema import Recipe
from transfer_platform.recipe.search_space import Choice, Range, largest
from transfer_platform.recipe.shipped import recipe_path
from transfer_platform.training.cost_model import CostKey, load_cost, study_costs

T = TypeVar("T")


def describe_plan(
    path: Path, overrides: Sequence[str] = (), progress: Progress = silent, *, timed: bool = False
) -> RenderableType:
    """The plan of a recipe; reads its images, fetching them where they are not here yet, and trains nothing.

    Args:
        path: The recipe file, or the name of a shipped recipe.
        overrides: `training.epochs=3`.
        progress: Told how far fetching and reading have come.
        timed: Time the frozen part of each network now, also where that was done before.

    Raises:
        TransferError: What would be in the way of a run.
    """
    path = recipe_path(path)
    said: list[str] = []
    recipe = resolve_recipe_splits(load_recipe(path, overrides), path.parent, progress, said.append)
    _, splits = require_valid(recipe.dataset, path.parent, progress)
    return Group(
        Text("Recipe, every default written out", style="bold"),
        Syntax(to_yaml(recipe), "yaml", background_color="default"),
        *map(Text, said),
        _images(splits),
        *(_backbone(recipe, outline, len(splits.classes)) for outline in _outlines(recipe)),
        *_frozen_part(recipe, splits, timed=timed),
        _study(recipe),
    )


def list_backbones(pattern: str, *, stages: bool = False) -> RenderableType:
    """The backbones whose name matches a pattern, with parameters, image size and weights."""
    table = Table(box=box.SIMPLE, title_justify="left")
    table.add_column("backbone", no_wrap=True)
    table.add_column("parameters", justify="right")
    table.add_column("pixels", justify="right")
    table.add_column("weights")
    if stages:
        table.add_column("stages")
    names = catalog.names(pattern)
    if not names:
        catalog.resolve(pattern)  # names the nearest
    for name in names:
        outline = catalog.shipped_info(name)
        if outline is None:
            table.add_row(name)
            continue
        size = str(outline.preprocessing.image_size)
        row = [name, f"{outline.parameters:,}", size, ", ".join(outline.weights) or "none"]
        table.add_row(*row, *([" ".join(stage.name for stage in outline.stages)] if stages else []))
    return Group(table, Text(f"{len(names)} backbones match {pattern!r}{_of_other_versions()}"))


def _of_other_versions() -> str:
    """What to know of figures that other versions of the libraries gave; asking these takes minutes."""
    listed, installed = catalog.shipped_versions(), catalog.library_versions()
    if listed == installed:
        return ""
    versions = ", ".join(f"{library} {number}" for library, number in listed.items())
    return (
        f"; their figures are those of {versions}, and `platform check` computes those of what is installed"
    )


def _images(splits: Splits) -> Table:
    table = Table(box=box.SIMPLE, title="Images", title_justify="left", title_style="bold", show_footer=True)
    counts = {role: Counter(image.label for image in images) for role, images in splits.by_name.items()}
    table.add_column("class", footer="all")
    for role, of_class in counts.items():
        table.add_column(role, justify="right", footer=str(of_class.total()))
    for label in splits.classes:
        table.add_row(label, *(str(of_class[label]) for of_class in counts.values()))
    if splits.ignored:
        table.caption = f"{len(splits.ignored)} hidden or system files are left out"
    return table


def _outlines(recipe: Recipe) -> Iterator[BackboneInfo]:
    return (catalog.backbone_info(name) for name in _choices(recipe.backbone.name))


def _choices(value: T) -> tuple[T, ...]:
    return value.choices if isinstance(value, Choice) else (value,)


def _backbone(recipe: Recipe, outline: BackboneInfo, classes: int) -> Table:
    """One column for every place where the search may freeze."""
    preprocessing = outline.preprocessing_for(recipe.backbone.weights)
    size = recipe.dataset.image_size or preprocessing.image_size
    places = _choices(recipe.backbone.freeze_through)
    title = f"{outline.name}, {size} x {size} pixels: parameters that learn"
    table = Table(box=box.SIMPLE, title=title, title_justify="left", title_style="bold", show_footer=True)
    head = (outline.features + 1) * classes
    names = [stage.name for stage in outline.stages]
    frozen = {place: count_through(names, place) for place in places}
    table.add_column("stage", footer="all")
    table.add_column("parameters", justify="right", footer=f"{outline.parameters + head:,}")
    for place in places:
        learning = sum(stage.parameters for stage in outline.stages[frozen[place] :]) + head
        table.add_column(f"frozen through {place}", justify="right", footer=f"{learning:,}")
    for index, stage in enumerate(outline.stages):
        learns = ("frozen" if index < frozen[place] else f"{stage.parameters:,}" for place in places)
        table.add_row(stage.name, f"{stage.parameters:,}", *learns)
    table.add_row("head (new)", f"{head:,}", *(f"{head:,}" for _ in places))
    return table


def _frozen_part(recipe: Recipe, splits: Splits, *, timed: bool) -> Iterator[RenderableType]:
    """What it costs to store what the frozen part makes, and what it costs not to."""
    places = [place for place in _choices(recipe.backbone.freeze_through) if place != "none"]
    varied = [policy for policy in _choices(recipe.dataset.augmentation) if policy != "none"]
    views = recipe.features.views if varied else 1
    if not places:
        return
    if varied and views == 1:
        yield Text("Augmentation is off where anything is frozen: features.views is 1\n", style="bold yellow")
    if views == "unlimited":
        yield Text("The frozen part runs in every epoch: features.views is unlimited.\n")
        return
    for outline in _outlines(recipe):
        title = f"The frozen part of {outline.name}, in the whole study"
        table = Table(box=box.SIMPLE, title=title, title_justify="left", title_style="bold")
        for column in ("through", "bytes", "once and stored", "in every epoch", "choice"):
            table.add_column(column, justify="left" if column in ("through", "choice") else "right")
        for place in places:
            table.add_row(place, *_costs_in_words(recipe, splits, outline, place, views, timed))
        yield table


def _costs_in_words(
    recipe: Recipe, splits: Splits, outline: BackboneInfo, place: str, views: int, timed: bool
) -> tuple[str, ...]:
    size = recipe.dataset.image_size or outline.preprocessing_for(recipe.backbone.weights).image_size
    precision = "float32" if recipe.training.precision == "auto" else recipe.training.precision
    subject = CostKey(outline.name, place, size, precision, _likely_device().partition(":")[0])
    if timed:
        from transfer_platform.training.profile import estimate_cost

        measured, unknown = estimate_cost(subject), "in every epoch: it cannot be split"
    else:
        measured, unknown = load_cost(subject), "not timed on this machine yet: platform check --time"
    if measured is None:
        return ("", "", "", unknown)
    trials = recipe.search.trials if recipe.search else 1
    epochs = largest(recipe.training.epochs)
    costs = study_costs(splits, views, epochs, trials, measured)
    fits = costs.bytes <= paths.cache_limit()
    choice = "stored" if costs.worth_storing and fits else "in every epoch" + ("" if fits else ": no room")
    return (
        decimal(costs.bytes),
        f"{costs.stored_seconds:,.0f} s",
        f"{costs.recomputed_seconds:,.0f} s",
        choice,
    )


def _study(recipe: Recipe) -> Table:
    table = Table(box=box.SIMPLE, title="Study", title_justify="left", title_style="bold", show_header=False)
    trials = recipe.search.trials if recipe.search else 1
    precision = recipe.training.precision
    timed = "auto: the fastest, found by timing a step at the start" if precision == "auto" else precision
    table.add_row("device", f"{_likely_device()} (PLATFORM_DEVICE or run --device chooses)")
    table.add_row("precision", timed)
    table.add_row("trials x epochs", f"{trials} x {_spelled(recipe.training.epochs)}")
    for field, span in search_ranges(recipe).items():
        table.add_row(f"searched: {field}", _spelled(span))
    if recipe.promotion is None:
        table.add_row("promotion", "none: nothing is registered")
    else:
        table.add_row("registered as", recipe.promotion.model)
    return table


def _spelled(value: object) -> str:
    if isinstance(value, Choice):
        return "one of " + ", ".join(map(str, value.choices))
    if isinstance(value, Range):
        scale = " on a log scale" if value.log else f" in steps of {value.step}" if value.step else ""
        return f"{value.low} to {value.high}{scale}"
    return str(value)


def _likely_device() -> str:
    """What torch will most likely choose; asking torch itself takes seconds."""
    if (chosen := os.environ.get(paths.DEVICE_VARIABLE, "auto")) != "auto":
        return chosen
    if ctypes.util.find_library("cuda") or Path("/proc/driver/nvidia/version").exists():
        return "cuda"
    return "mps" if (platform.system(), platform.machine()) == ("Darwin", "arm64") else "cpu"
