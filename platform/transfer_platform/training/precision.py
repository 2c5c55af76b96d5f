"""Selects the numeric precision of a study and provides autocast contexts."""

import gc
import json
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from importlib.metadata import version
from statistics import median

import torch

from transfer_model.network import Network
from transfer_platform.disk_cache import DiskCache
from transfer_platform.errors import is_out_of_memory
from transfer_platform.recipe.schema import Recipe
from transfer_platform.training.device import synchronize
from transfer_platform.training.hardware import describe_hardware

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
MIN_SPEEDUP = 1.3
"""Minimum speedup over float32 at which a lower precision is selected."""
ROUNDS = 5
"""Maximum number of timed steps in each precision."""
CPU_BATCH_SIZE = 4
"""Images per timed step on a CPU: a few images are enough to keep a CPU busy, whereas a GPU needs a full batch."""
_NAMESPACE = "precision"


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """Returns an autocast context for the given precision; weights and optimizer state stay in float32."""
    return torch.autocast(device.type, dtype=PRECISIONS[precision], enabled=precision != "float32")


def select_precision(recipe: Recipe, device: torch.device, build_network: Callable[[], Network]) -> str:
    """Returns the configured precision or, for `auto`, the fastest precision on the device.

    For `auto`, builds the network and times training steps, or forward passes if the whole backbone is frozen. The
    result is cached, so that later studies with the same hardware, library versions, network and batch size use the
    same precision. If even a step with two images does not fit into memory, returns float32.
    """
    if recipe.training.precision != "auto":
        return recipe.training.precision
    network = build_network()
    # Batch norm cannot be trained on a single image.
    batch_size = CPU_BATCH_SIZE if device.type == "cpu" else max(2, recipe.training.batch_size)
    cache, key = DiskCache(_NAMESPACE), _cache_key(recipe, network, device, batch_size)
    remembered = cache.get([key]).get(key, b"").decode(errors="replace")
    if remembered in PRECISIONS:
        return remembered
    precision = _time_network(recipe, device, network, batch_size)
    if precision is not None:
        cache.put({key: precision.encode()})
    while precision is None and batch_size >= 4:  # results for smaller batches are not cached
        batch_size //= 2
        precision = _time_network(recipe, device, network, batch_size)
    return precision or "float32"


def fastest_precision(device: torch.device, step: Callable[[], object]) -> str | None:
    """Returns the precision in which a step runs fastest, or None if the step does not fit into memory.

    A lower precision is selected if its speedup is at least `MIN_SPEEDUP`, or if float32 does not fit into memory.
    Hardware support does not imply a speedup: on some CPUs with bfloat16 units, bfloat16 slows down small networks.
    """
    lower = _lower_precision(device)
    if lower is None:
        return "float32"
    supported = [precision for precision in ("float32", lower) if _can_run(precision, device, step)]
    if len(supported) < 2:
        return supported[0] if supported else None
    return lower if _speedup(lower, device, step) >= MIN_SPEEDUP else "float32"


def _cache_key(recipe: Recipe, network: Network, device: torch.device, batch_size: int) -> str:
    facts = {
        "backbone": network.spec.backbone.to_json(),
        "frozen_through": recipe.backbone.freeze_through,
        "image_size": network.spec.image_size,
        "batch_size": batch_size,
        "device": device.type,
        "threads": torch.get_num_threads(),
        **{library: version(library) for library in ("torch", "torchvision", "timm")},
        **describe_hardware(device),
    }
    return json.dumps(facts, sort_keys=True)


def _time_network(recipe: Recipe, device: torch.device, network: Network, batch_size: int) -> str | None:
    """Returns the fastest precision for a network; see `fastest_precision`."""
    trainable = recipe.backbone.freeze_through != "all"
    step = partial(_step, network, device, batch_size, trainable)
    try:
        return fastest_precision(device, step)
    finally:
        network.zero_grad(set_to_none=True)


def _step(network: Network, device: torch.device, batch_size: int, trainable: bool) -> None:
    size = network.spec.image_size
    images = torch.zeros(batch_size, 3, size, size, device=device).to(memory_format=torch.channels_last)
    network.train(trainable)
    with torch.set_grad_enabled(trainable):
        logits = network(images)
    if trainable:
        logits.float().sum().backward()


def _lower_precision(device: torch.device) -> str | None:
    """Returns the lower precision to compare with float32, or None on a CPU that would have to emulate it."""
    if device.type == "cpu":
        return None if _emulates_bfloat16() else "bfloat16"
    if device.type == "cuda":
        with torch.cuda.device(device):  # `is_bf16_supported` describes the current device
            return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16"
    return "float16" if device.type == "mps" else "bfloat16"


def _emulates_bfloat16() -> bool:
    """Returns True if the CPU has no bfloat16 instructions; timing even one emulated step would then take too long."""
    onednn = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return bool(onednn and not torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _can_run(precision: str, device: torch.device, step: Callable[[], object]) -> bool:
    """Runs one step as a warm-up; returns False if it runs out of memory or the precision is not supported."""
    try:
        _step_seconds(precision, device, step)
    except (MemoryError, RuntimeError) as error:
        # Some operations are not implemented in a lower precision.
        if precision == "float32" and not is_out_of_memory(error):
            raise
    else:
        return True
    gc.collect()  # frees tensors that the error's traceback referred to
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return False


def _speedup(precision: str, device: torch.device, step: Callable[[], object]) -> float:
    """Returns the time of a float32 step divided by the time of a step in another precision.

    The result is the median over up to `ROUNDS` pairs of steps. The two steps of a pair run back to back, so a
    spike in machine load usually slows down both.
    """
    ratios: list[float] = []
    while len(ratios) < ROUNDS and not (len(ratios) > 1 and max(ratios) < 0.5):
        ratios.append(_step_seconds("float32", device, step) / _step_seconds(precision, device, step))
    return median(ratios)


def _step_seconds(precision: str, device: torch.device, step: Callable[[], object]) -> float:
    synchronize(device)
    start = time.perf_counter()
    with autocast(device, precision):
        step()
    synchronize(device)
    return time.perf_counter() - start
