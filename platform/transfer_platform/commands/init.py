"""What `platform init` does: looks at a data set and writes a first recipe, its reasons as comments."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, replace
from pathlib import Path

from transfer_platform.commands.draft import LEAK, Seen, draft, told
from transfer_platform.data.split_layout import Recognised, recognised
from transfer_platform.errors import DataError, StorageError
from transfer_platform.file_problems import shown
from transfer_platform.inspection.preflight import preflight
from transfer_platform.paths import refuse_unwritable, written_whole
from transfer_platform.progress import Progress, silent
from transfer_platform.recipe.load import load
from transfer_platform.recipe.schema import HELD_OUT, Dataset, Folds, Splits

FOLDS = 5
SHARES = (HELD_OUT, 0.3, 0.4, 0.5)
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
        commands = [f"  platform {verb} {shlex.quote(shown(self.file))}" for verb in ("data", "check", "run")]
        return "\n".join([f"{shown(self.file)} is written; its comments say why", *self.told, *commands])


def write_first_recipe(source: str, out: Path | None = None, progress: Progress = silent) -> FirstRecipe:
    """Looks at all pictures of a data set and writes a recipe for it.

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
    if shown(source) != source:
        raise DataError(f"{shown(source)} has a name that no recipe can hold; rename it")
    name = _name(source)
    out = out or Path(f"{name}.yaml")
    _refuse_place(out, source)
    seen = _see(source, progress)
    with written_whole(out) as unfinished:
        unfinished.write_text(draft(seen, name, _from(source, out), out.name), encoding="utf-8")
        load(unfinished)  # what no recipe may hold is our error, and no file is left behind
    return FirstRecipe(out, tuple(told(seen)))


def _refuse_place(out: Path, source: str) -> None:
    """Refuses a file that would be in the way, or could not name its source."""
    folder = Path(source)
    if folder.is_absolute() and folder.is_dir() and out.resolve().is_relative_to(folder):
        elsewhere = shown(folder.with_name(f"{folder.name}.yaml"))
        raise StorageError(
            f"{shown(out)} would lie among the pictures; name another with --out, such as {elsewhere}"
        )
    if ":./" in source and out.resolve().parent != Path.cwd():
        raise StorageError(
            f"{source} is relative to this folder, so the recipe must lie in it: leave out --out"
        )
    if out.exists():
        raise StorageError(f"{shown(out)} is there already; name another file with --out, or remove it")
    refuse_unwritable(out)


def _see(source: str, progress: Progress) -> Seen:
    sides = recognised(Dataset(source=source), Path(), progress)
    for share in SHARES if sides.test == HELD_OUT else [sides.test]:
        seen = _seen(source, replace(sides, test=share), progress)
        if not seen.found.of("cannot be split"):
            break
    if any(error.kind != LEAK for error in seen.found.errors):
        seen.found.refuse_errors("a recipe for it could not be run", "no recipe was written")
    if not seen.few_to_rank:
        return seen
    folded = _seen(source, replace(seen.sides, validation=Folds(folds=FOLDS)), progress)
    return seen if folded.found.of("cannot be split") else folded


def _seen(source: str, sides: Recognised, progress: Progress) -> Seen:
    splits = Splits.model_validate(sides.sides)
    # Unreadable files shall not hide the rest: the recipe names them.
    found, _ = preflight(Dataset(source=source, splits=splits, on_bad_image="skip"), Path(), progress)
    return Seen(found, sides)


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
