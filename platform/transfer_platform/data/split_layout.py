"""What a recipe leaves out of `dataset.splits`, recognised in the data set; what it says stands."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from transfer_platform.data.layout import FolderLayout, find_layout, join_names, layout_around, pick_folder
from transfer_platform.data.manifest import is_manifest, read_manifest
from transfer_platform.file_problems import printable
from transfer_platform.progress import Progress, Say, silent
from transfer_platform.recipe.schema import HOLDOUT_FRACTION, DatasetConfig, FoldsConfig, Recipe, SplitsConfig
from transfer_platform.sources.open import open_manifest, open_source

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence
    from pathlib import Path

NOT_LISTED = "a fraction of train, as no row's split is that"
NO_FOLDER = "a fraction of train, as no folder is held out for it"


@dataclass(frozen=True)
class ResolvedSplits:
    """Splits of which none is left out.

    Attributes:
        train: Folder of class folders, relative to the source; of a manifest, `train`.
        validation: Such a folder, a fraction of train, or folds of it; of a manifest its rows: `validation`.
        test: Likewise a folder, a fraction, or `test`.
        reasons: Why, for each of the three that the recipe leaves out and that is not obvious.
        unused: What might have been expected to be read and is not, a sentence each.
    """

    train: str
    validation: float | str | FoldsConfig
    test: float | str
    reasons: Mapping[str, str] = field(default_factory=dict)
    unused: tuple[str, ...] = ()

    @property
    def split_specs(self) -> dict[str, float | str | FoldsConfig]:
        """The three by name."""
        return {"train": self.train, "validation": self.validation, "test": self.test}

    @property
    def messages(self) -> tuple[str, ...]:
        """What was recognised, to be said."""
        found = (
            f"recognised: {role} is {printable(str(self.split_specs[role]))}, {why}"
            for role, why in self.reasons.items()
        )
        return (*found, *self.unused)


def resolve_recipe_splits(
    recipe: Recipe, folder: Path, progress: Progress = silent, say: Say = silent
) -> Recipe:
    """A recipe that spells its splits out, so that a study depends on what they are, not on who wrote them.

    Args:
        recipe: Not changed; one that leaves nothing out is returned as it is.
        folder: What relative paths in it are relative to.
        progress: Told how far fetching and unpacking have come.
        say: Told what was recognised.

    Raises:
        DataError: The data set cannot be had, or does not tell.
    """
    found = resolve_splits(recipe.dataset, folder, progress)
    for line in found.messages:
        say(line)
    spelled = SplitsConfig.model_validate(found.split_specs)
    if spelled == recipe.dataset.splits:
        return recipe
    dataset = recipe.dataset.model_copy(update={"splits": spelled})
    return recipe.model_copy(update={"dataset": dataset})


def resolve_splits(dataset: DatasetConfig, folder: Path, progress: Progress = silent) -> ResolvedSplits:
    """Completes the splits of a data set by what its folders are called, or its manifest lists.

    Args:
        dataset: The section of a recipe.
        folder: What relative paths in it are relative to.
        progress: Told how far fetching and unpacking have come.

    Raises:
        DataError: Something is left out, and the data set cannot be had or does not tell what it is.
    """
    splits = dataset.splits
    if splits.train is not None and splits.validation is not None and splits.test is not None:
        return ResolvedSplits(splits.train, splits.validation, splits.test)
    if is_manifest(dataset.source) and not (folder / dataset.source).is_dir():
        file = open_manifest(dataset.source, folder, dataset.sha256, progress)
        return _of_rows(read_manifest(file, dataset.group_by).roles, splits)
    return resolve_folder_splits(open_source(dataset.source, folder, dataset.sha256, progress), splits)


def resolve_folder_splits(root: Path, splits: SplitsConfig) -> ResolvedSplits:
    """Completes splits by what the folders of a source are called.

    A validation folder without a test folder is the test split: somebody held it out, and the gate needs
    images by which nothing was chosen.

    Args:
        root: The source's folder.
        splits: As they stand in a recipe.

    Raises:
        SplitError: The folders do not tell.
    """
    train, validation, test = splits.train, splits.validation, splits.test
    layout = find_layout(root) if train is None else layout_around(root, train)
    why = dict.fromkeys(splits.model_dump(exclude_none=True), "")
    if train is None:
        train, why["train"] = _train(layout)
    if test is None:
        test, why["test"] = _test(layout, validation)
    if validation is None:
        validation, why["validation"] = _validation(layout, test)
    reasons = {role: why[role] for role in SplitsConfig.model_fields if why[role]}
    used = {side for side in (train, validation, test) if isinstance(side, str)}
    return ResolvedSplits(train, validation, test, reasons, tuple(_unused(layout, used)))


def _of_rows(roles: Sequence[str], splits: SplitsConfig) -> ResolvedSplits:
    """A manifest is taken at its word: its rows for validation are not test."""
    reasons = {
        role: NOT_LISTED
        for role, side in (("validation", splits.validation), ("test", splits.test))
        if side is None and role not in roles
    }
    validation: float | str = "validation" if "validation" in roles else HOLDOUT_FRACTION
    test: float | str = "test" if "test" in roles else HOLDOUT_FRACTION
    return ResolvedSplits(
        "train" if splits.train is None else splits.train,
        validation if splits.validation is None else splits.validation,
        test if splits.test is None else splits.test,
        reasons,
    )


def _train(layout: FolderLayout) -> tuple[str, str]:
    if layout.train in (None, "."):
        return ".", "the source itself"
    named = layout.validation or layout.test
    return str(layout.train), "by its name" if named else "the folder that has class folders"


def _test(layout: FolderLayout, validation: object) -> tuple[str | float, str]:
    if folder := pick_folder("test", _others(layout.test, validation)):
        return folder, "by its name"
    held_out = _others(layout.validation, validation)
    if len(held_out) == 1:
        return held_out[
            0
        ], "the only folder that is held out, and the gate needs one by which nothing was chosen"
    return HOLDOUT_FRACTION, NO_FOLDER


def _validation(layout: FolderLayout, test: object) -> tuple[str | float, str]:
    if folder := pick_folder("validation", _others(layout.validation, test)):
        return folder, "by its name"
    return HOLDOUT_FRACTION, NO_FOLDER


def _others(names: Sequence[str], taken: object) -> list[str]:
    return [name for name in names if name != taken]


def _unused(layout: FolderLayout, used: Collection[str]) -> Iterator[str]:
    if spare := [name for name in (*layout.validation, *layout.test) if name not in used]:
        yield f"not read: {join_names(spare)}, as no split is that folder"
    if others := [name for name in layout.others if name not in used]:
        yield f"not read: {join_names(others)}, as no split is called so"
    for name in layout.unlabelled:
        if layout.train == "." or (layout.train and f"{name}/".startswith(f"{layout.train}/")):
            yield f"read as a class, whatever its name: {printable(name)}; it holds no class folders"
        else:
            yield f"not read: {printable(name)}, as it holds no class folders"
