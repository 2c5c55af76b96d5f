"""Where a data set comes from: a folder, an archive, a manifest, the URL of one, or a published name."""

from __future__ import annotations

from pathlib import Path

from transfer_platform.errors import SourceError
from transfer_platform.progress import Progress, silent
from transfer_platform.sources.archives import unpack
from transfer_platform.sources.checksums import cached_sha256
from transfer_platform.sources.embedded import embedded_dataset
from transfer_platform.sources.fetching import fetch
from transfer_platform.sources.huggingface import huggingface_dataset
from transfer_platform.sources.names import EMBEDDED, HUGGINGFACE, NAMED_PREFIXES, TORCHVISION
from transfer_platform.sources.torchvision import torchvision_dataset
from transfer_platform.suggest import did_you_mean


def open_source(source: str, base: Path, sha256: str | None = None, progress: Progress = silent) -> Path:
    """Brings a data set onto this machine.

    Args:
        source: A folder or an archive (zip, tar, tar.gz, tar.bz2, tar.xz), the http(s) URL of an archive,
            `embedded:digits`, `torchvision:NAME` or `huggingface:NAME`.
        base: The folder that relative paths start from, usually the recipe's.
        sha256: Checksum that an archive must have, 64 hexadecimal digits.
        progress: Is told how far fetching, unpacking and writing have come.

    Returns:
        A folder: the given one, or one in the cache, which nobody may write to.

    Raises:
        SourceError: It does not exist, cannot be fetched, has another checksum, or is not safe to unpack.
    """
    if source.startswith(NAMED_PREFIXES):
        _refuse_checksum(source, sha256)
        return _named(source, base, progress)
    if "://" in source:
        return unpack(fetch(source, sha256, progress=progress), sha256, progress)
    path = (base / Path(source).expanduser()).resolve()
    if path.is_dir():
        _refuse_checksum(source, sha256)
        return path
    if path.is_file():
        return unpack(path, sha256, progress)
    raise SourceError(
        f"the source {source!r} is neither a folder nor an archive: {path} does not exist{_nearest(path)}"
    )


def _named(source: str, base: Path, progress: Progress) -> Path:
    if source.startswith(TORCHVISION):
        return torchvision_dataset(source.removeprefix(TORCHVISION), progress)
    if source.startswith(HUGGINGFACE):
        return huggingface_dataset(source.removeprefix(HUGGINGFACE), base, progress)
    return embedded_dataset(source.removeprefix(EMBEDDED))


def open_manifest(source: str, base: Path, sha256: str | None = None, progress: Progress = silent) -> Path:
    """Brings a manifest onto this machine; what it lists stays where it is.

    Args:
        source: A CSV, TSV or Parquet file, or the http(s) URL of one.
        base: The folder that relative paths start from, usually the recipe's.
        sha256: Checksum that it must have, 64 hexadecimal digits.
        progress: Is told how far fetching has come.

    Raises:
        SourceError: It does not exist, cannot be fetched, or has another checksum.
    """
    if "://" in source:
        return fetch(source, sha256, progress=progress)
    path = (base / Path(source).expanduser()).resolve()
    if not path.is_file():
        raise SourceError(f"the manifest {source!r} is not there: {path} does not exist{_nearest(path)}")
    if sha256 is not None and (digest := cached_sha256(path)) != sha256:
        raise SourceError(f"{path} has the sha256 {digest}, but {sha256} was expected; get it anew")
    return path


def _refuse_checksum(source: str, sha256: str | None) -> None:
    if sha256 is not None:
        raise SourceError(
            f"sha256 is the checksum of an archive, but the source {source!r} is none; remove it"
        )


def _nearest(path: Path) -> str:
    if not path.parent.is_dir():
        return f", nor does {path.parent}"
    return did_you_mean(path.name, (sibling.name for sibling in path.parent.iterdir()))
