"""Opens the folder of a model and compares its files with recorded checksums.

`SHA256SUMS` in the folder of the model lists its files, in the format of `sha256sum`. The digest of this list is
stored in a tag of the logged model, so a changed or removed list is also detected. This module does not import torch.
"""

from __future__ import annotations

import hashlib
import json
import re
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml  # type: ignore[import-untyped]  # the library with which MLflow writes `MLmodel`
from mlflow.artifacts import download_artifacts
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.models_artifact_repo import ModelsArtifactRepository
from mlflow.store.artifact.utils.models import get_model_name_and_version
from mlflow.tracking import MlflowClient
from mlflow.utils.file_utils import local_file_uri_to_path
from mlflow.utils.uri import is_local_uri
from safetensors import SafetensorError, safe_open

from transfer_model.errors import cause
from transfer_registry.errors import RegistryError
from transfer_registry.mlflow_registry import is_missing

CHECKSUMS_FILE = "SHA256SUMS"
CHECKSUMS_TAG = "platform.checksums"
"""Logged-model tag that contains the SHA-256 of the model's `SHA256SUMS`."""
CLASSES_KEY = "classes"
"""`MLmodel` metadata key for the class names, in the order of the network's outputs."""
MODEL_FILE = "MLmodel"
ARTIFACT_FOLDER = "artifacts/model"
"""Subfolder for `model.json`, the weights and the reference features of a logged classifier."""
REMEDY = "restore the folder from a backup, or register a new version with `platform run RECIPE --fresh`"

_LINE = re.compile(r"(?P<digest>[0-9a-f]{64})  (?P<name>.+)\n")
_UNLISTED = re.compile(rf"registered_model_meta|(.*/)?(\.[^/]*|README\.md|{CHECKSUMS_FILE}|__pycache__/[^/]*\.pyc)")
"""Files without checksums: hidden files, bytecode, README.md, `SHA256SUMS`, and a file that MLflow adds to downloads.

Hidden links have checksums because they can lead to any folder; bytecode has none because `load_pyfunc` ignores it.
"""


def write_checksums(folder: Path) -> str:
    """Writes `SHA256SUMS` for the files below a folder and returns the SHA-256 of the list."""
    lines = [f"{_sha256(folder / name)}  {name}\n" for name in _names(folder)]
    (folder / CHECKSUMS_FILE).write_text("".join(lines), encoding="utf-8")
    return _sha256(folder / CHECKSUMS_FILE)


def find_damage(folder: Path, recorded: str | None = None) -> list[str]:
    """Returns one clause, such as `MLmodel is missing`, for each damaged file of a model.

    A model without `SHA256SUMS` was logged by another tool or an earlier version of this platform. For such a
    model, only the file formats are checked, and other changes are not detected.

    Args:
        folder: Folder of the MLflow model.
        recorded: Expected SHA-256 of `SHA256SUMS`. If None, `SHA256SUMS` is allowed to be missing.
    """
    checksums = folder / CHECKSUMS_FILE
    if recorded is None and not checksums.exists():
        return list(_find_unreadable(folder))
    damage = list(_find_change(folder, CHECKSUMS_FILE, recorded))
    return damage or list(_find_changes(folder, checksums.read_bytes().decode(errors="replace")))


def local_folder(uri: str, temporary: str | None = None) -> Path:
    """Returns the folder with the files of a model, without checking them.

    Args:
        uri: MLflow URI or path. Files on this machine are used in place, and nothing is written to their folder.
        temporary: Folder for files that must be downloaded; by default, MLflow creates one.

    Raises:
        RegistryError: The folder does not exist, or the files cannot be downloaded.
    """
    try:
        location = uri
        if uri.startswith("models:/"):
            location = str(ModelsArtifactRepository.get_underlying_uri(uri))  # type: ignore[no-untyped-call]
        if not is_local_uri(location):  # type: ignore[no-untyped-call]
            return Path(download_artifacts(artifact_uri=location, dst_path=temporary))
    except Exception as error:  # the clients of artifact stores raise exceptions of their own
        raise RegistryError(f"cannot get the files of {uri}: {cause(error)}") from error
    folder = Path(local_file_uri_to_path(location))  # type: ignore[no-untyped-call]
    if not folder.is_dir():
        raise RegistryError(f"the folder of {uri} is missing: {folder}; {REMEDY}")
    return folder


def recorded_checksums(uri: str) -> str | None:
    """Returns the SHA-256 that was recorded for a model's `SHA256SUMS` in a tag of the logged model.

    A version or alias in the URI is resolved to its logged model. A copied version has the original's logged model.

    Returns:
        The digest; None if none was recorded, the logged model was deleted, or the URI is not a `models:/` URI.

    Raises:
        RegistryError: The tag cannot be read, for example because the tracking server cannot be reached.
    """
    if not uri.startswith("models:/"):
        return None  # a client would create MLflow's database in the current folder
    client, source = MlflowClient(), uri
    try:
        while source.startswith("models:/"):
            model, *version = get_model_name_and_version(client, source)  # type: ignore[no-untyped-call]
            if not version:
                return client.get_logged_model(model).tags.get(CHECKSUMS_TAG)
            source = client.get_model_version(model, version[0]).source or ""
    except MlflowException as error:
        if not is_missing(error):
            raise RegistryError(f"cannot get the recorded checksum of {uri}: {cause(error)}") from error
    return None


def open_folder(uri: str, temporary: str | None = None) -> Path:
    """Returns the folder of a model after checking its files against the recorded checksum.

    See `local_folder`, `recorded_checksums` and `find_damage`.

    Raises:
        RegistryError: The files are missing, cannot be downloaded, or are damaged; the message names all damaged files.
    """
    folder = local_folder(uri, temporary)
    if damage := find_damage(folder, recorded_checksums(uri)):
        raise RegistryError(f"the files of {uri} in {folder} are damaged: {'; '.join(damage)}; {REMEDY}")
    return folder


def read_metadata(uri: str) -> Mapping[str, Any]:
    """Returns the metadata in the `MLmodel` file of a model; raises RegistryError if its files are damaged."""
    with TemporaryDirectory() as temporary:
        content = yaml.safe_load((open_folder(uri, temporary) / MODEL_FILE).read_text(encoding="utf-8"))
    return content.get("metadata") or {}


def classes_of(metadata: Mapping[str, Any] | None, uri: str) -> tuple[str, ...]:
    """Returns the class names in a model's metadata, in output order; raises RegistryError if there are none."""
    classes = (metadata or {}).get(CLASSES_KEY)
    if not classes:
        raise RegistryError(f"{uri} is not a classifier logged by this platform: its metadata has no class names")
    return tuple(classes)


def _find_changes(folder: Path, checksums: str) -> Iterator[str]:
    for line in checksums.splitlines(keepends=True):
        if match := _LINE.fullmatch(line):
            yield from _find_change(folder, match["name"], match["digest"])
        else:
            yield f"{CHECKSUMS_FILE} has an invalid line: {line.strip()[:80]!r}"
    if f"  {MODEL_FILE}\n" not in checksums:
        yield f"{CHECKSUMS_FILE} does not list {MODEL_FILE}"
        return
    listed = {line.partition("  ")[2] for line in checksums.splitlines()}
    for name in _names(folder):
        if name not in listed:  # Python would import an additional module when it loads the model
            yield f"{name} was added after the model was registered, so delete it"


def _names(folder: Path) -> list[str]:
    """Returns the relative paths of all files and links that need a checksum."""
    paths = [path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()]
    return sorted(name for path in paths if _needs_checksum(path, name := path.relative_to(folder).as_posix()))


def _needs_checksum(path: Path, name: str) -> bool:
    return not _UNLISTED.fullmatch(name) or (path.is_symlink() and path.name.startswith("."))


def _find_change(folder: Path, name: str, expected: str | None) -> Iterator[str]:
    """Yields a clause if a file cannot be read or, unless `expected` is None, if its SHA-256 is not `expected`."""
    try:
        if expected not in (None, _sha256(folder / name)):
            yield f"{name} has changed since the model was registered"
    except FileNotFoundError:
        yield f"{name} is missing"
    except OSError as error:
        yield f"{name} cannot be read: {cause(error)}"


def _find_unreadable(folder: Path) -> Iterator[str]:
    names = [MODEL_FILE]
    if (folder / ARTIFACT_FOLDER).is_dir():
        from transfer_model.classifier import FILES  # imports torch

        if any((folder / ARTIFACT_FOLDER / name).exists() for name in FILES):  # otherwise, it is another tool's folder
            names += [f"{ARTIFACT_FOLDER}/{name}" for name in FILES]
    for name in names:
        try:
            _require_format(folder / name)
        except FileNotFoundError:
            yield f"{name} is missing"
        except (OSError, ValueError, yaml.YAMLError, SafetensorError) as error:
            yield f"{name} cannot be read: {cause(error)}"


def _require_format(path: Path) -> None:
    """Checks that a YAML, JSON or safetensors file is valid; for safetensors, checks only the header and file size."""
    _require_regular(path)
    if path.suffix == ".safetensors":
        with safe_open(path, "numpy"):
            return
    text = path.read_text(encoding="utf-8")
    content = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    if not isinstance(content, dict):
        raise ValueError("it contains no fields")


def _require_regular(path: Path) -> None:
    """Raises an OSError for a folder, device or FIFO, because reading a device or FIFO might never end."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError("it is not a regular file")


def _sha256(path: Path) -> str:
    _require_regular(path)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
