"""Opens folders, archives, manifests, URLs and named datasets."""

from pathlib import Path

from transfer_platform.errors import SourceError
from transfer_platform.progress import Progress, silent
from transfer_platform.sources.archives import unpack
from transfer_platform.sources.builtin import embedded_dataset
from transfer_platform.sources.checksums import cached_sha256
from transfer_platform.sources.download import fetch
from transfer_platform.sources.huggingface import huggingface_dataset
from transfer_platform.sources.names import EMBEDDED, HUGGINGFACE, NAMED_PREFIXES, TORCHVISION
from transfer_platform.sources.torchvision import torchvision_dataset
from transfer_platform.suggest import did_you_mean


def open_source(source: str, base: Path, sha256: str | None = None, progress: Progress = silent) -> Path:
    """Returns the folder of a dataset, downloading and unpacking the dataset if necessary.

    Args:
        source: A folder, an archive (zip, tar, tar.gz, tar.bz2, tar.xz), the URL of an archive, `embedded:digits`,
            `torchvision:NAME` or `huggingface:NAME`.
        base: Folder that relative paths are resolved against, usually the recipe's folder.
        sha256: Expected checksum of an archive, 64 hexadecimal digits.
        progress: Receives the progress of downloading, unpacking and writing.

    Returns:
        The source folder itself, or a cache folder that must be treated as read-only.

    Raises:
        SourceError: The source does not exist, cannot be downloaded, does not match `sha256`, or is unsafe to unpack.
    """
    if source.startswith(NAMED_PREFIXES):
        _refuse_checksum(source, sha256)
        return _open_named(source, base, progress)
    if "://" in source:
        return unpack(fetch(source, sha256, progress=progress), sha256, progress)
    path = (base / Path(source).expanduser()).resolve()
    if path.is_dir():
        _refuse_checksum(source, sha256)
        return path
    if path.is_file():
        return unpack(path, sha256, progress)
    raise SourceError(f"the source {source!r} was not found: {path} does not exist{_suggestion(path)}")


def open_manifest(source: str, base: Path, sha256: str | None = None, progress: Progress = silent) -> Path:
    """Returns the path of a CSV, TSV or Parquet manifest; downloads the manifest if necessary, but not its images.

    Raises:
        SourceError: The manifest does not exist, cannot be downloaded, or does not match `sha256`.
    """
    if "://" in source:
        return fetch(source, sha256, progress=progress)
    path = (base / Path(source).expanduser()).resolve()
    if not path.is_file():
        raise SourceError(f"the manifest {source!r} was not found: {path} does not exist{_suggestion(path)}")
    if sha256 is not None and (digest := cached_sha256(path)) != sha256:
        raise SourceError(f"the SHA-256 of {path} is {digest}, expected {sha256}; download the file again")
    return path


def _open_named(source: str, base: Path, progress: Progress) -> Path:
    if source.startswith(TORCHVISION):
        return torchvision_dataset(source.removeprefix(TORCHVISION), progress)
    if source.startswith(HUGGINGFACE):
        return huggingface_dataset(source.removeprefix(HUGGINGFACE), base, progress)
    return embedded_dataset(source.removeprefix(EMBEDDED))


def _refuse_checksum(source: str, sha256: str | None) -> None:
    if sha256 is not None:
        raise SourceError(f"sha256 is only supported for archives, and {source!r} is not an archive; remove sha256")


def _suggestion(path: Path) -> str:
    if not path.parent.is_dir():
        return f", nor does {path.parent}"
    return did_you_mean(path.name, (sibling.name for sibling in path.parent.iterdir()))
