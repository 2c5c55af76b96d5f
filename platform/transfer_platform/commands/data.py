"""What `platform data` does: a preflight, and what a pretrained network has to say of the labels."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from transfer_platform.data.split_layout import with_splits
from transfer_platform.data.splits import Splits
from transfer_platform.errors import DataError, StorageError
from transfer_platform.inspection.label_errors import doubtful_labels, far_from_the_rest, out_of_fold
from transfer_platform.inspection.manifest_diff import difference, read_manifest
from transfer_platform.inspection.preflight import preflight
from transfer_platform.inspection.report import MANIFEST, markdown, page, text
from transfer_platform.inspection.survey import Inspection
from transfer_platform.paths import refuse_unwritable, written_whole
from transfer_platform.progress import Progress, Say, both, silent
from transfer_platform.recipe.load import load
from transfer_platform.recipe.schema import Recipe
from transfer_platform.recipe.shipped import recipe_path

_ENDINGS = (".html", ".htm", ".md")


@dataclass(frozen=True)
class Report:
    """An inspection, ready to be told.

    Attributes:
        inspection: Everything that was found.
    """

    inspection: Inspection

    @property
    def text(self) -> str:
        """For a terminal."""
        return text(self.inspection)

    @property
    def json(self) -> str:
        """For programs: counts by split and class, and every finding."""
        found = self.inspection
        rows = [
            {
                "severity": found.severity(each),
                "kind": each.kind,
                "files": [found.name(path) for path in each.files],
                "detail": each.detail,
            }
            for each in found.findings
        ]
        return json.dumps({"counts": found.counts, "findings": rows, "notes": found.unasked}, indent=2)


def report(
    recipe: Path,
    overrides: Sequence[str] = (),
    *,
    out: Path | None = None,
    features: bool = True,
    device: str = "auto",
    progress: Progress = silent,
    say: Say = silent,
) -> Report:
    """Reads, inspects and reports the data set of a recipe; trains nothing and logs nothing.

    Args:
        recipe: A file, or the name of a shipped recipe.
        overrides: `dataset.split_seed=1`.
        out: Where a page with thumbnails goes; a name that ends in `.md` gets markdown without them.
        features: Also ask the recipe's first backbone, all of it frozen, about labels and outliers.
        device: Where it computes.
        progress: Told how far long steps have come.
        say: Given the lines that are worth keeping.

    Raises:
        PlatformError: The recipe or the data set cannot be had, or `out` cannot be written.
    """
    if out:
        _refuse_ending(out)
        refuse_unwritable(out)
    path = recipe_path(recipe)
    recognised: list[str] = []
    declared = with_splits(load(path, overrides), path.parent, progress, both(say, recognised.append))
    found, splits = preflight(declared.dataset, path.parent, progress)
    found = found.with_recognised(recognised)
    if splits is None:
        found = found.with_more(
            (), ["Labels and outliers were not looked at: the pictures cannot be divided."]
        )
    elif not features:
        found = found.with_more((), ["Labels and outliers were not looked at: --no-features."])
    else:
        found = _asked(found, splits, declared, path.parent, device, progress, say)
    if out:
        told = markdown(found) if out.suffix.lower() == ".md" else page(found, f"Data set of {declared.name}")
        with written_whole(out) as unfinished:
            unfinished.write_text(told, encoding="utf-8")
    return Report(found)


def changes(run_a: str, run_b: str, *, as_json: bool = False) -> str:
    """What changed between the data of two runs.

    Args:
        run_a: An MLflow run's id, or a registered version: `ants-bees/3`, `ants-bees@champion`.
        run_b: Likewise.
        as_json: For programs.

    Raises:
        RegistryError: There is no such run or version.
        DataError: A run has no manifest of its data.
    """
    one, two = (read_manifest(_manifest(run), run) for run in (run_a, run_b))
    found = difference(one, two)
    return json.dumps(found.as_json(), indent=2) if as_json else str(found)


def _refuse_ending(out: Path) -> None:
    """A report never takes the place of a recipe or a table."""
    if out.suffix.lower() not in _ENDINGS and (out.suffix or out.exists()) and not out.is_char_device():
        raise StorageError(
            f"{out} would be a report, so its name must end in {', '.join(_ENDINGS[:-1])} or {_ENDINGS[-1]}"
        )


def _manifest(run: str) -> str:
    from transfer_platform.tracking import text_of
    from transfer_registry.model_uri import run_of

    text = text_of(run_of(run), MANIFEST)
    if text is None:
        raise DataError(f"{run} has no {MANIFEST}: a study's run has one, its trials' have not")
    return text


def _asked(
    found: Inspection,
    splits: Splits,
    recipe: Recipe,
    folder: Path,
    device: str,
    progress: Progress,
    say: Say,
) -> Inspection:
    """What the features of the frozen backbone add; they are kept, for the runs that need the same."""
    from transfer_platform.commands.run import feature_store, find_weights, first_values
    from transfer_platform.training.device import choose_device
    from transfer_platform.training.trial_trainer import Bench

    whole = first_values(recipe)
    frozen = whole.model_copy(
        update={
            "dataset": whole.dataset.model_copy(update={"augmentation": "none"}),
            "backbone": whole.backbone.model_copy(update={"freeze_through": "all"}),
        }
    )
    weights = find_weights(frozen, folder, progress)
    bench = Bench(
        splits,
        {key: each.path for key, each in weights.items()},
        choose_device(device),
        trials=recipe.search.trials if recipe.search else 1,
        epochs=whole.training.epochs,
        store=feature_store(),
        progress=progress,
        say=say,
    )
    bench.precision = bench.fastest_precision(frozen)
    features = bench.untaught(frozen).float().cpu().numpy()
    pictures = splits.teaching
    labels = np.array([splits.classes.index(picture.label) for picture in pictures])
    further = [*far_from_the_rest(pictures, features)]
    if np.bincount(labels).min() < 2:
        return found.with_more(
            further, ["Labels were not looked at: a class has only one picture to learn from."]
        )
    probabilities = out_of_fold(features, labels)
    said = (
        f"Labels and outliers were judged by {frozen.backbone.name} on the {len(pictures)} pictures of train "
        "and validation; test pictures are left to the gate."
    )
    return found.with_more([*doubtful_labels(pictures, splits.classes, probabilities), *further], [said])
