"""Selects the numeric precision of a study and provides autocast contexts."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager

import torch

from transfer_model.network import Network
from transfer_platform.recipe.schema import Recipe
from transfer_platform.training.device import synchronize

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
SPEEDUP_THRESHOLD = 0.9
"""A lower precision is selected only if its time per step is at most this fraction of the float32 time."""
CPU_BATCH_SIZE = 4
"""Images per timed step on a CPU: a few images are enough to keep a CPU busy, whereas a GPU needs a full batch."""


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """Returns an autocast context for a precision; weights and optimizer state stay in float32."""
    return torch.autocast(device.type, dtype=PRECISIONS[precision], enabled=precision != "float32")


def select_precision(recipe: Recipe, device: torch.device, build_network: Callable[[], Network]) -> str:
    """Returns the configured precision or, for `auto`, the fastest one on the device.

    For `auto`, builds the network and times training steps, or forward passes if the whole backbone is frozen.
    """
    config = recipe.training
    if config.precision != "auto":
        return config.precision
    network = build_network()
    size = network.spec.image_size
    batch_size = CPU_BATCH_SIZE if device.type == "cpu" else config.batch_size
    images = torch.zeros(batch_size, 3, size, size, device=device).to(memory_format=torch.channels_last)
    trainable = recipe.backbone.freeze_through != "all"

    def step() -> None:
        network.train(trainable)
        with torch.set_grad_enabled(trainable):
            logits = network(images)
        if trainable:
            logits.float().sum().backward()

    precision = fastest_precision(device, step)
    network.zero_grad(set_to_none=True)
    return precision


def fastest_precision(device: torch.device, step: Callable[[], object]) -> str:
    """Returns the precision at which a step runs fastest under autocast.

    Hardware support does not imply a speedup: on some CPUs with bfloat16 units, bfloat16 slows down small networks.
    """
    if device.type == "cpu" and _emulates_bfloat16():
        return "float32"
    only_float16 = device.type == "mps" or (device.type == "cuda" and not torch.cuda.is_bf16_supported())
    lower = "float16" if only_float16 else "bfloat16"
    limit = SPEEDUP_THRESHOLD * _step_seconds("float32", device, step)
    return lower if _step_seconds(lower, device, step, limit) <= limit else "float32"


def _emulates_bfloat16() -> bool:
    """Returns True if the CPU has no bfloat16 instructions; timing even a single emulated step would take too long."""
    onednn = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return bool(onednn and not torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _step_seconds(
    precision: str, device: torch.device, step: Callable[[], object], limit: float = float("inf")
) -> float:
    """Returns the shortest of three step times after a warm-up, or the first if that exceeds twice `limit`."""
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
        if best > 2 * limit:
            break
    return best
