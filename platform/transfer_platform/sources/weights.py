"""Pretrained weights as files on this machine: bundled, local, or fetched once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from transfer_model import weight_sources
from transfer_platform.progress import Progress, silent
from transfer_platform.sources.checksums import cached_sha256
from transfer_platform.sources.fetching import fetch


@dataclass(frozen=True)
class PretrainedWeights:
    """The weights that a backbone starts from.

    Attributes:
        name: `none`, the library's name of the weights, or the name of the local file.
        path: The file; None starts from random weights.
        sha256: Of the file, hexadecimal; None with it.
    """

    name: str
    path: Path | None = None
    sha256: str | None = None


def fetch_weights(backbone: str, wanted: str, folder: Path, progress: Progress = silent) -> PretrainedWeights:
    """Finds the weights of a backbone, and fetches them where they are not here yet.

    Args:
        backbone: Its name in the recipe.
        wanted: `default`, `none`, one of its weights by name, or a file.
        folder: What the path of a file is relative to.
        progress: Told how much has been fetched.

    Raises:
        WeightsError: The backbone has no such weights.
        SourceError: They cannot be fetched.
    """
    local = folder / Path(wanted).expanduser()
    source = weight_sources.locate_weights(backbone, str(local) if local.is_file() else wanted)
    path = source.path
    if path is None and source.url is not None:
        path = fetch(source.url, hash_prefix=source.sha256_prefix, progress=progress)
    return PretrainedWeights(source.name, path, cached_sha256(path) if path else None)
