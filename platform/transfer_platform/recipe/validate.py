"""Cross-field checks, and checks of files and names referenced by a recipe."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

from transfer_model.architecture import Architecture, Options
from transfer_model.errors import BackboneOptionError, ModelError, UnknownStageError
from transfer_model.stages import count_through
from transfer_model.weights_path import is_weights_file, weights_problem
from transfer_platform.recipe.compose import absolute, is_local
from transfer_platform.recipe.error_messages import FieldError
from transfer_platform.recipe.fields import field_names, is_section, value_fields
from transfer_platform.recipe.label_map import label_problems, pretrained_labels
from transfer_platform.recipe.phase_checks import phase_errors, phase_stage_errors
from transfer_platform.recipe.schema import EMBEDDED_DATASETS
from transfer_platform.recipe.valid_fields import ValidFields
from transfer_platform.recipe.yaml_tree import format_path
from transfer_platform.sources.names import NAMED_PREFIXES, huggingface_source, torchvision_problem
from transfer_platform.suggest import closest_match, did_you_mean

if TYPE_CHECKING:
    from transfer_model.catalog import BackboneInfo
    from transfer_platform.recipe.yaml_tree import FieldPath

_SOURCE = ("dataset", "source")
_SPLITS = ("dataset", "splits")
_SHA256 = ("dataset", "sha256")
_WEIGHTS = ("backbone", "weights")
_LABEL_MAP = ("head", "label_map")
_GATE = ("promotion", "gate")
_CONFIRM = ("search", "confirm")
_UNBOUNDED_METRICS = ("test/loss", "served/latency_ms", "served/size_mb")
_GRADIENT_DESCENT = {
    ("head", "dropout"),
    *(path for path in value_fields() if path[0] == "training" and path[1] not in ("class_weights", "label_smoothing")),
}
"""Fields that have no effect on a solved head."""
_EXAMPLE_RANGE = "training.learning_rate: {low: 1e-4, high: 1e-2, log: true}"


def consistency_errors(fields: ValidFields) -> Iterator[FieldError]:
    """Yields an error for each contradiction between valid fields."""
    yield from _search_errors(fields)
    yield from _confirm_errors(fields)
    yield from _overlapping_folders(fields)
    yield from _oversized_fractions(fields)
    yield from _long_warmups(fields)
    yield from _impossible_thresholds(fields)
    yield from _solved_head_errors(fields)
    yield from phase_errors(fields)


def reference_errors(fields: ValidFields, folder: Path) -> Iterator[FieldError]:
    """Yields errors for nonexistent data, weights, backbones and stages, without downloading anything.

    Relative paths are resolved against `folder`, which contains the recipe.
    """
    if source := fields.get("dataset.source"):
        yield from _source_errors(source, folder)
        if fields.get("dataset.sha256") and _has_no_checksum(source, folder):
            yield FieldError(_SHA256, "only an archive or a manifest can have a checksum; remove this field")
    if (weights := fields.get("backbone.weights")) and is_weights_file(weights):
        yield from _weights_file_errors(weights, folder)
    yield from _backbone_errors(fields)


def _search_errors(fields: ValidFields) -> Iterator[FieldError]:
    ranges, trials = fields.ranges(), fields.get("search.trials")
    if ranges and not fields.is_set(("search",)):
        first, *others = ranges
        also = f" (and do the same for {', '.join(map(format_path, others))})" if others else ""
        fix = f"add one, such as search: {{trials: 20}}, or replace the range with a value{also}"
        yield FieldError(first, f"a range requires a search section; {fix}")
    elif trials and trials > 1 and not ranges:
        message = f"all {trials} trials would be identical because no field has a range"
        yield FieldError(("search", "trials"), f"{message}; add a range, such as {_EXAMPLE_RANGE}, or set trials: 1")


def _confirm_errors(fields: ValidFields) -> Iterator[FieldError]:
    if not fields.is_set(_CONFIRM):
        return
    # without ranges, more than one trial is an error of its own
    spaces = [set(fields.possible_values(format_path(path)).values()) for path in fields.ranges()]
    if fields.get("search.trials") == 1 or (spaces and all(len(values) == 1 for values in spaces)):
        fix = f"remove it, or search over at least two trials, for example with {_EXAMPLE_RANGE}"
        yield FieldError(_CONFIRM, f"has no effect, because the search has only one trial; {fix}")
    elif reason := _seed_independence(fields):
        yield FieldError(_CONFIRM, f"has no effect, because no trial depends on the seed: {reason}")


def _seed_independence(fields: ValidFields) -> str:
    """Returns why all trials have the same result for every seed, with a remedy; empty if one depends on the seed."""
    kinds = [*fields.possible_values("head.kind").values()]
    epochs = [*fields.possible_values("training.epochs").values()]
    if not kinds or not epochs or fields.get("backbone.weights") in (None, "none"):
        return ""
    if "linear" not in kinds:
        return f"head.kind: {kinds[0]} is solved, not trained; remove confirm, or use head.kind: linear"
    if max(epochs) == 0 and fields.get("head.label_map"):
        return "training.epochs is 0; remove confirm, or set training.epochs to at least 1"
    return ""


def _overlapping_folders(fields: ValidFields) -> Iterator[FieldError]:
    values = {name: fields.get(f"dataset.splits.{name}") for name in ("train", "validation", "test")}
    folders = {name: posixpath.normpath(value) for name, value in values.items() if isinstance(value, str)}
    for name, folder in folders.items():
        if folder.startswith(("..", "/")):
            yield FieldError((*_SPLITS, name), f"must be a folder inside the source, but got {folder}")
    for (one, first), (other, second) in combinations(folders.items(), 2):
        if _is_inside(first, second) or _is_inside(second, first):
            relation = "is the same folder as" if first == second else "overlaps"
            fix = "use another folder or a fraction such as 0.2"
            yield FieldError((*_SPLITS, other), f"{second} {relation} {one} ({first}); {fix}")


def _is_inside(folder: str, outer: str) -> bool:
    return outer == "." or folder == outer or folder.startswith(f"{outer}/")


def _oversized_fractions(fields: ValidFields) -> Iterator[FieldError]:
    values = [fields.get(f"dataset.splits.{name}") for name in ("validation", "test")]
    fractions = [value for value in values if isinstance(value, int | float)]
    if sum(fractions) >= 1:
        total = " + ".join(map(str, fractions))
        message = f"the validation and test fractions ({total}) leave no images for training"
        yield FieldError((*_SPLITS, "validation"), message)


def _long_warmups(fields: ValidFields) -> Iterator[FieldError]:
    epochs = min(fields.possible_values("training.epochs").values(), default=None)
    for path, warmup in fields.possible_values("training.warmup_epochs").items():
        if epochs is not None and warmup > epochs:
            yield FieldError(path, f"the warm-up ({warmup} epochs) is longer than training ({epochs} epochs)")


def _impossible_thresholds(fields: ValidFields) -> Iterator[FieldError]:
    for metric in field_names(_GATE):
        path = (*_GATE, metric)
        if "at_least" not in field_names(path) or not is_section(path):
            continue
        low, high = (fields.get(f"{'.'.join(path)}.{name}") for name in ("at_least", "at_most"))
        if low is not None and high is not None and low > high:
            yield FieldError((*path, "at_least"), f"at_least must not exceed at_most, but got {low} and {high}")
        bounded = metric not in _UNBOUNDED_METRICS
        for name, bound in (("at_least", low), ("at_most", high)):
            if bound is not None and (bound < 0 or (bounded and bound > 1)):
                allowed = "between 0 and 1 (not a percentage)" if bounded else "at least 0"
                yield FieldError((*path, name), f"must be {allowed}, but got {bound}")


def _solved_head_errors(fields: ValidFields) -> Iterator[FieldError]:
    kinds = [*fields.possible_values("head.kind").values()]
    solved = [kind for kind in kinds if kind != "linear"]
    if not solved:
        return
    reason = f"head.kind: {solved[0]} is solved on the features of the whole backbone"
    for path, stage in fields.possible_values("backbone.freeze_through").items():
        if stage != "all":
            yield FieldError(path, f"must be all, not {stage}, because {reason}")
    if fields.get("training.sampling") == "balanced":
        fix = "use class_weights: balanced"
        yield FieldError(("training", "sampling"), f"balanced has no effect, because {reason}; {fix}")
    if fields.get("head.label_map"):
        yield FieldError(_LABEL_MAP, f"has no effect, because {reason}; remove it or use head.kind: linear")
    if len(solved) < len(kinds):
        return
    if fields.get("dataset.augmentation") not in (None, "none") and not fields.is_set(("search", "ladder")):
        message = f"has no effect, because {reason} without augmentation; remove it or use head.kind: linear"
        yield FieldError(("dataset", "augmentation"), message)
    for path in fields.ranges():
        if path in _GRADIENT_DESCENT:
            yield FieldError(path, f"a range has no effect, because {reason}; remove it")


def _source_errors(source: str, folder: Path) -> Iterator[FieldError]:
    scheme, separator, _ = source.partition("://")
    if separator and scheme not in ("http", "https"):
        yield FieldError(_SOURCE, f"only http:// and https:// URLs are supported, but got {scheme}://")
    kind, _, name = source.partition(":")
    if is_local(source):
        yield from _missing_file(_SOURCE, source, folder, "folder, archive or manifest")
    elif kind == "huggingface":
        yield from _huggingface_errors(name, folder)
    elif kind == "torchvision" and (problem := torchvision_problem(name)):
        yield FieldError(_SOURCE, problem)
    elif kind == "embedded" and name not in EMBEDDED_DATASETS:
        expected = f"{', '.join(EMBEDDED_DATASETS)}{did_you_mean(name, EMBEDDED_DATASETS)}"
        yield FieldError(_SOURCE, f"unknown embedded dataset {name!r}; expected {expected}")


def _has_no_checksum(source: str, folder: Path) -> bool:
    return source.startswith(NAMED_PREFIXES) or (is_local(source) and absolute(source, folder).is_dir())


def _huggingface_errors(text: str, folder: Path) -> Iterator[FieldError]:
    try:
        source = huggingface_source(text)
    except ValueError as error:
        yield FieldError(_SOURCE, str(error))
        return
    if source.local:
        yield from _missing_file(_SOURCE, source.name, folder, "folder")


def _missing_file(field: FieldPath, name: str, folder: Path, kind: str) -> Iterator[FieldError]:
    path = absolute(name, folder)
    if path.exists():
        return
    if Path(name).exists():
        hint = "; paths are relative to the recipe's folder, not the current folder"
    elif not path.parent.is_dir():
        hint = f" (the folder {path.parent} does not exist)"
    else:
        candidates = (entry.name for entry in path.parent.iterdir() if entry.suffix != ".yaml")
        similar = closest_match(path.name, candidates)
        hint = f"; did you mean {str(Path(name).parent / similar)!r}?" if similar else ""
    yield FieldError(field, f"no such {kind}: {path}{hint}")


def _weights_file_errors(weights: str, folder: Path) -> Iterator[FieldError]:
    path = absolute(weights, folder)
    if not path.exists():
        yield from _missing_file(_WEIGHTS, weights, folder, "weights file")
    elif problem := weights_problem(path):
        yield FieldError(_WEIGHTS, problem)


def _backbone_errors(fields: ValidFields) -> Iterator[FieldError]:
    from transfer_model.catalog import backbone_info

    backbones, options = [], Options(fields.get("backbone.options"))
    for path, name in fields.possible_values("backbone.name").items():
        try:
            backbones.append(backbone_info(Architecture(name, options)))
        except BackboneOptionError as error:
            yield FieldError(("backbone", "options", *filter(None, [error.option])), str(error))
        except ModelError as error:
            yield FieldError(path, str(error))
    for path, stage in fields.possible_values("backbone.freeze_through").items():
        yield from _stage_errors(path, stage, backbones)
    yield from phase_stage_errors(fields, backbones)
    yield from _label_errors(fields, backbones)
    if (weights := fields.get("backbone.weights")) and not is_weights_file(weights):
        yield from _weights_errors(weights, backbones)


def _label_errors(fields: ValidFields, backbones: Iterable[BackboneInfo]) -> Iterator[FieldError]:
    label_map, weights = fields.get("head.label_map"), fields.get("backbone.weights")
    if not label_map or not weights:
        return
    for backbone in backbones:
        labels = pretrained_labels(backbone.architecture, weights)
        if not labels:
            message = f"no labels are known for {backbone.name} with weights: {weights}"
            yield FieldError(_LABEL_MAP, f"{message}; remove the label map, or use published weights")
            continue
        for position, message in label_problems(label_map, labels):
            yield FieldError((*_LABEL_MAP, *position), f"{backbone.name}: {message}")


def _stage_errors(path: FieldPath, stage: str, backbones: Iterable[BackboneInfo]) -> Iterator[FieldError]:
    for backbone in backbones:
        try:
            count_through([known.name for known in backbone.stages], stage)
        except UnknownStageError as error:
            yield FieldError(path, f"{backbone.name}: {error}")


def _weights_errors(weights: str, backbones: Iterable[BackboneInfo]) -> Iterator[FieldError]:
    for backbone in backbones:
        known = ["none", "default", *backbone.weights] if backbone.weights else ["none"]
        if weights not in known:
            expected = f"Expected {', '.join(known)}, or a .safetensors, .pth or .pt file"
            hint = did_you_mean(weights, known) or "."
            yield FieldError(_WEIGHTS, f"{backbone.name} has no weights {weights!r}{hint} {expected}")
