"""Where a network runs, and in which arithmetic it is fastest there."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import torch

from transfer_platform.errors import TrainingError
from transfer_platform.paths import DEVICE_VARIABLE

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
MIN_PARALLEL_ELEMENTS = 200_000
"""Numbers in a step from which on several threads gain anything; see `benchmarks/threads.py`."""
SPEEDUP_THRESHOLD = 0.9
"""A lower precision is taken when a step needs at most this share of the time in float32."""


def choose_device(wanted: str = "auto") -> torch.device:
    """The device to train on.

    Args:
        wanted: `auto` (what `PLATFORM_DEVICE` says, else CUDA, MPS, CPU) or a name that torch knows,
            such as `cuda:1`.

    Raises:
        TrainingError: There is no such device on this machine.
    """
    if wanted == "auto":
        wanted = os.environ.get(DEVICE_VARIABLE) or "auto"
    if wanted != "auto":
        return _existing(wanted)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def _existing(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise TrainingError(
            f"there is no device {name!r} on this machine ({reason}); --device auto takes what there is"
        ) from error
    return device


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """A context in which the network computes in `precision`; weights and optimizer stay float32."""
    return torch.autocast(device.type, dtype=PRECISIONS[precision], enabled=precision != "float32")


def choose_precision(device: torch.device, step: Callable[[], object]) -> str:
    """The arithmetic in which a step is fastest.

    A processor's name does not tell: on some that have bfloat16 units a small network's step is slower in it.

    Args:
        device: Where the step runs.
        step: One step of the work to come; runs a few times under autocast.

    Returns:
        `float32`, `bfloat16` or `float16`.
    """
    if device.type == "cpu" and _emulates_bfloat16():
        return "float32"
    lower = _lower_precision(device)
    patience = SPEEDUP_THRESHOLD * _seconds("float32", device, step)
    return lower if _seconds(lower, device, step, patience) <= patience else "float32"


def _emulates_bfloat16() -> bool:
    """Whether this processor lacks the instructions: then bfloat16 is too slow even to be timed."""
    onednn = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return bool(onednn and not torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _lower_precision(device: torch.device) -> str:
    if device.type == "mps" or (device.type == "cuda" and not torch.cuda.is_bf16_supported()):
        return "float16"
    return "bfloat16"


def _seconds(
    precision: str, device: torch.device, step: Callable[[], object], patience: float = float("inf")
) -> float:
    """The shortest of three steps, after one that loads kernels; fewer where they are hopelessly slow."""
    best = float("inf")
    with autocast(device, precision):
        step()
    synchronize(device)
    for _ in range(3):
        start = time.perf_counter()
        with autocast(device, precision):
            step()
        synchronize(device)
        best = min(best, time.perf_counter() - start)
        if best > 2 * patience:
            break
    return best


@contextmanager
def threads_for(step_elements: int) -> Iterator[None]:
    """A context in which a CPU works with one thread where a step is too small to be shared.

    Threads that meet after every operation of microseconds cost more than they bring, many times more where
    another process keeps one of the cores busy.

    Args:
        step_elements: Numbers that a step reads.
    """
    before = torch.get_num_threads()
    if step_elements < MIN_PARALLEL_ELEMENTS:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def synchronize(device: torch.device) -> None:
    """Waits until a device has done all that it was asked to."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
