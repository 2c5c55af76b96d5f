"""What `platform init` does: looks at a data set and writes a first recipe, its reasons as comments."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, replace
from pathlib import Path

from transfer_platform.commands.draft import LEAK, InspectedDataset, render_recipe, summary_lines
from transfer_platform.data.split_layout import ResolvedSplits, resolve_splits
from transfer_platform.errors import DataError
from transfer_platform.file_problems import printable
from transfer_platform.inspection.preflight import preflight
from transfer_platform.progress import Progress, silent
from transfer_platform.recipe.load import load_recipe
from transfer_platform.recipe.schema import HOLDOUT_FRACTION, DatasetConfig, FoldsConfig, SplitsConfig
from transfer_registry.errors import StorageError
from transfer_registry.files import atomic_write, require_writable

FOLDS = 5
SHARES = (HOLDOUT_FRACTION, 0.3, 0.4, 0.5)
"""Of train for test, tried in turn: a class of few images may have none among a smaller share."""

_SUFFIXES = r"(?i)(\.tar)?\.(zip|tar|tgz|tbz2|txz|gz|bz2|xz|csv|tsv|parquet)$"


@dataclass(frozen=True)
class FirstRecipe:
    """A recipe that was written.

    Attributes:
        file: Where.
        told: What to know before it is run, a sentence each.
    """

    file: Path
    told: tuple[str, ...]

    def __str__(self) -> str:
        """What was written, what to know, and what to do next."""
        commands = [
            f"  platform {verb} {shlex.quote(printable(self.file))}" for verb in ("data", "check", "run")
        ]
        return "\n".join([f"{printable(self.file)} is written; its comments say why", *self.told, *commands])


def write_first_recipe(source: str, out: Path | None = None, progress: Progress = silent) -> FirstRecipe:
    """Looks at all images of a data set and writes a recipe for it.

    Args:
        source: As in `dataset.source`; a relative path is relative to the current folder.
        out: The recipe's file; by default named after the source, in the current folder.
        progress: Told how far fetching, unpacking and reading have come.

    Raises:
        StorageError: The file is there already, or cannot be written.
        DataError: The data set cannot be had, or nothing could be trained on it.
    """
    path = Path(source).expanduser().resolve()
    source = str(path) if path.exists() else source
    if printable(source) != source:
        raise DataError(f"{printable(source)} has a name that no recipe can hold; rename it")
    name = _name(source)
    out = out or Path(f"{name}.yaml")
    _refuse_place(out, source)
    seen = _see(source, progress)
    with atomic_write(out) as unfinished:
        unfinished.write_text(render_recipe(seen, name, _from(source, out), out.name), encoding="utf-8")
        load_recipe(unfinished)  # what no recipe may hold is our error, and no file is left behind
    return FirstRecipe(out, tuple(summary_lines(seen)))


def _refuse_place(out: Path, source: str) -> None:
    """Refuses a file that would be in the way, or could not name its source."""
    folder = Path(source)
    if folder.is_absolute() and folder.is_dir() and out.resolve().is_relative_to(folder):
        elsewhere = printable(folder.with_name(f"{folder.name}.yaml"))
        raise StorageError(
            f"{printable(out)} would lie among the images; name another with --out, such as {elsewhere}"
        )
    if ":./" in source and out.resolve().parent != Path.cwd():
        raise StorageError(
            f"{source} is relative to this folder, so the recipe must lie in it: leave out --out"
        )
    if out.exists():
        raise StorageError(f"{printable(out)} is there already; name another file with --out, or remove it")
    require_writable(out)


def _see(source: str, progress: Progress) -> InspectedDataset:
    sides = resolve_splits(DatasetConfig(source=source), Path(), progress)
    for share in SHARES if sides.test == HOLDOUT_FRACTION else [sides.test]:
        seen = _seen(source, replace(sides, test=share), progress)
        if not seen.inspection.by_kind("cannot be split"):
            break
    if any(error.kind != LEAK for error in seen.inspection.errors):
        seen.inspection.raise_errors("a recipe for it could not be run", "no recipe was written")
    if not seen.few_to_rank:
        return seen
    folded = _seen(source, replace(seen.splits, validation=FoldsConfig(folds=FOLDS)), progress)
    return seen if folded.inspection.by_kind("cannot be split") else folded


def _seen(source: str, sides: ResolvedSplits, progress: Progress) -> InspectedDataset:
    splits = SplitsConfig.model_validate(sides.split_specs)
    # Unreadable files shall not hide the rest: the recipe names them.
    found, _ = preflight(DatasetConfig(source=source, splits=splits, on_bad_image="skip"), Path(), progress)
    return InspectedDataset(found, sides)


def _from(source: str, out: Path) -> str:
    """A source as it stands in the recipe: what lies beside or below the file without the way there."""
    path, home = Path(source), out.resolve().parent
    below = path.is_absolute() and path != home and path.is_relative_to(home)
    return path.relative_to(home).as_posix() if below else source


def _name(source: str) -> str:
    """A name for the study, such as `ants-bees` for `~/Photos/Ants & bees.zip`."""
    last = (
        Path(source).name if Path(source).is_absolute() else re.split(r"[/:]", source.partition("?")[0])[-1]
    )
    plain = re.sub(_SUFFIXES, "", last)
    return re.sub(r"[^A-Za-z0-9._]+", "-", plain).strip("-._").lower()[:100] or "photographs"
