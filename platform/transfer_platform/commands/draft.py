"""The text of a first recipe: what is chosen for a data set that was looked at, and why."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from transfer_platform.data.split_layout import NO_FOLDER, NOT_LISTED, ResolvedSplits
from transfer_platform.file_problems import printable
from transfer_platform.inspection.findings import Severity
from transfer_platform.inspection.inspection import Inspection
from transfer_platform.recipe.resolve import yaml_scalar
from transfer_platform.recipe.schema import HOLDOUT_FRACTION, IMBALANCE_RATIO, FoldsConfig

FEW_TO_RANK = 30
"""Images held out for validation below which trials are ranked by cross-validation instead."""
MANY = 2000
"""Training images from which larger batches are quicker and no worse."""
NAMED = 20
"""Unreadable files that are excluded by name; a list of more would hide the recipe."""
SHOWN_CLASSES = 12
LEAK = "duplicate across splits"

_COMMENTS = 46
"""Column at which comments begin, where a line leaves room for it."""

Line = tuple[str, str]
"""What stands in a line of the recipe, and why; either may be empty."""


@dataclass(frozen=True)
class InspectedDataset:
    """What was seen of a data set.

    Attributes:
        found: In its images.
        sides: Which folders play which part, and why.
    """

    inspection: Inspection
    splits: ResolvedSplits

    @cached_property
    def training_counts(self) -> Mapping[str, int]:
        """How many images each class has to learn from, those included that are held out of them."""
        drawn = isinstance(self.splits.validation, float)
        held_out = self.inspection.counts.get("validation", {}) if drawn else {}
        return Counter(self.inspection.counts["train"]) + Counter(held_out)

    @property
    def test_counts(self) -> Mapping[str, int]:
        """How many images each class has that the gate reads."""
        return self.inspection.counts.get("test") or self.inspection.counts["train"]

    @property
    def is_imbalanced(self) -> bool:
        """Whether a network would do well to favour the larger classes."""
        return max(self.training_counts.values()) > IMBALANCE_RATIO * min(self.training_counts.values())

    @property
    def few_to_rank(self) -> bool:
        """Whether too few images would be held out to rank trials by."""
        share = self.splits.validation
        return isinstance(share, float) and share * sum(self.training_counts.values()) < FEW_TO_RANK

    @property
    def excluded(self) -> Mapping[str, str]:
        """Names of unreadable files that the recipe leaves out, and what is wrong with each."""
        bad = {self.inspection.name(path): why for path, why in self.inspection.quarantine.items()}
        writable = {self.inspection.root / name for name in bad} == set(self.inspection.quarantine)
        return bad if len(bad) <= NAMED and writable else {}


def render_recipe(seen: InspectedDataset, name: str, source: str, file_name: str) -> str:
    """The first recipe for a data set, its reasons as comments.

    Args:
        seen: What was seen of the data set.
        name: Of the study and of the model.
        source: As it shall stand in the recipe.
        file_name: Of the recipe.
    """
    lines = [*_head(name, file_name), *_dataset(seen, source), *_network(), *_study(seen, name)]
    return "".join(map(_set, lines))


def summary_lines(seen: InspectedDataset) -> Iterator[str]:
    """What to know before the recipe is run, a sentence each."""
    yield _classes(seen.training_counts)
    yield from seen.splits.messages
    if bad := len(seen.inspection.quarantine):
        yield f"{bad} file{'s' * (bad > 1)} cannot be read as an image of a class and would be left out"
    if leaks := len(seen.inspection.by_kind(LEAK)):
        yield _leaks(leaks)
    if warnings := seen.inspection.count(Severity.WARNING):
        yield f"{warnings} warning{'s' * (warnings > 1)} about the images: `platform data` shows what"


def _head(name: str, file_name: str) -> Iterator[Line]:
    yield (
        f"# A first recipe. `platform run {printable(file_name)}` runs it; docs/recipe.md has every field.",
        "",
    )
    yield f"name: {yaml_scalar(name)}", "of the study and, in MLflow, of the experiment"
    yield "", ""


def _dataset(seen: InspectedDataset, source: str) -> Iterator[Line]:
    classes, sides = seen.training_counts, seen.splits
    yield "dataset:", f"{sum(classes.values())} images to learn from, {_classes(classes)}"
    yield f"  source: {yaml_scalar(source)}", ""
    yield "  splits:", ""
    yield f"    train: {yaml_scalar(sides.train)}", sides.reasons.get("train", "the rows for train")
    if isinstance(sides.validation, FoldsConfig):
        yield (
            f"    validation: {{folds: {sides.validation.folds}}}",
            "a fifth would be too few to rank trials by; so each image is held out once",
        )
    else:
        yield f"    validation: {_side(sides.validation)}", _why("validation", sides)
    yield f"    test: {_side(sides.test)}", f"{_why('test', sides)}; only the gate reads it"
    for sentence in sides.unused:
        yield f"  # {sentence}", ""
    yield from _bad_files(seen)
    yield "  # image_size: 224", f"what the network is used to, if unset; yours are mostly {_size(seen)}"
    yield "", ""


def _bad_files(seen: InspectedDataset) -> Iterator[Line]:
    if seen.excluded:
        yield "  exclude:", "no readable images; mend them, or leave them out"
        for name, why in seen.excluded.items():
            yield f"    - {yaml_scalar(name)}", why
    elif bad := len(seen.inspection.quarantine):
        yield "  on_bad_image: skip", f"{bad} files are no readable images; `platform data` names them"
    if leaks := len(seen.inspection.by_kind(LEAK)):
        yield f"  # {_leaks(leaks)}", ""


def _network() -> Iterator[Line]:
    yield "backbone:", ""
    yield (
        "  name: efficientnet_lite0",
        "small; its weights come with the install",
    )
    yield "  freeze_through: all", "only the head learns: quick, and hard to overfit; next, try blocks.4"
    yield "", ""
    yield "head:", ""
    yield "  dropout: {low: 0.0, high: 0.5, step: 0.1}", ""
    yield "", ""


def _study(seen: InspectedDataset, name: str) -> Iterator[Line]:
    counts = Counter(seen.training_counts).most_common()
    sizes = f"{printable(counts[0][0])} has {counts[0][1]} images, {printable(counts[-1][0])} {counts[-1][1]}"
    batches = "[64, 128]" if sum(seen.training_counts.values()) >= MANY else "[16, 32]"
    yield "training:", ""
    yield "  epochs: 15", "of the head alone, which costs little: the rest is computed once"
    yield f"  batch_size: {{choices: {batches}}}", ""
    yield "  learning_rate: {low: 1e-4, high: 1e-2, log: true}", "what matters most, so it is searched"
    if seen.is_imbalanced:
        yield "  class_weights: auto", f"{sizes}: each class shall count the same"
    yield "", ""
    yield "search:", ""
    yield "  trials: 20", "raise it later, and the same study goes on"
    metric = "macro_recall" if seen.is_imbalanced else "loss"
    why = (
        "the mean of the classes' recalls"
        if seen.is_imbalanced
        else "ranks better than accuracy on few images"
    )
    yield f"  metric: validation/{metric}", why
    yield "", ""
    share = max(seen.test_counts.values()) / sum(seen.test_counts.values())
    blind = 1 / len(seen.test_counts) if seen.is_imbalanced else share
    measure = "macro_recall" if seen.is_imbalanced else "accuracy"
    yield "promotion:", ""
    yield f"  model: {yaml_scalar(name)}", "the registered model's name"
    yield "  gate:", "what a model must pass to become champion"
    yield (
        f"    test/{measure}: {{at_least: {math.ceil(50 * (1 + blind)) / 100:.2f}}}",
        f"half-way from a blind guess, {blind:.2f}, to 1; set what you need",
    )
    yield "    over_champion: {confidence: 0.95}", "better than the champion by more than chance"


def _classes(counts: Mapping[str, int]) -> str:
    """The names of the classes, so that a folder that is none is seen."""
    names = ", ".join(
        f"{printable(label)} ({count})" for label, count in sorted(counts.items())[:SHOWN_CLASSES]
    )
    more = f" and {len(counts) - SHOWN_CLASSES} more" if len(counts) > SHOWN_CLASSES else ""
    return f"{len(counts)} classes: {names}{more}"


def _leaks(count: int) -> str:
    verb = "image lies" if count == 1 else "images lie"
    return f"{count} {verb} in two splits, and a run refuses that: `platform data` names them"


def _why(role: str, sides: ResolvedSplits) -> str:
    if role == "test" and isinstance(sides.test, float) and sides.test > HOLDOUT_FRACTION:
        return f"{HOLDOUT_FRACTION} of train would leave a class without a test image"
    why = sides.reasons.get(role, "its rows of the manifest")
    return "held out of train, as nothing else is there for it" if why in (NO_FOLDER, NOT_LISTED) else why


def _side(side: object) -> str:
    return yaml_scalar(side) if isinstance(side, str) else str(side)


def _size(seen: InspectedDataset) -> str:
    table = seen.inspection.statistics
    rows = zip(table["split"], table["quantity"], table["median"], strict=True)
    train = {what: median for split, what, median in rows if split == "train"}
    return f"{train['width, pixels']:.0f} x {train['height, pixels']:.0f}"


def _set(line: Line) -> str:
    text, why = line
    return f"{text.ljust(_COMMENTS)}  # {why}\n" if why else f"{text}\n"
