"""Description of the hardware, in MLflow and in the address of stored features."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch

from transfer_platform.commands.run_report import log_machine
from transfer_platform.training import hardware
from transfer_platform.training.hardware import describe_hardware
from transfer_platform.training.stored_features import FrozenPrefix

CUDA = torch.device("cuda", 1)
T4 = {"gpu": "NVIDIA T4", "gpu_driver": "580.65.06", "cuda": "13.0", "cudnn": "92400"}


@pytest.fixture(autouse=True)
def _no_cache() -> Iterator[None]:
    describe_hardware.cache_clear()
    yield
    describe_hardware.cache_clear()


class DriverLibrary:
    """NVIDIA's management library; all functions return `status`."""

    def __init__(self, status: int) -> None:
        self.nvmlInit_v2 = lambda: status
        self._status = status

    def nvmlSystemGetDriverVersion(self, text: ctypes.Array[ctypes.c_char], length: ctypes.c_uint) -> int:
        assert length.value == len(text)
        text.value = b"580.65.06"
        return self._status


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two GPUs; the second one is a T4."""
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: ("NVIDIA H100", "NVIDIA T4")[device.index])
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: 92400)
    monkeypatch.setattr(hardware.ctypes, "CDLL", lambda _: DriverLibrary(0))


def test_a_gpu_is_described_with_its_driver_and_libraries(gpu: None) -> None:
    assert describe_hardware(CUDA) == T4


@pytest.mark.parametrize("fault", ["no library", "no driver"])
def test_an_unknown_driver_is_not_an_error(gpu: None, fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(name: str) -> DriverLibrary:
        if fault == "no library":
            raise OSError(f"{name}: cannot open shared object file")
        return DriverLibrary(9)

    monkeypatch.setattr(hardware.ctypes, "CDLL", load)
    assert describe_hardware(CUDA) == {**T4, "gpu_driver": "unknown"}


def test_another_cudnn_than_pytorch_was_compiled_with_is_not_an_error(
    gpu: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    reason = (
        "cuDNN version incompatibility: PyTorch was compiled  against (9, 24, 0) but found runtime version (9, 9, 9)"
    )

    def version() -> int:
        raise RuntimeError(f"{reason}. PyTorch already comes bundled with cuDNN.")

    monkeypatch.setattr(torch.backends.cudnn, "version", version)
    assert describe_hardware(CUDA) == {**T4, "cudnn": reason}


def test_a_cpu_is_described_with_its_instructions() -> None:
    description = describe_hardware(torch.device("cpu"))
    assert set(description) == {"processor", "instructions"}
    assert all(description.values())


def test_the_hardware_is_logged(gpu: None) -> None:
    logged: dict[str, object] = {}
    log_machine(SimpleNamespace(log_params=logged.update), CUDA, "float32")
    assert {f"machine.{name}": value for name, value in T4.items()}.items() <= logged.items()
    assert logged["machine.device"] == "cuda:1"
    assert logged["machine.processor"]


@pytest.mark.parametrize("changed", ["nothing", *T4])
def test_features_are_stored_separately_for_each_kind_of_hardware(
    gpu: None, changed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefix = FrozenPrefix(SimpleNamespace(digest="0"), "float32", CUDA, 64)
    images = SimpleNamespace(preprocessing="S = 64")
    before = prefix.address(images)
    describe_hardware.cache_clear()
    if changed == "gpu":
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "NVIDIA H100")
    elif changed == "gpu_driver":
        monkeypatch.setattr(hardware.ctypes, "CDLL", lambda _: DriverLibrary(9))
    elif changed == "cuda":
        monkeypatch.setattr(torch.version, "cuda", "12.8")
    elif changed == "cudnn":
        monkeypatch.setattr(torch.backends.cudnn, "version", lambda: 91000)
    assert (prefix.address(images) == before) == (changed == "nothing")


def test_features_of_another_processor_are_stored_separately(monkeypatch: pytest.MonkeyPatch) -> None:
    prefix = FrozenPrefix(SimpleNamespace(digest="0"), "float32", torch.device("cpu"), 64)
    images = SimpleNamespace(preprocessing="S = 64")
    before = prefix.address(images)
    describe_hardware.cache_clear()
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "DEFAULT")
    assert prefix.address(images) != before
