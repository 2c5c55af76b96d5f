"""Generates a commented first recipe, with values chosen for an inspected dataset."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from transfer_platform.data.split_layout import ResolvedSplits
from transfer_platform.file_problems import printable
from transfer_platform.inspection.inspection import Inspection
from transfer_platform.inspection.report import warning_counts
from transfer_platform.plurals import counted
from transfer_platform.recipe.resolve import yaml_scalar
from transfer_platform.recipe.schema import IMBALANCE_RATIO, FoldsConfig, IntensityRange

MIN_VALIDATION_IMAGES = 400
"""Minimum number of validation images; with fewer, trials are ranked by cross-validation instead."""
MANY_IMAGES = 5000
"""With at least this many training images, only one backbone is used, because features take minutes to extract."""
MANY_LOGITS = 200_000
"""With at least this many logits (images x classes), logistic regression takes minutes and is left out."""
MAX_EXCLUDED = 20
"""Maximum number of unreadable files to exclude by name; if there are more, `on_bad_image: skip` is set instead."""
MAX_LISTED_CLASSES = 12
_COMMENT_COLUMN = 46

Line = tuple[str, str]
"""A line of YAML and its trailing comment; either may be empty."""


@dataclass(frozen=True)
class InspectedDataset:
    """A dataset's inspection results and resolved splits.

    Attributes:
        unusable: `dataset.exclude` patterns for classes and files that a run could not use, each mapped to the reason.
    """

    inspection: Inspection
    splits: ResolvedSplits
    unusable: Mapping[str, str]

    @cached_property
    def training_counts(self) -> Mapping[str, int]:
        """Number of training images per class, including those held out for validation."""
        fraction = isinstance(self.splits.validation, float)
        held_out = self.inspection.counts.get("validation", {}) if fraction else {}
        return Counter(self.inspection.counts["train"]) + Counter(held_out)

    @property
    def test_counts(self) -> Mapping[str, int]:
        """Number of test images per class."""
        return self.inspection.counts.get("test") or self.inspection.counts["train"]

    @property
    def is_imbalanced(self) -> bool:
        """True if the largest class has more than `IMBALANCE_RATIO` times as many images as the smallest."""
        return max(self.training_counts.values()) > IMBALANCE_RATIO * min(self.training_counts.values())

    @property
    def needs_folds(self) -> bool:
        """True if a validation fraction would hold out too few images to rank trials reliably."""
        fraction = self.splits.validation
        images = sum(self.training_counts.values())
        return isinstance(fraction, float) and fraction * images < MIN_VALIDATION_IMAGES

    @property
    def unreadable(self) -> Mapping[str, str]:
        """Names of the unreadable files, each mapped to the reason; empty if they cannot all be listed."""
        inspection = self.inspection
        names = {inspection.name(path): reason for path, reason in inspection.quarantine.items()}
        unambiguous = {inspection.root / name for name in names} == set(inspection.quarantine)
        return names if len(names) <= MAX_EXCLUDED and unambiguous else {}


def render_recipe(dataset: InspectedDataset, name: str, source: str, file_name: str) -> str:
    """Returns the YAML text of a first recipe.

    Args:
        dataset: Inspected dataset.
        name: Name of the study and of the registered model.
        source: Value of `dataset.source`.
        file_name: Name of the recipe file.
    """
    lines = [
        (f"# First recipe. Run: platform run {printable(file_name)}   All fields: docs/recipe.md", ""),
        (f"name: {yaml_scalar(name)}", "study and MLflow experiment"),
        ("", ""),
        *_dataset(dataset, source),
        *_network(dataset),
        *_training(dataset),
        *_search(dataset),
        *_promotion(dataset, name),
    ]
    return "".join(
        f"{text.ljust(_COMMENT_COLUMN)}  # {comment}\n" if comment else f"{text}\n" for text, comment in lines
    )


def summary_lines(dataset: InspectedDataset) -> Iterator[str]:
    """Yields sentences that summarize the dataset for the user."""
    yield f"training and validation: {_classes(dataset.training_counts)}"
    yield from dataset.splits.messages
    if bad := len(dataset.inspection.quarantine):
        yield f"excluded: {counted(bad, 'file')} that cannot be used"
    if dataset.unusable:
        listed = [f"{printable(name)} ({reason})" for name, reason in dataset.unusable.items()]
        more = f" and {len(listed) - MAX_LISTED_CLASSES} more" if len(listed) > MAX_LISTED_CLASSES else ""
        yield f"excluded: {', '.join(listed[:MAX_LISTED_CLASSES])}{more}"
    if warnings := warning_counts(dataset.inspection):
        yield f"{warnings}: see `platform data RECIPE`"


def _dataset(dataset: InspectedDataset, source: str) -> Iterator[Line]:
    classes, splits = dataset.training_counts, dataset.splits
    yield "dataset:", f"{sum(classes.values())} images for training and validation, {_classes(classes)}"
    yield f"  source: {yaml_scalar(source)}", ""
    yield "  splits:", ""
    yield f"    train: {yaml_scalar(splits.train)}", splits.reasons.get("train", "rows of the train split")
    if isinstance(splits.validation, FoldsConfig):
        folds = splits.validation.folds
        yield f"    validation: {{folds: {folds}}}", "cross-validation, since a fraction would hold out too few images"
    else:
        yield f"    validation: {_split_value(splits.validation)}", _reason("validation", splits)
    yield f"    test: {_split_value(splits.test)}", f"{_reason('test', splits)}; used only by the gate"
    for sentence in splits.unused:
        yield f"  # {sentence}", ""
    yield from _bad_files(dataset)
    size = _median_size(dataset)
    if isinstance(intensity := dataset.inspection.intensity, IntensityRange):
        values = f"{{low: {intensity.low:g}, high: {intensity.high:g}}}"
        yield f"  # intensity: {values}", "default: determined from training images with more than 8 bits per pixel"
    yield "  # image_size: 224", f"default: the image size used in pretraining; median size of your images: {size}"
    yield "", ""


def _bad_files(dataset: InspectedDataset) -> Iterator[Line]:
    if excluded := {**dataset.unusable, **dataset.unreadable}:
        yield "  exclude:", "files and classes that cannot be used; repair them or leave them excluded"
        for name, reason in excluded.items():
            yield f"    - {yaml_scalar(name)}", reason
    bad = len(dataset.inspection.quarantine)
    if bad and not dataset.unreadable:
        yield "  on_bad_image: skip", f"{bad} files cannot be used; `platform data` lists them"


def _network(dataset: InspectedDataset) -> Iterator[Line]:
    yield "backbone:", "weights of these networks are installed with the package"
    if sum(dataset.training_counts.values()) < MANY_IMAGES:
        yield "  name: {choices: [efficientnet_lite0, efficientnet_lite1, efficientnet_lite2]}", ""
    else:
        yield ("  name: efficientnet_lite0", "efficientnet_lite2 is more accurate, but takes about twice as long")
    yield "  freeze_through: all", "features are extracted once; to fine-tune, set kind: linear and try blocks.4"
    yield "", ""
    yield "head:", ""
    if sum(dataset.training_counts.values()) * len(dataset.training_counts) < MANY_LOGITS:
        yield "  kind: {choices: [logistic, ridge]}", "solved exactly for many penalties and all folds"
    else:
        yield "  kind: ridge", "solved exactly for many penalties; logistic would take minutes"
    yield "", ""


def _training(dataset: InspectedDataset) -> Iterator[Line]:
    yield "training:", ""
    yield "  precision: float32", "exact features; a faster format saves little time, because they are extracted once"
    if dataset.is_imbalanced:
        (largest, most), *_, (smallest, fewest) = Counter(dataset.training_counts).most_common()
        sizes = f"{printable(largest)} has {most} images, {printable(smallest)} has {fewest}"
        yield "  class_weights: auto", f"{sizes}: all classes are weighted equally"
    yield "", ""


def _search(dataset: InspectedDataset) -> Iterator[Line]:
    yield "search:", ""
    yield "  trials: 20", "at most one trial for each combination of choices"
    if dataset.is_imbalanced:
        yield "  metric: validation/macro_recall", "macro-averaged recall"
    else:
        yield "  metric: validation/loss", "more reliable than accuracy when there are few images"
        yield from _ladder(dataset)
    yield "", ""


def _ladder(dataset: InspectedDataset) -> Iterator[Line]:
    few = isinstance(dataset.splits.validation, FoldsConfig)
    text, comment = "ladder: {epochs_per_rung: 5}", "fine-tunes more and more stages for as long as the loss improves"
    if few:
        yield f"  # {text}", f"{comment}; rarely helps with so few images"
    else:
        yield f"  {text}", f"{comment}; takes much longer than the search"


def _promotion(dataset: InspectedDataset, name: str) -> Iterator[Line]:
    counts = dataset.test_counts
    if dataset.is_imbalanced:
        metric, chance = "macro_recall", 1 / len(counts)
    else:
        metric, chance = "accuracy", max(counts.values()) / sum(counts.values())
    bound = math.ceil(50 * (1 + chance)) / 100
    yield "promotion:", ""
    yield f"  model: {yaml_scalar(name)}", "name of the registered model"
    yield "  gate:", "requirements for becoming champion"
    yield (
        f"    test/{metric}: {{at_least: {bound:.2f}}}",
        f"halfway between chance ({chance:.2f}) and 1; change it to the value you need",
    )
    yield "    over_champion: {confidence: 0.95}", "significantly better than the champion"


def _classes(counts: Mapping[str, int]) -> str:
    """Returns the classes and their image counts as text, so that users can spot folders that are not classes."""
    listed = sorted(counts.items())[:MAX_LISTED_CLASSES]
    names = ", ".join(f"{printable(label)} ({count})" for label, count in listed)
    more = f" and {len(counts) - MAX_LISTED_CLASSES} more" if len(counts) > MAX_LISTED_CLASSES else ""
    return f"{len(counts)} classes: {names}{more}"


def _reason(split: str, splits: ResolvedSplits) -> str:
    return splits.reasons.get(split, "rows of the manifest")


def _split_value(value: object) -> str:
    return yaml_scalar(value) if isinstance(value, str) else str(value)


def _median_size(dataset: InspectedDataset) -> str:
    table = dataset.inspection.statistics
    rows = zip(table["split"], table["quantity"], table["median"], strict=True)
    train = {quantity: median for split, quantity, median in rows if split == "train"}
    return f"{train['width, pixels']:.0f} x {train['height, pixels']:.0f}"
