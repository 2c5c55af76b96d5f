"""Recognizes weights files by their path and content."""

import os
import zipfile
from pathlib import Path

import safetensors

from .errors import cause

_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt")
_START = 9
"""Number of leading bytes that identify a format."""
_SHOWN = 24
"""Number of leading bytes shown in the error message for an unknown format."""
_AGAIN = "download or copy it again"


def is_weights_file(weights: str) -> bool:
    """Returns True if `weights` is a path, not a name of published weights such as `IMAGENET1K_V2`."""
    return "/" in weights or os.sep in weights or weights.endswith(_SUFFIXES)


def is_safetensors(path: Path) -> bool:
    """Detects a safetensors file by its content (an 8-byte length, then JSON), because file names are unreliable."""
    with path.open("rb") as file:
        return file.read(_START)[8:] == b"{"


def weights_problem(path: Path) -> str:
    """Returns an error message if a path is not an intact weights file; otherwise, returns an empty string.

    Reads only the first bytes and the table of contents, so damage elsewhere is not detected.
    """
    if path.is_dir():
        files = sorted(each.name for each in path.iterdir() if each.name.endswith(_SUFFIXES))
        return f"{path} is a folder; specify a weights file in it{', such as ' + files[0] if files else ''}"
    if not path.exists():
        return f"the weights file {path} does not exist"
    try:
        return _content_problem(path)
    except OSError as error:
        return f"the weights file {path} cannot be read: {cause(error)}; check its permissions and its disk"


def _content_problem(path: Path) -> str:
    with path.open("rb") as file:
        start = file.read(_SHOWN)
    if not start:
        return f"the weights file {path} is empty; {_AGAIN}"
    if is_safetensors(path):
        return _safetensors_problem(path)
    if start.startswith(b"PK"):
        return _zip_problem(path)
    if start.startswith(b"\x80"):  # a pickle: the format of torch before version 1.6
        return ""
    shown = start.rstrip(b"\0") or start[:1]
    return f"{path} is neither a safetensors nor a torch file: it starts with {str(shown)[1:]}; {_AGAIN}"


def _safetensors_problem(path: Path) -> str:
    try:
        with safetensors.safe_open(path, "np"):
            return ""
    except safetensors.SafetensorError as error:
        return f"{path} is damaged: it starts like a safetensors file, but reading it fails ({cause(error)}); {_AGAIN}"


def _zip_problem(path: Path) -> str:
    if not zipfile.is_zipfile(path):
        return f"{path} is incomplete: it starts like a torch file, but its end is missing; {_AGAIN}"
    try:
        names = zipfile.ZipFile(path).namelist()
    except zipfile.BadZipFile as error:
        return f"{path} is damaged: its list of contents cannot be read ({cause(error)}); {_AGAIN}"
    if any(name.endswith("/data.pkl") for name in names):
        return ""
    return (
        f"{path} is a zip archive that was not written by torch.save: it contains {', '.join(names[:3]) or 'no files'}"
        "; if it contains a weights file, extract that file and specify its path"
    )
