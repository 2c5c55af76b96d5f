"""What the cache folder holds, and how to empty it: all of it can be fetched or computed again."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from stat import S_ISREG

from rich import box
from rich.console import Group, RenderableType
from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from transfer_platform import paths
from transfer_platform.tensor_store import clear

DESCRIPTIONS = {
    "archives": "data sets, unpacked",
    "digests": "checksums of files that were read",
    "downloads": "data sets and weights, as they were fetched",
    "embedded": "data sets that come with the install, as files",
    "features": "what frozen networks made of images, and decoded images",
    "huggingface": "data sets of Hugging Face, as class folders",
    "measured": "what frozen networks cost on this machine",
    "images": "images that manifests name by URLs, as they were fetched",
    "torchvision": "data sets of torchvision, as class folders",
}


def cache_info() -> RenderableType:
    """Every kind of thing in the cache, with its size and when it last changed."""
    root = paths.cache_folder()
    table = Table(box=box.SIMPLE)
    for column in ("kind", "size", "files", "last change", "what it is"):
        table.add_column(column, justify="right" if column in ("size", "files") else "left")
    for folder in _kinds(root):
        files = _files(folder)
        size = decimal(sum(file.st_size for file in files))
        last = max((file.st_mtime for file in files), default=0.0)
        shown = f"{datetime.fromtimestamp(last):%Y-%m-%d %H:%M}" if files else ""
        table.add_row(folder.name, size, str(len(files)), shown, DESCRIPTIONS.get(folder.name, ""))
    limit = decimal(paths.cache_limit())
    return Group(table, Text(f"{root}; new features are kept up to {limit} ({paths.LIMIT_VARIABLE})"))


def clear_cache(*, everything: bool = False) -> str:
    """Deletes stored features, or the whole cache; what a running process computes just now stays.

    Args:
        everything: Downloads and unpacked archives too, which no run may need at the time.

    Returns:
        What was deleted, in words.
    """
    cleared = clear(paths.features_folder())
    freed = cleared.bytes
    for folder in _kinds(paths.cache_folder()) if everything else ():
        if folder != paths.features_folder():
            freed += sum(file.st_size for file in _files(folder))
            shutil.rmtree(folder, ignore_errors=True)
    busy = f"; {len(cleared.skipped)} are being computed just now and stay" if cleared.skipped else ""
    return f"{decimal(freed)} freed{busy}"


def _files(folder: Path) -> list[os.stat_result]:
    """Of all files below a folder but those that another process takes away just now."""
    found = []
    for path in folder.rglob("*"):
        with suppress(OSError):
            if S_ISREG((status := path.stat()).st_mode):
                found.append(status)
    return found


def _kinds(root: Path) -> list[Path]:
    return sorted(folder for folder in root.iterdir() if folder.is_dir()) if root.is_dir() else []
