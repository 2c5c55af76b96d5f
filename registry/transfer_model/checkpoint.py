"""Reads the state dicts in a weights file; a separate process reads torch files."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import sysconfig
import tempfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import safetensors
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from . import torch_file_reader
from .errors import WeightsError, cause
from .safe_path import safe_environment
from .weights_path import is_safetensors, weights_problem

_READER = Path(torch_file_reader.__file__)

_FREE_BYTES = 1 << 30
_COPIES = 4
"""Memory limit for reading a torch file, as a multiple of the file size; `_FREE_BYTES` is added to the limit."""

_FREE_SECONDS = 60
_BYTES_PER_SECOND = 10_000_000
"""Time limit for reading a torch file: one second of processor time per this many bytes, plus `_FREE_SECONDS`."""

_MAX_REASON = 300

_REMEMBERED = 4
"""Maximum number of torch files to cache. Caching saves time if several networks use the same weights."""


@dataclass(frozen=True)
class StateDict:
    """Named tensors of a weights file.

    Attributes:
        path: Keys that lead to the state dict within a checkpoint, such as `model_ema`; empty at the top level.
        tensors: Tensors keyed by name, in file order.
        versions: Format version of each module, keyed by module name; None if none were saved.
    """

    path: str
    tensors: OrderedDict[str, Tensor]
    versions: dict[str, int] | None = None


def read_state_dicts(path: Path) -> list[StateDict]:
    """Reads all state dicts of a safetensors or torch file.

    A torch file is read by a separate process with limited memory, because a damaged or malicious file may crash the
    process that reads it. Files that are part of an installed package are as trustworthy as the package's code, so they
    are read directly. Code in a weights file is never executed.

    Raises:
        WeightsError: The file is missing, is not a weights file, has no named tensors, or needs too much memory.
    """
    if problem := weights_problem(path):
        raise WeightsError(problem)
    state_dicts = _reader(path)(path)
    if not state_dicts:
        raise WeightsError(
            f"{path} contains no named tensors; expected a state dict, or a checkpoint in which one is nested "
            f"in at most {torch_file_reader.MAX_DEPTH} mappings"
        )
    return state_dicts


def _reader(path: Path) -> Callable[[Path], list[StateDict]]:
    if is_safetensors(path):
        return _read_safetensors
    packages = {Path(sysconfig.get_path(name)) for name in ("purelib", "platlib")}
    return _read_installed if packages.intersection(path.resolve().parents) else _read_torch_file


def _read_safetensors(path: Path) -> list[StateDict]:
    try:
        tensors = load_file(path)
    except (SafetensorError, ValueError, KeyError) as error:  # for example, a number format that torch does not have
        raise WeightsError(f"{path} cannot be read: {cause(error)}; save its tensors as float32") from error
    return [StateDict("", OrderedDict(tensors))] if tensors else []


def _read_installed(path: Path) -> list[StateDict]:
    found = torch_file_reader.find_state_dicts(torch.load(path, "cpu", weights_only=True))
    return [
        StateDict(name, OrderedDict(tensors), torch_file_reader.versions(tensors)) for name, tensors in found.items()
    ]


def _read_torch_file(path: Path) -> list[StateDict]:
    status = path.stat()
    found = _convert_and_read(path, path.resolve(), (status.st_ino, status.st_size, status.st_mtime_ns))
    return [replace(each, tensors=OrderedDict(each.tensors)) for each in found]


@lru_cache(maxsize=_REMEMBERED)
def _convert_and_read(path: Path, _resolved: Path, _version: tuple[int, int, int]) -> list[StateDict]:
    """Reads a torch file, or returns its cached state dicts if the file has not changed.

    The tensors are memory-mapped from the converted file, so a cached file takes up disk space rather than memory.
    """
    with _temporary_folder(path) as folder:
        target = folder / "tensors.safetensors"
        _convert(path, target)
        tensors = load_file(target)
        with safetensors.safe_open(target, "pt") as file:
            described = json.loads(file.metadata()[torch_file_reader.STATE_DICTS])
    return [
        StateDict(
            name, OrderedDict((key, tensors[number]) for key, number in entry["names"].items()), entry["versions"]
        )
        for name, entry in described.items()
    ]


@contextmanager
def _temporary_folder(path: Path) -> Iterator[Path]:
    try:
        folder = tempfile.TemporaryDirectory()
    except OSError as error:
        raise WeightsError(_unwritable(path, cause(error))) from error
    with folder:
        yield Path(folder.name)


def _unwritable(path: Path, reason: str) -> str:
    return (
        f"{path} was not read, because its tensors cannot be written to a temporary folder: {reason}; set TMPDIR to a "
        f"folder with at least {path.stat().st_size / 1e6:.1f} MB of free space"
    )


def _convert(path: Path, target: Path) -> None:
    size = path.stat().st_size
    limit, seconds = _COPIES * size + _FREE_BYTES, _FREE_SECONDS + size // _BYTES_PER_SECOND
    command = [sys.executable, "-P", "-W", "ignore", str(_READER), str(path.resolve()), str(target)]
    command += [str(limit), str(seconds)]
    environment = safe_environment() | {"OMP_NUM_THREADS": "1", "TORCH_FORCE_WEIGHTS_ONLY_LOAD": "0"}
    done = subprocess.run(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode == torch_file_reader.REFUSED:
        raise WeightsError(
            f"{path} cannot be read as a torch file: {done.stderr.strip()}; expected a state dict or a checkpoint. "
            "Nothing in the file was executed. Download or copy the file again; if you trust it, you can also load it "
            "with torch and save its state dict as safetensors"
        )
    took_too_long = _cause(done.returncode) == "SIGXCPU"
    if done.returncode == torch_file_reader.TOO_LARGE or took_too_long:
        exceeded = f"{seconds} s of processor time" if took_too_long else f"{limit / 1e9:.1f} GB of memory"
        raise WeightsError(
            f"reading {path} takes more than {exceeded}, although the file is only {size / 1e6:.1f} MB; "
            "it may be damaged or malicious: use a file from a source you trust"
        )
    if done.returncode == torch_file_reader.UNWRITABLE:
        raise WeightsError(_unwritable(path, f"{target.parent}: {done.stderr.strip()}"))
    if done.returncode:
        raise WeightsError(
            f"the process that read {path} was terminated by {_cause(done.returncode)}; the file may be damaged or "
            f"malicious, or memory may have run out: use a file from a source you trust{_last_line(done.stderr)}"
        )


def _cause(status: int) -> str:
    if status >= 0:
        return f"exit status {status}"
    try:
        return signal.Signals(-status).name
    except ValueError:
        return f"signal {-status}"


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return f" ({lines[-1][:_MAX_REASON]})" if lines else ""
