"""Uses folder names or manifest rows to infer splits that a recipe does not set."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from transfer_platform.data.split_names import SPLIT_NAMES, split_for_name
from transfer_platform.errors import SplitError
from transfer_platform.file_problems import printable
from transfer_platform.recipe.schema import HOLDOUT_FRACTION, FoldsConfig, SplitsConfig
from transfer_platform.sources.walk import is_ignored

SplitSpec = str | float | FoldsConfig
"""Source of one split: a folder (or manifest rows), a fraction of train, or cross-validation folds of train."""

NOT_LISTED = "held out from train, because no manifest row is assigned to this split"
NO_FOLDER = "held out from train, because there is no folder for this split"

_HELD_OUT = ("validation", "test")
_MAX_LISTED = 3


@dataclass(frozen=True)
class ResolvedSplits:
    """The source of every split.

    Attributes:
        train: Folder that contains the class folders, relative to the source; for a manifest, `train`.
        validation: A folder, a fraction of train, or cross-validation folds; for manifest rows, `validation`.
        test: A folder or a fraction of train; for manifest rows, `test`.
        reasons: Reasons for the inferred splits, keyed by split; obvious choices have no entry.
        unused: Messages about unused folders, and about folders that are used as classes despite their split names.
    """

    train: str
    validation: SplitSpec
    test: str | float
    reasons: Mapping[str, str] = field(default_factory=dict)
    unused: tuple[str, ...] = ()

    @property
    def split_specs(self) -> dict[str, SplitSpec]:
        """The source of each split, keyed by split name."""
        return {"train": self.train, "validation": self.validation, "test": self.test}

    @property
    def messages(self) -> tuple[str, ...]:
        """One message per inferred split, followed by the messages in `unused`."""
        choices = (
            f"dataset.splits.{split}: using {printable(str(self.split_specs[split]))} ({reason})"
            for split, reason in self.reasons.items()
        )
        return (*choices, *self.unused)

    def to_config(self) -> SplitsConfig:
        """Returns a `dataset.splits` section in which every split is set."""
        return SplitsConfig.model_validate(self.split_specs)


def resolve_manifest_splits(listed: Sequence[str], splits: SplitsConfig) -> ResolvedSplits:
    """Fills in the splits that `dataset.splits` does not set, based on the splits in the manifest."""
    specs: dict[str, str | float] = {split: split if split in listed else HOLDOUT_FRACTION for split in _HELD_OUT}
    return ResolvedSplits(
        "train" if splits.train is None else splits.train,
        specs["validation"] if splits.validation is None else splits.validation,
        specs["test"] if splits.test is None else splits.test,
        {split: NOT_LISTED for split in _HELD_OUT if getattr(splits, split) is None and split not in listed},
    )


def resolve_folder_splits(root: Path, splits: SplitsConfig) -> ResolvedSplits:
    """Fills in the splits that `dataset.splits` does not set, based on the folder names in the source.

    If there is a validation folder but no test folder, the validation folder becomes the test split, because promotion
    requires images that were not used for training or selection.

    Raises:
        SplitError: The folder names are ambiguous.
    """
    train, validation, test = splits.train, splits.validation, splits.test
    if train is not None and validation is not None and test is not None:
        return ResolvedSplits(train, validation, test)
    layout = find_layout(root) if train is None else layout_around(root, train)
    reasons: dict[str, str] = {}
    if train is None:
        train, reasons["train"] = _choose_train(layout)
    if test is None:
        test, reasons["test"] = _choose_test(layout, validation)
    if validation is None:
        validation, reasons["validation"] = _choose_validation(layout, test)
    reasons = {split: reasons[split] for split in SplitsConfig.model_fields if split in reasons}
    used = {spec for spec in (train, validation, test) if isinstance(spec, str)}
    return ResolvedSplits(train, validation, test, reasons, tuple(_unused_messages(layout, used)))


def _choose_train(layout: FolderLayout) -> tuple[str, str]:
    if layout.train in (None, "."):
        return ".", "the source itself"
    return str(layout.train), "matched by name" if layout.validation or layout.test else "contains the class folders"


def _choose_test(layout: FolderLayout, validation: object) -> tuple[str | float, str]:
    if folder := pick_folder("test", [name for name in layout.test if name != validation]):
        return folder, "matched by name"
    held_out = [name for name in layout.validation if name != validation]
    if len(held_out) == 1:
        return held_out[0], "the only held-out folder; promotion requires images not used for training or selection"
    return HOLDOUT_FRACTION, NO_FOLDER


def _choose_validation(layout: FolderLayout, test: object) -> tuple[str | float, str]:
    if folder := pick_folder("validation", [name for name in layout.validation if name != test]):
        return folder, "matched by name"
    return HOLDOUT_FRACTION, NO_FOLDER


def _unused_messages(layout: FolderLayout, used: Collection[str]) -> Iterator[str]:
    if unused := [name for name in (*layout.validation, *layout.test) if name not in used]:
        yield f"not used: {join_names(unused)} (not assigned to a split)"
    if others := [name for name in layout.others if name not in used]:
        yield f"not used: {join_names(others)} (not a split name)"
    for name in layout.unlabeled:
        if layout.train == "." or (layout.train and f"{name}/".startswith(f"{layout.train}/")):
            yield f"used as a class despite its name: {printable(name)} (contains no class folders)"
        else:
            yield f"not used: {printable(name)} (contains no class folders)"


@dataclass(frozen=True)
class FolderLayout:
    """Folders of a source, grouped by split. Names are relative to the source and use `/` as the separator.

    Attributes:
        train: Folder that contains the class folders (`.` for the source itself), or None if there is no such folder.
        validation: Folders that contain class folders and have the name of a validation split.
        test: Folders that contain class folders and have the name of a test split.
        unlabeled: Folders that have the name of a split but contain no class folders.
        others: Folders next to the training folder that do not have the name of a split.
    """

    train: str | None
    validation: tuple[str, ...] = ()
    test: tuple[str, ...] = ()
    unlabeled: tuple[str, ...] = ()
    others: tuple[str, ...] = ()


def find_layout(root: Path) -> FolderLayout:
    """Finds the training folder and the held-out folders next to it, in the source or one level deeper.

    Raises:
        SplitError: Splits are inside class folders, or the training folder is ambiguous or missing.
    """
    tree = _FolderTree(root)
    parents = [folder for folder in (tree.root, *tree.subfolders(tree.root)) if tree.splits(folder)["train"]]
    if parents and (parents[0] == tree.root or len(parents) == 1):
        return _layout_beside(tree, pick_folder("train", tree.splits(parents[0])["train"]), parents[0])
    if parents:
        pick_folder("train", [name for parent in parents for name in tree.splits(parent)["train"]])
    classes = tree.class_root(tree.root)
    if classes is None:
        return FolderLayout(None, unlabeled=tuple(tree.splits(tree.root)[""]))
    _require_train_folder(tree, classes)
    _require_class_folders(tree, classes)
    return FolderLayout(tree.name(classes), unlabeled=tuple(tree.splits(classes)[""]))


def layout_around(root: Path, train: str) -> FolderLayout:
    """Finds held-out folders next to a training folder or, if there are none, next to its nearest ancestor with any."""
    tree, path = _FolderTree(root), PurePosixPath(train)
    if path.is_absolute() or ".." in path.parts:
        return FolderLayout(train)
    for parent in (tree.root / name for name in path.parents):
        if parent.is_dir() and any(tree.splits(parent)[split] for split in _HELD_OUT):
            return _layout_beside(tree, train, parent)
    return FolderLayout(train)


def pick_folder(split: str, names: Sequence[str]) -> str | None:
    """Returns the only folder, or the one with the exact split name if there are several, or None if there are none.

    Raises:
        SplitError: There are several folders, and either none or more than one has the exact split name.
    """
    exact = [name for name in names if split in PurePosixPath(name).parts] if len(names) > 1 else names
    if len(exact) == 1:
        return exact[0]
    if names:
        raise SplitError(
            f"dataset.splits.{split} is ambiguous because several folders match: {join_names(names)}; set it to one "
            "of these folders, or set dataset.source to a folder that contains only one of them"
        )
    return None


def join_names(names: Sequence[str]) -> str:
    """Joins the first three names for a message; `...` stands for the others."""
    return ", ".join(map(printable, names[:_MAX_LISTED])) + (", ..." if len(names) > _MAX_LISTED else "")


class _FolderTree:
    """Folder tree of a source. Each folder is read only once; symlinks that point outside the source are ignored."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self._subfolders: dict[Path, list[Path]] = {}

    def name(self, folder: Path) -> str:
        return folder.relative_to(self.root).as_posix()

    def subfolders(self, folder: Path) -> list[Path]:
        """Sorted subfolders, excluding hidden folders, system folders and symlinks that point outside the source."""
        if folder not in self._subfolders:
            with os.scandir(folder) as entries:
                names = [entry.name for entry in entries if self._is_folder(entry)]
            self._subfolders[folder] = [folder / name for name in sorted(names) if not is_ignored(name)]
        return self._subfolders[folder]

    def class_root(self, folder: Path) -> Path | None:
        """Returns the parent of the class folders (`folder` or its only subfolder), or None if there are none."""
        below = self.subfolders(folder)
        if len(below) == 1 and len(self.subfolders(below[0])) > 1:
            return below[0]
        return folder if below else None

    def splits(self, parent: Path) -> dict[str, list[str]]:
        """Folders in `parent` with the name of a split, keyed by split, or by `""` if they contain no class folders."""
        names: dict[str, list[str]] = {split: [] for split in (*SPLIT_NAMES, "")}
        for folder in self.subfolders(parent):
            if split := split_for_name(folder.name):
                classes = self.class_root(folder)
                names[split if classes else ""].append(self.name(classes or folder))
        return names

    def _is_folder(self, entry: os.DirEntry[str]) -> bool:
        try:
            return entry.is_dir() and (not entry.is_symlink() or Path(entry.path).resolve().is_relative_to(self.root))
        except OSError:  # symbolic link loop
            return False


def _layout_beside(tree: _FolderTree, train: str | None, parent: Path) -> FolderLayout:
    splits = tree.splits(parent)
    validation, test = (
        tuple(name for name in splits[split] if not PurePosixPath(train or "").is_relative_to(name))
        for split in _HELD_OUT
    )
    others = [folder for folder in tree.subfolders(parent) if not split_for_name(folder.name)]
    if parent != tree.root:
        others += [folder for folder in tree.subfolders(tree.root) if folder != parent]
    return FolderLayout(train, validation, test, tuple(splits[""]), tuple(map(tree.name, others)))


def _require_class_folders(tree: _FolderTree, classes: Path) -> None:
    """Rejects classes that have the same subfolders (`fold1/ants`, `fold2/ants`) or contain splits (`ants/train`)."""
    subfolders = {folder: {each.name for each in tree.subfolders(folder)} for folder in tree.subfolders(classes)}
    shared = sorted(set.intersection(*subfolders.values()))
    if any(map(split_for_name, shared)):
        names = [f"{tree.name(folder)}/{name}" for folder in subfolders for name in shared if split_for_name(name)]
        raise SplitError(
            f"{classes} contains splits inside class folders ({join_names(names)}), but class folders "
            "must be inside split folders; move <class>/train to train/<class>, and likewise for the other splits"
        )
    if len(shared) > 1:
        raise SplitError(
            f"{join_names([tree.name(folder) for folder in subfolders])} in {classes} all contain subfolders "
            f"with the same names ({join_names(shared)}), so the classes are ambiguous; to use these "
            f"folders as classes, set dataset.splits.train to {tree.name(classes)!r} (`platform init --train`); "
            "otherwise, set dataset.source to one of them"
        )


def _require_train_folder(tree: _FolderTree, classes: Path) -> None:
    """Rejects held-out folders that have no training folder next to them and would therefore be used as classes."""
    splits = tree.splits(classes)
    if held_out := [name for split in _HELD_OUT for name in splits[split]]:
        raise SplitError(
            f"{classes} contains {join_names(held_out)}, but no sibling folder has the name of a training "
            "split (such as train); rename the training folder, or set dataset.splits.train"
        )
    found = {split_for_name(PurePosixPath(name).name) for name in splits[""]}
    if "train" in found and len(found) > 1:
        raise SplitError(
            f"{join_names(splits[''])} in {classes} contain no class folders; in each of them, move the "
            "images of each class into a subfolder named after the class"
        )
