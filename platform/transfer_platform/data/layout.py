"""How a folder of images is laid out: which of its folders teaches, and which are held out, by their names.

Folders are listed and no file is opened. Links are followed only where they stay inside the source.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from transfer_platform.data.split_names import SPLIT_NAMES, split_for_name
from transfer_platform.errors import SplitError
from transfer_platform.file_problems import printable
from transfer_platform.sources.walk import is_ignored

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

_HELD_OUT = ("validation", "test")
_SHOWN = 3


@dataclass(frozen=True)
class FolderLayout:
    """Which folders of a source play which part; every name is relative to it, with `/` between folders.

    Attributes:
        train: The folder of class folders to learn from, `.` for the source itself; None where nothing in it
            looks like one.
        validation: Folders of class folders with a usual name for it.
        test: Likewise.
        unlabelled: Folders with a usual name that hold no class folders.
        others: Folders beside the one that teaches whose names say nothing.
    """

    train: str | None
    validation: tuple[str, ...] = ()
    test: tuple[str, ...] = ()
    unlabelled: tuple[str, ...] = ()
    others: tuple[str, ...] = ()


def find_layout(root: Path) -> FolderLayout:
    """Looks for a training folder and what is held out beside it, in the source or one folder deeper.

    Args:
        root: The source's folder.

    Raises:
        SplitError: What is there has the usual names, but not in a way that can be read: splits inside of
            class folders, several training folders, or held-out folders without one. The message says what
            to do.
    """
    tree = _Tree(root)
    homes = [home for home in (tree.root, *tree.below(tree.root)) if tree.splits(home)["train"]]
    if homes and (homes[0] == tree.root or len(homes) == 1):
        return _beside(tree, pick_folder("train", tree.splits(homes[0])["train"]), homes[0])
    if homes:
        pick_folder("train", [name for home in homes for name in tree.splits(home)["train"]])
    classes = tree.class_root(tree.root)
    if classes is None:
        return FolderLayout(None, unlabelled=tuple(tree.splits(tree.root)[""]))
    _refuse_without_train(tree, classes)
    _refuse_folders_like_splits(tree, classes)
    return FolderLayout(tree.name(classes), unlabelled=tuple(tree.splits(classes)[""]))


def layout_around(root: Path, train: str) -> FolderLayout:
    """What is held out beside a training folder that somebody has named.

    Args:
        root: The source's folder.
        train: Relative to it; beside `.` there is nothing.
    """
    tree, given = _Tree(root), PurePosixPath(train)
    if given.is_absolute() or ".." in given.parts:
        return FolderLayout(train)
    for home in (tree.root / above for above in given.parents):
        if home.is_dir() and any(tree.splits(home)[role] for role in _HELD_OUT):
            return _beside(tree, train, home)
    return FolderLayout(train)


def pick_folder(role: str, names: Sequence[str]) -> str | None:
    """The folder that plays a part, if there is one; of several the one that is called just like the part.

    Raises:
        SplitError: There are several, and none of them or more than one is called so.
    """
    plain = [name for name in names if role in PurePosixPath(name).parts] if len(names) > 1 else names
    if len(plain) == 1:
        return plain[0]
    if names:
        raise SplitError(
            f"several folders could be dataset.splits.{role}: {join_names(names)}; write which one it is, "
            "or name a folder that holds only one of them as the source"
        )
    return None


def join_names(names: Sequence[str]) -> str:
    """The first few names, for a message."""
    return ", ".join(map(printable, names[:_SHOWN])) + (", ..." if len(names) > _SHOWN else "")


def is_folder(entry: os.DirEntry[str], root: Path) -> bool:
    """Whether an entry is a folder, or a link to one inside the resolved `root`."""
    try:
        return entry.is_dir() and (not entry.is_symlink() or Path(entry.path).resolve().is_relative_to(root))
    except OSError:  # a link in circles
        return False


class _Tree:
    """The folders of a source; each is listed once."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self._listed: dict[Path, list[Path]] = {}

    def name(self, folder: Path) -> str:
        return folder.relative_to(self.root).as_posix()

    def below(self, folder: Path) -> list[Path]:
        """The folders in a folder, sorted, without hidden ones, clutter, and links that leave the source."""
        if folder not in self._listed:
            with os.scandir(folder) as entries:
                names = [entry.name for entry in entries if is_folder(entry, self.root)]
            self._listed[folder] = [folder / name for name in sorted(names) if not is_ignored(name)]
        return self._listed[folder]

    def class_root(self, folder: Path) -> Path | None:
        """The folder with class folders: the given one, or the only one in it where that has several."""
        within = self.below(folder)
        if len(within) == 1 and len(self.below(within[0])) > 1:
            return within[0]
        return folder if within else None

    def splits(self, home: Path) -> dict[str, list[str]]:
        """The folders of class folders with a usual name, by role; `""` has those without class folders."""
        found: dict[str, list[str]] = {role: [] for role in (*SPLIT_NAMES, "")}
        for folder in self.below(home):
            if role := split_for_name(folder.name):
                classes = self.class_root(folder)
                found[role if classes else ""].append(self.name(classes or folder))
        return found


def _beside(tree: _Tree, train: str | None, home: Path) -> FolderLayout:
    splits = tree.splits(home)
    validation, test = (
        tuple(name for name in splits[role] if not PurePosixPath(train or "").is_relative_to(name))
        for role in _HELD_OUT
    )
    return FolderLayout(train, validation, test, tuple(splits[""]), tuple(_others(tree, home)))


def _others(tree: _Tree, home: Path) -> Iterator[str]:
    """Folders beside the one that teaches, and beside the one that these lie in."""
    beside = [folder for folder in tree.below(home) if not split_for_name(folder.name)]
    if home != tree.root:
        beside += [folder for folder in tree.below(tree.root) if folder != home]
    return (tree.name(folder) for folder in beside)


def _refuse_folders_like_splits(tree: _Tree, classes: Path) -> None:
    """`fold1/ants` and `fold2/ants`, or `ants/train` and `bees/train`: classes are not made like that."""
    within = {folder: {each.name for each in tree.below(folder)} for folder in tree.below(classes)}
    shared = set.intersection(*within.values())
    if any(split_for_name(name) == "train" or split_for_name(name) in _HELD_OUT for name in shared):
        raise SplitError(
            f"{classes} has the splits inside of its class folders "
            f"({join_names(_joined(tree, within, shared))}), but class folders must be inside of the splits: "
            "move <class>/train to train/<class>, and likewise what is held out"
        )
    if len(shared) > 1:
        names, same = join_names([tree.name(folder) for folder in within]), join_names(sorted(shared))
        raise SplitError(
            f"{names} in {classes} all hold folders of the same names ({same}), and which of them are "
            "classes cannot be told: write dataset.splits.train, or name one of them as the source"
        )


def _joined(tree: _Tree, within: Collection[Path], shared: Collection[str]) -> list[str]:
    return [
        f"{tree.name(folder)}/{name}" for folder in within for name in sorted(shared) if split_for_name(name)
    ]


def _refuse_without_train(tree: _Tree, classes: Path) -> None:
    """Held-out folders, or a training folder without class folders, would pass for classes."""
    splits = tree.splits(classes)
    held_out = [name for role in _HELD_OUT for name in splits[role]]
    if held_out:
        raise SplitError(
            f"{classes} has {join_names(held_out)}, but beside it no folder of class folders with a usual name "
            "for what teaches, such as train; rename that folder, or write dataset.splits.train"
        )
    roles = {split_for_name(PurePosixPath(name).name) for name in splits[""]}
    if "train" in roles and len(roles) > 1:
        raise SplitError(
            f"{join_names(splits[''])} in {classes} hold no class folders; "
            "in each of them put the images of a class into a folder with the class's name"
        )
