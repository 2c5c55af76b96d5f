"""Locates pretrained weights, which may be bundled, local or downloaded."""

from dataclasses import dataclass
from pathlib import Path

from transfer_model import weight_sources
from transfer_model.architecture import Architecture
from transfer_model.weight_sources import WeightSource, file_sha256_prefix
from transfer_model.weights_path import is_weights_file
from transfer_platform.errors import SourceError
from transfer_platform.progress import Progress, silent
from transfer_platform.sources.checksums import Checksum, cached_sha256
from transfer_platform.sources.download import fetch, find_download


@dataclass(frozen=True)
class PretrainedWeights:
    """The initial weights of a backbone.

    Attributes:
        name: `none`, the name used by the library that published the weights, or the name of the local file.
        path: Weights file; `None` for random initialization.
        sha256: Hexadecimal SHA-256 checksum of the file; `None` for random initialization.
    """

    name: str
    path: Path | None = None
    sha256: str | None = None


def fetch_weights(
    backbone: Architecture | str, weights: str, folder: Path, progress: Progress = silent
) -> PretrainedWeights:
    """Returns the pretrained weights of a backbone, downloading them if necessary.

    This function first searches the platform's cache, then the Hugging Face and torch.hub caches, then the mirrors.

    Args:
        backbone: Name of the backbone in a recipe, or its architecture.
        weights: `default`, `none`, the name of published weights, or the path to a weights file.
        folder: Folder that relative file paths are resolved against.
        progress: Receives the number of bytes downloaded so far.

    Raises:
        WeightsError: The requested weights do not exist for this backbone.
        SourceError: The weights cannot be downloaded.
    """
    local = folder / Path(weights).expanduser()
    is_local = is_weights_file(weights) or local.is_file()
    source = weight_sources.locate_weights(backbone, str(local) if is_local else weights)
    path = source.path or _published_file(source, progress)
    return PretrainedWeights(source.name, path, cached_sha256(path) if path else None)


def _published_file(source: WeightSource, progress: Progress) -> Path | None:
    if source.url is None:
        return None
    if path := find_download(source.url, source.sha256_prefix):
        return path
    damaged = []
    for path in source.cached:
        if not (mismatch := Checksum(file_sha256_prefix(path.name) or "").mismatch(path)):
            return path
        damaged.append(f"\n{path} was not used: {mismatch}; delete it")
    try:
        return fetch(
            source.url,
            hash_prefix=source.sha256_prefix,
            progress=progress,
            endpoint=source.endpoint,
            offline=source.offline,
        )
    except SourceError as error:
        raise SourceError(f"{error}{''.join(damaged)}") from error
