"""Selection of the precision."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from transfer_model.architecture import Architecture
from transfer_platform.recipe.schema import Recipe
from transfer_platform.training import precision
from transfer_platform.training.precision import fastest_precision, select_precision

CPU = torch.device("cpu")
OUT_OF_MEMORY = "CUDA out of memory. Tried to allocate 24.00 MiB. GPU 0 has a total capacity of 57.22 MiB"


@dataclass
class Clock:
    """A clock that only the timed steps advance; `load` multiplies the time of each step."""

    seconds: dict[torch.dtype, float]
    load: Callable[[int], float] = lambda _: 1.0
    now: float = 0.0
    steps: list[torch.dtype] = field(default_factory=list)

    def step(self) -> None:
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else torch.float32
        self.now += self.seconds[dtype] * self.load(len(self.steps))
        self.steps.append(dtype)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Steps of 1 s in float32; bfloat16 steps take the time that the test sets."""
    clock = Clock({torch.float32: 1.0, torch.bfloat16: 1.0})
    monkeypatch.setattr(precision.time, "perf_counter", lambda: clock.now)
    monkeypatch.setattr(precision, "_emulates_bfloat16", lambda: False)
    return clock


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0.03, "bfloat16"), (0.75, "bfloat16"), (0.8, "float32"), (1.0, "float32"), (9, "float32")],
)
def test_a_lower_precision_is_selected_if_it_is_at_least_30_percent_faster(
    clock: Clock, seconds: float, expected: str
) -> None:
    clock.seconds[torch.bfloat16] = seconds
    assert fastest_precision(CPU, clock.step) == expected


@pytest.mark.parametrize("busy_from", range(12))
@pytest.mark.parametrize(("seconds", "expected"), [(0.5, "bfloat16"), (0.9, "float32")])
def test_a_machine_that_becomes_busy_does_not_change_the_selection(
    clock: Clock, seconds: float, expected: str, busy_from: int
) -> None:
    clock.seconds[torch.bfloat16] = seconds
    clock.load = lambda step: 3.0 if step >= busy_from else 1.0
    assert fastest_precision(CPU, clock.step) == expected


def test_emulated_bfloat16_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "_emulates_bfloat16", lambda: True)
    steps: list[int] = []
    assert fastest_precision(CPU, lambda: steps.append(1)) == "float32"
    assert not steps


class TimedNetwork(nn.Module):
    """A small network that advances a clock and fails as its test requires."""

    def __init__(self, clock: Clock, fail: Callable[[int, torch.dtype], None]) -> None:
        super().__init__()
        self.head = nn.Linear(3, 2)
        self.spec = SimpleNamespace(backbone=Architecture("timed"), image_size=4)
        self.clock, self.fail = clock, fail
        self.batches: list[int] = []

    def forward(self, images: Tensor) -> Tensor:
        self.clock.step()
        self.batches.append(len(images))
        self.fail(len(images), self.clock.steps[-1])
        return self.head(images.mean((2, 3)))


def select(
    clock: Clock, fail: Callable[[int, torch.dtype], None] = lambda *_: None, **training: object
) -> tuple[str, TimedNetwork]:
    network = TimedNetwork(clock, fail)
    recipe = Recipe.model_validate(
        {
            "name": "digits",
            "dataset": {"source": "embedded:digits", "splits": {"train": ".", "test": 0.2}},
            "backbone": {"name": "efficientnet_lite0", "freeze_through": "none"},
            "training": training,
        }
    )
    return select_precision(recipe, CPU, lambda: network), network


def test_a_selection_is_remembered(isolated: Path, clock: Clock) -> None:
    clock.seconds[torch.bfloat16] = 0.5
    assert select(clock)[0] == "bfloat16"
    clock.seconds[torch.bfloat16] = 5.0
    precision, network = select(clock)
    assert precision == "bfloat16"
    assert not network.batches


@pytest.mark.parametrize("changed", ["hardware", "library"])
def test_a_selection_is_not_remembered_for_other_hardware_or_versions(
    isolated: Path, clock: Clock, changed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock.seconds[torch.bfloat16] = 0.5
    select(clock)
    clock.seconds[torch.bfloat16] = 5.0
    if changed == "hardware":
        monkeypatch.setattr(precision, "describe_hardware", lambda _: {"gpu": "NVIDIA T4"})
    else:
        monkeypatch.setattr(precision, "version", lambda _: "99.0")
    assert select(clock)[0] == "float32"


def test_a_precision_that_needs_too_much_memory_is_not_selected(isolated: Path, clock: Clock) -> None:
    def float32_is_too_large(_: int, dtype: torch.dtype) -> None:
        if dtype is torch.float32:
            raise torch.OutOfMemoryError(OUT_OF_MEMORY)

    clock.seconds[torch.bfloat16] = 5.0
    assert select(clock, float32_is_too_large)[0] == "bfloat16"


def test_smaller_batches_are_timed_if_the_batch_does_not_fit(isolated: Path, clock: Clock) -> None:
    def only_two_images_fit(batch: int, _: torch.dtype) -> None:
        if batch > 2:
            raise torch.OutOfMemoryError(OUT_OF_MEMORY)

    clock.seconds[torch.bfloat16] = 0.5
    selected, network = select(clock, only_two_images_fit)
    assert selected == "bfloat16"
    assert network.batches[-1] == 2


@pytest.mark.parametrize(
    "message",
    [
        OUT_OF_MEMORY,
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "GET was unable to find an engine to execute this computation",
    ],
)
def test_float32_is_selected_if_no_step_fits(isolated: Path, clock: Clock, message: str) -> None:
    def nothing_fits(_batch: int, _dtype: torch.dtype) -> None:
        raise RuntimeError(message)

    clock.seconds[torch.bfloat16] = 0.5
    assert select(clock, nothing_fits)[0] == "float32"
    assert select(clock)[0] == "bfloat16"  # a selection without timings is not remembered


def test_float32_is_selected_if_the_network_cannot_run_in_bfloat16(isolated: Path, clock: Clock) -> None:
    def no_bfloat16(_: int, dtype: torch.dtype) -> None:
        if dtype is torch.bfloat16:
            raise RuntimeError("\"upsample_bicubic2d\" not implemented for 'BFloat16'")

    clock.seconds[torch.bfloat16] = 0.5
    assert select(clock, no_bfloat16)[0] == "float32"


def test_a_batch_of_one_image_is_timed_with_two(isolated: Path, clock: Clock) -> None:
    def batch_norm(batch: int, _: torch.dtype) -> None:
        if batch == 1:
            raise ValueError("Expected more than 1 value per channel when training")

    assert select(clock, batch_norm, batch_size=1)[1].batches[0] > 1


def test_any_other_error_of_a_float32_step_is_raised(isolated: Path, clock: Clock) -> None:
    def fails(_batch: int, _dtype: torch.dtype) -> None:
        raise RuntimeError("shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="shapes"):
        select(clock, fails)


@pytest.mark.parametrize(("capability", "expected"), [((7, 5), "float16"), ((8, 0), "bfloat16"), ((9, 0), "bfloat16")])
def test_the_selected_gpu_decides_which_precision_is_timed(
    capability: tuple[int, int], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The current device is another GPU, which has native bfloat16."""
    current = [0]

    class Current:
        def __init__(self, device: torch.device) -> None:
            self.index = device.index

        def __enter__(self) -> None:
            current.append(self.index)

        def __exit__(self, *_: object) -> None:
            current.pop()

    def properties(index: int) -> SimpleNamespace:
        return SimpleNamespace(major=(9, 0)[0] if index == 0 else capability[0])

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: current[-1])
    monkeypatch.setattr(torch.cuda, "device", Current)
    monkeypatch.setattr(torch.cuda, "get_device_properties", properties)
    monkeypatch.setattr(torch.cuda, "_check_bf16_tensor_supported", lambda _: True)  # by emulation
    monkeypatch.setattr(precision, "synchronize", lambda _: None)
    timed = set()
    monkeypatch.setattr(precision, "autocast", lambda _, name: timed.add(name) or torch.autocast("cpu", enabled=False))
    fastest_precision(torch.device("cuda:1"), lambda: None)
    assert timed == {"float32", expected}
