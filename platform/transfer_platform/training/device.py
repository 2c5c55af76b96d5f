"""Device selection, limits on CPU threads, and device synchronization."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from transfer_model.errors import cause
from transfer_platform.errors import TrainingError
from transfer_platform.paths import DEVICE_VARIABLE

MIN_PARALLEL_ELEMENTS = 200_000
"""Minimum number of input elements per step for which multithreading is faster; see `benchmarks/threads.py`."""


def choose_device(name: str = "auto") -> torch.device:
    """Returns the PyTorch device with the given name, such as `cuda:1`.

    `auto` selects the device named by `PLATFORM_DEVICE` or, if it is not set, the first available of CUDA, MPS and CPU.

    Raises:
        TrainingError: The device is not available.
    """
    if name == "auto":
        name = os.environ.get(DEVICE_VARIABLE) or "auto"
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    return _available_device(name)


def _available_device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        # A GPU can be present but too old for the installed PyTorch, full, or in exclusive use by another process.
        torch.ones(1, device=device).add(1).item()
    except (RuntimeError, AssertionError) as error:
        reason = cause(error)
        raise TrainingError(
            f"device {name!r} is not available ({reason}); use another device, for example `--device cpu`"
        ) from error
    return device


@contextmanager
def threads_for(step_elements: int) -> Iterator[None]:
    """Limits PyTorch to one CPU thread inside the `with` block if `step_elements` < `MIN_PARALLEL_ELEMENTS`.

    For operations that take microseconds, synchronizing threads costs more time than parallelism saves. The cost is
    many times higher if another process is using one of the cores.
    """
    threads = torch.get_num_threads()
    if step_elements < MIN_PARALLEL_ELEMENTS:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def synchronize(device: torch.device) -> None:
    """Waits until all operations queued on a device have finished."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
