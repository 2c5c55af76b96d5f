"""Pretrained weights as local files: bundled, local, or fetched once."""

from dataclasses import dataclass
from pathlib import Path

from transfer_model import weight_sources
from transfer_platform.progress import Progress, silent
from transfer_platform.sources.checksums import cached_sha256
from transfer_platform.sources.download import fetch


@dataclass(frozen=True)
class PretrainedWeights:
    """The initial weights of a backbone.

    Attributes:
        name: `none`, the name of the weights in their library, or the name of the local file.
        path: `None` for random initialization.
        sha256: Checksum of the file, hexadecimal; `None` for random initialization.
    """

    name: str
    path: Path | None = None
    sha256: str | None = None


def fetch_weights(backbone: str, weights: str, folder: Path, progress: Progress = silent) -> PretrainedWeights:
    """Returns the pretrained weights of a backbone, fetched if necessary.

    Args:
        backbone: Its name in a recipe.
        weights: `default`, `none`, the name of published weights, or a file.
        folder: Folder that the path of a file is relative to.
        progress: Receives the number of fetched bytes.

    Raises:
        WeightsError: The backbone has no such weights.
        SourceError: The weights cannot be fetched.
    """
    local = folder / Path(weights).expanduser()
    source = weight_sources.locate_weights(backbone, str(local) if local.is_file() else weights)
    path = source.path
    if path is None and source.url is not None:
        path = fetch(source.url, hash_prefix=source.sha256_prefix, progress=progress)
    return PretrainedWeights(source.name, path, cached_sha256(path) if path else None)
