"""`platform cache`: shows or clears the cache, whose contents can be rebuilt."""

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
from transfer_platform.file_problems import printable
from transfer_platform.tensor_store.eviction import clear
from transfer_registry.errors import StorageError

DESCRIPTIONS = {
    "metadata": "file checksums, image statistics, measured costs",
    "archives": "unpacked archives",
    "downloads": "downloaded datasets and weights",
    "embedded": "datasets included in the package, extracted to files",
    "features": "features extracted by frozen networks, and decoded images",
    "huggingface": "Hugging Face datasets, as class folders",
    "images": "images downloaded for manifests",
    "torchvision": "torchvision datasets, as class folders",
}


def cache_info() -> RenderableType:
    """Returns a table of the kinds of cached data, each with its size, file count and last modification time."""
    root = paths.cache_folder()
    table = Table(box=box.SIMPLE)
    for column in ("kind", "size", "files", "last change", "content"):
        table.add_column(column, justify="right" if column in ("size", "files") else "left")
    for folder in _folders(root):
        files = _files(folder)
        size = decimal(sum(file.st_size for file in files))
        last = max((file.st_mtime for file in files), default=0.0)
        changed = f"{datetime.fromtimestamp(last):%Y-%m-%d %H:%M}" if files else ""
        table.add_row(folder.name, size, str(len(files)), changed, DESCRIPTIONS.get(folder.name, ""))
    limit = decimal(paths.cache_limit())
    return Group(table, Text(f"{root}; limit for new features: {limit} ({paths.LIMIT_VARIABLE})"))


def clear_cache(*, everything: bool = False) -> str:
    """Deletes stored features, except those being computed by another process.

    Args:
        everything: Also delete all other cached data, such as downloads. Other processes must not be using this data.

    Returns:
        A sentence that states how much space was freed.

    Raises:
        StorageError: All data is to be deleted, but the cache folder also contains folders that are not part of the
            cache; nothing is deleted then.
    """
    if everything:
        _require_own_folder(paths.cache_folder())
    cleared = clear(paths.features_folder())
    freed = cleared.bytes
    for folder in _folders(paths.cache_folder()) if everything else ():
        if folder != paths.features_folder():
            before = sum(file.st_size for file in _files(folder))
            shutil.rmtree(folder, ignore_errors=True)
            freed += before - sum(file.st_size for file in _files(folder))
    busy = f"; entries not deleted because they are in use: {len(cleared.skipped)}" if cleared.skipped else ""
    return f"{decimal(freed)} freed{busy}"


def _require_own_folder(root: Path) -> None:
    if others := [folder.name for folder in _folders(root) if folder.name not in DESCRIPTIONS]:
        names, variable = ", ".join(map(printable, others[:5])), paths.CACHE_VARIABLE
        raise StorageError(
            f"nothing was deleted, because {root} also contains folders that are not part of the cache: {names}; set "
            f"{variable} to a folder of its own, or delete the cached data by hand: {', '.join(DESCRIPTIONS)}"
        )


def _files(folder: Path) -> list[os.stat_result]:
    """Returns the `stat` result of every file below a folder, ignoring files that are deleted during the scan."""
    found = []
    for path in folder.rglob("*"):
        with suppress(OSError):
            if S_ISREG((status := path.stat()).st_mode):
                found.append(status)
    return found


def _folders(root: Path) -> list[Path]:
    return sorted(path for path in root.iterdir() if path.is_dir()) if root.is_dir() else []
