"""`platform check`: shows what a run would do; loads torch only for weights files."""

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
from transfer_model.backbones import option_names
from transfer_model.catalog import BackboneInfo
from transfer_model.errors import UnknownBackboneError
from transfer_model.stages import count_through
from transfer_model.weights_path import is_weights_file
from transfer_platform import paths
from transfer_platform.commands._open import backbones, load, open_recipe
from transfer_platform.data.splits import Splits
from transfer_platform.inspection.findings import Severity
from transfer_platform.inspection.report import text_report
from transfer_platform.plurals import counted
from transfer_platform.progress import Progress, silent
from transfer_platform.recipe.ladder import rung_stages
from transfer_platform.recipe.resolve import search_ranges, to_yaml, trial_count
from transfer_platform.recipe.schema import Recipe
from transfer_platform.recipe.search_space import Choice, Range, largest
from transfer_platform.recipe.seeds import confirming_seeds, max_confirmed, max_confirming_trainings
from transfer_platform.training.cost_model import CostKey, load_cost, study_costs
from transfer_platform.training.neighbor_size import MAX_BYTES, neighbor_bytes

T = TypeVar("T")


def describe_plan(
    path: Path, overrides: Sequence[str] = (), progress: Progress = silent, *, timed: bool = False
) -> RenderableType:
    """Returns the plan for a run (recipe, warnings, images, costs and trials) without training, for each variant.

    Args:
        path: Recipe file, or name of a shipped recipe.
        overrides: Overrides such as `training.epochs=3`.
        progress: Called while data is downloaded and read.
        timed: Measure the cost of the frozen layers now, even if it has been measured before.

    Raises:
        TransferError: The recipe cannot be run; `platform run` would raise the same error.
    """
    variants = load(path, overrides)[1].variants or (None,)
    return Group(*(_describe_study(path, overrides, progress, variant, timed=timed) for variant in variants))


def _describe_study(
    path: Path, overrides: Sequence[str], progress: Progress, variant: str | None, *, timed: bool
) -> RenderableType:
    opened = open_recipe(path, overrides, progress, variant=variant)
    recipe, splits = opened.recipe, opened.trainable_splits()
    _require_weights(recipe, len(splits.classes))
    return Group(
        Text("Recipe with all defaults" + (f", variant {variant}" if variant else ""), style="bold"),
        Syntax(to_yaml(recipe), "yaml", background_color="default", word_wrap=True),
        *map(Text, opened.split_notes),
        Text(f"\n{text_report(opened.inspection, (Severity.WARNING,))}\n"),
        _image_table(splits),
        *(_stage_table(recipe, info, len(splits.classes)) for info in backbones(recipe)),
        *_cost_tables(recipe, splits, timed=timed),
        _study_table(recipe, splits),
    )


def _require_weights(recipe: Recipe, classes: int) -> None:
    """Loads weights from the user's own file, as a run does; published weights are neither downloaded nor checked."""
    if not is_weights_file(recipe.backbone.weights):
        return
    from transfer_model.network import NetworkSpec, build_network  # imports torch

    for architecture in recipe.backbone.architectures:
        size = _image_size(recipe, catalog.backbone_info(architecture))
        build_network(NetworkSpec(architecture, classes, 0.0, size), Path(recipe.backbone.weights))


def list_backbones(pattern: str, *, stages: bool = False) -> RenderableType:
    """Returns a table of backbones whose names match a pattern, with parameter counts, image sizes and weights."""
    table = Table(box=box.SIMPLE, title_justify="left")
    table.add_column("backbone", no_wrap=True)
    table.add_column("parameters", justify="right")
    table.add_column("pixels", justify="right")
    table.add_column("weights")
    if stages:
        table.add_column("stages")
    names = catalog.names(pattern)
    if not names:
        raise UnknownBackboneError(f"no backbone matches {pattern!r}{catalog.similar_names(pattern)}")
    for name in names:
        info = catalog.shipped_info(name)
        if info is None:
            table.add_row(name)
            continue
        size = str(info.preprocessing.image_size)
        row = [name, f"{info.parameters:,}", size, ", ".join(info.weights) or "none"]
        table.add_row(*row, *([" ".join(stage.name for stage in info.stages)] if stages else []))
    options = {name: option_names(name) for name in names}
    notes = [f"options of {name}: {', '.join(known)}\n" for name, known in options.items() if known]
    return Group(table, *map(Text, notes), Text(f"{len(names)} backbones match {pattern!r}{_version_note()}"))


def _version_note() -> str:
    """Returns a note if the installed library versions differ from those in the shipped catalog, otherwise ""."""
    listed, installed = catalog.shipped_versions(), catalog.library_versions()
    if listed == installed:
        return ""
    versions = ", ".join(f"{library} {number}" for library, number in listed.items())
    return f"; values are for {versions}; `platform check RECIPE` shows those for the installed versions"


def _image_table(splits: Splits) -> Table:
    table = Table(box=box.SIMPLE, title="Images", title_justify="left", title_style="bold", show_footer=True)
    counts = {role: Counter(image.label for image in images) for role, images in splits.by_name.items()}
    table.add_column("class", footer="all")
    for role, of_class in counts.items():
        table.add_column(role, justify="right", footer=str(of_class.total()))
    for label in splits.classes:
        table.add_row(label, *(str(of_class[label]) for of_class in counts.values()))
    if splits.ignored:
        table.caption = f"{len(splits.ignored)} hidden or system files ignored"
    return table


def _choices(value: T) -> tuple[T, ...]:
    return value.choices if isinstance(value, Choice) else (value,)


def _stage_table(recipe: Recipe, info: BackboneInfo, classes: int) -> Table:
    """Tabulates the trainable parameters of each stage, with one column per value of `freeze_through`."""
    size = _image_size(recipe, info)
    stages = _choices(recipe.backbone.freeze_through)
    title = f"{info.name}, {size} x {size} pixels: trainable parameters"
    table = Table(box=box.SIMPLE, title=title, title_justify="left", title_style="bold", show_footer=True)
    head = 0 if _choices(recipe.head.kind) == ("knn",) else (info.features + 1) * classes
    names = [stage.name for stage in info.stages]
    frozen = {stage: count_through(names, stage) for stage in stages}
    table.add_column("stage", footer="all")
    table.add_column("parameters", justify="right", footer=f"{info.parameters + head:,}")
    for through in stages:
        trainable = sum(stage.parameters for stage in info.stages[frozen[through] :]) + head
        table.add_column(f"frozen through {through}", justify="right", footer=f"{trainable:,}")
    for index, stage in enumerate(info.stages):
        cells = ("frozen" if index < frozen[through] else f"{stage.parameters:,}" for through in stages)
        table.add_row(stage.name, f"{stage.parameters:,}", *cells)
    table.add_row("head (new)", f"{head:,}", *(f"{head:,}" for _ in stages))
    return table


def _image_size(recipe: Recipe, info: BackboneInfo) -> int:
    return recipe.dataset.image_size or info.preprocessing_for(recipe.backbone.weights).image_size


def _cost_tables(recipe: Recipe, splits: Splits, *, timed: bool) -> Iterator[RenderableType]:
    """Yields tables that compare extracting features once with running the frozen layers in every epoch."""
    stages = [stage for stage in _choices(recipe.backbone.freeze_through) if stage != "none"]
    augmented = any(policy != "none" for policy in _choices(recipe.dataset.augmentation))
    views = recipe.features.views if augmented else 1
    if not stages:
        return
    if augmented and views == 1:
        yield Text("Augmentation is off for frozen backbones because features.views is 1.\n", style="bold yellow")
    if views == "unlimited":
        yield Text("The frozen part runs in every epoch because features.views is unlimited.\n")
        return
    for info in backbones(recipe):
        title = f"Frozen part of {info.name}, whole study"
        table = Table(box=box.SIMPLE, title=title, title_justify="left", title_style="bold")
        for column in ("through", "bytes", "extracted once", "in every epoch", "choice"):
            table.add_column(column, justify="left" if column in ("through", "choice") else "right")
        for stage in stages:
            table.add_row(stage, *_cost_cells(recipe, splits, info, stage, views, timed))
        yield table


def _cost_cells(
    recipe: Recipe, splits: Splits, info: BackboneInfo, stage: str, views: int, timed: bool
) -> tuple[str, ...]:
    precision = "float32" if recipe.training.precision == "auto" else recipe.training.precision
    device = _likely_device().partition(":")[0]
    key = CostKey(info.architecture, stage, _image_size(recipe, info), precision, device)
    if timed:
        from transfer_platform.training.profile import estimate_cost

        cost, missing = estimate_cost(key), "in every epoch: the network cannot be partitioned"
    else:
        cost, missing = load_cost(key), "not yet measured on this machine: run `platform check --time`"
    if cost is None:
        return ("", "", "", missing)
    trials = trial_count(recipe) + max_confirming_trainings(recipe)
    costs = study_costs(splits, views, largest(recipe.training.epochs), trials, cost)
    fits = costs.bytes <= paths.cache_limit()
    choice = "stored" if costs.worth_storing and fits else "in every epoch"
    choice += "" if fits else ": cache too small"
    return (decimal(costs.bytes), f"{costs.stored_seconds:,.0f} s", f"{costs.recomputed_seconds:,.0f} s", choice)


def _study_table(recipe: Recipe, splits: Splits) -> Table:
    table = Table(box=box.SIMPLE, title="Study", title_justify="left", title_style="bold", show_header=False)
    trials = trial_count(recipe)
    precision = recipe.training.precision
    text = "auto: the first run on this machine measures which format is fastest" if precision == "auto" else precision
    table.add_row("device", f"{_likely_device()} (set PLATFORM_DEVICE or --device to change it)")
    table.add_row("precision", text)
    table.add_row(*_trials(recipe, trials))
    for info in backbones(recipe) if "knn" in _choices(recipe.head.kind) else ():
        table.add_row("knn head", _neighbor_text(info, len(splits.train)))
    for field, space in search_ranges(recipe).items():
        table.add_row(f"searched: {field}", _as_text(space))
    for info in backbones(recipe):
        for stage, cost in _rungs(recipe, splits, info):
            table.add_row(f"rung: {stage}", cost)
    if further := max_confirming_trainings(recipe):
        seeds = len(confirming_seeds(recipe)) - 1
        best = f"the best {max_confirmed(recipe)} trials with {counted(seeds, 'further seed')} each"
        table.add_row("trained again", f"{best}: up to {counted(further, 'further training')}")
    if recipe.promotion is None:
        table.add_row("promotion", "none: no model is registered")
    else:
        table.add_row("registered as", recipe.promotion.model)
    return table


def _trials(recipe: Recipe, trials: int) -> tuple[str, str]:
    kinds = _choices(recipe.head.kind)
    if "linear" not in kinds:
        return "trials", f"{trials}; heads are solved, without epochs and optimizer"
    solved = ", ".join(kind for kind in kinds if kind != "linear")
    note = f"; {solved}: solved directly, without epochs or an optimizer" if solved else ""
    return "trials x epochs", f"{trials} x {_as_text(recipe.training.epochs)}{note}"


def _rungs(recipe: Recipe, splits: Splits, info: BackboneInfo) -> Iterator[tuple[str, str]]:
    """Yields the last frozen stage and the cost of each rung that would be tried if this backbone is the best."""
    ladder = recipe.search and recipe.search.ladder
    if not ladder:
        return
    frozen = max(_choices(recipe.backbone.freeze_through), key=lambda stage: stage != "none")
    names = [stage.name for stage in info.stages]
    rounds = len(ladder.learning_rates) * ladder.epochs_per_rung
    images, condition = len(splits.train) * max(1, splits.fold_count - 1), ""
    for stage in rung_stages(ladder, info.architecture, frozen):
        trained = sum(each.parameters for each in info.stages[count_through(names, stage) :])
        yield stage, f"trains {trained:,} parameters of {info.name} on {images * rounds:,} images{condition}"
        condition = ", if the rung before it is accepted"


def _neighbor_text(info: BackboneInfo, images: int) -> str:
    size = neighbor_bytes(images, info.features)
    excess = f", more than the {decimal(MAX_BYTES)} allowed: its trials will fail" if size > MAX_BYTES else ""
    return f"stores {info.features:,} features of {info.name} for each of {images:,} images: {decimal(size)}{excess}"


def _as_text(value: object) -> str:
    if isinstance(value, Choice):
        return "one of " + ", ".join(map(str, value.choices))
    if isinstance(value, Range):
        scale = " on a log scale" if value.log else f" in steps of {value.step}" if value.step else ""
        return f"{value.low} to {value.high}{scale}"
    return str(value)


def _likely_device() -> str:
    """Returns the device that torch will most likely use, without importing torch (which takes seconds)."""
    if (chosen := os.environ.get(paths.DEVICE_VARIABLE, "auto")) != "auto":
        return chosen
    if ctypes.util.find_library("cuda") or Path("/proc/driver/nvidia/version").exists():
        return "cuda"
    return "mps" if (platform.system(), platform.machine()) == ("Darwin", "arm64") else "cpu"
