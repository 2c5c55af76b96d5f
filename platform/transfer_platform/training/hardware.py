"""Describes the hardware and driver that a network runs on.

Both affect the least significant digits of results and the speed of each precision.
"""

import ctypes
import os
import platform
from functools import cache
from pathlib import Path

import torch

UNKNOWN = "unknown"


@cache
def describe_hardware(device: torch.device) -> dict[str, str]:
    """Returns the name of a GPU and its driver and library versions, or the name and instruction set of a CPU.

    For example, `{"gpu": "NVIDIA T4", "gpu_driver": "580.65.06", "cuda": "13.0", "cudnn": "92400"}`.
    """
    if device.type == "cuda":
        return {
            "gpu": torch.cuda.get_device_name(device),
            "gpu_driver": UNKNOWN if torch.version.hip else _nvidia_driver(),
            "cuda": torch.version.cuda or f"hip {torch.version.hip}",
            "cudnn": _cudnn(),
        }
    if device.type == "mps":
        return {"gpu": f"{_processor()} GPU", "gpu_driver": f"macOS {platform.mac_ver()[0]}"}
    return {"processor": _processor(), "instructions": torch.backends.cpu.get_cpu_capability()}


def _nvidia_driver() -> str:
    """Returns the version of the NVIDIA driver, read from the driver's library because PyTorch does not report it."""
    try:
        library = ctypes.CDLL("nvml.dll" if os.name == "nt" else "libnvidia-ml.so.1")
    except OSError:
        return UNKNOWN
    text = ctypes.create_string_buffer(96)
    if library.nvmlInit_v2() or library.nvmlSystemGetDriverVersion(text, ctypes.c_uint(len(text))):
        return UNKNOWN
    return text.value.decode()


def _cudnn() -> str:
    try:
        return str(torch.backends.cudnn.version())  # type: ignore[no-untyped-call]
    except RuntimeError as error:  # the installed version differs from the one that PyTorch was compiled with
        return str(error).partition(". ")[0]


def _processor() -> str:
    """Returns the model name of the CPU, or its architecture if the name is unknown."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [value.strip() for key, _, value in (line.partition(":") for line in lines) if key.strip() == "model name"]
    return names[0] if names else platform.processor() or platform.machine()
