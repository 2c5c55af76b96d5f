"""PyTorch's CUDA code on a CUDA runtime without a GPU.

The runtime is not part of the repository; `PLATFORM_TEST_NULL_CUDA` names the folder with its sources. It is compiled
for the installed PyTorch, with the functions of `tests/support/gpu` in front of it. Whole runs compute each operation
also on the CPU, in the memory of the GPU, so that their results are correct.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

REPOSITORY = Path(__file__).parents[2]
SUPPORT = REPOSITORY / "tests" / "support" / "gpu"
SITE_PACKAGES = Path(torch.__file__).parents[1]
MATH = {f"{operation}: {math}" for operation in ("convolution", "product") for math in ("tf32", "float32")}
PATIENCE = 300
"""Seconds after which a process is ended."""
RECIPE = """\
name: colors
dataset: {{source: images, image_size: 64, splits: {{train: ., validation: 0.25, test: 0.25}}}}
backbone: {{name: efficientnet_lite0, freeze_through: all}}
training: {{epochs: 1, precision: {precision}, batch_size: {batch_size}}}
search: {{trials: 1}}
"""


@dataclass(frozen=True)
class Gpus:
    """Two GPUs: an H100 and a T4.

    Attributes:
        sources: Folder with the sources of the runtime.
        driver: Library path of a machine that has NVIDIA's management library, for the variable `LD_LIBRARY_PATH`.
    """

    sources: Path
    driver: str
    environment: dict[str, str]

    def run(self, *command: object, code: int = 0, cwd: Path | None = None, **variables: object) -> tuple[str, str]:
        """Runs Python with additional environment variables; returns its standard output and standard error."""
        environment = {**self.environment, **{name: str(value) for name, value in variables.items()}}
        ended = subprocess.run(
            [sys.executable, *map(str, command)],
            cwd=cwd,
            env=environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        assert ended.returncode == code, f"{command} ended with {ended.returncode}:\n{ended.stdout}\n{ended.stderr}"
        return ended.stdout, ended.stderr

    def step(self, name: str, **variables: object) -> Any:
        return json.loads(self.run(SUPPORT / "steps.py", name, **variables)[0])

    def platform(self, work: Path, *arguments: object, code: int = 0, **variables: object) -> tuple[str, str]:
        return self.run(self.sources / "cli_emulated.py", *arguments, code=code, cwd=work, **variables)


@pytest.fixture(scope="module")
def gpus(tmp_path_factory: pytest.TempPathFactory) -> Gpus:
    """GPUs without hardware; skips the test if the runtime cannot be compiled on this machine."""
    sources = Path(os.environ.get("PLATFORM_TEST_NULL_CUDA", REPOSITORY.parent / "shared" / "null_cuda"))
    if not (sources / "null" / "build.py").is_file():
        pytest.skip(f"the CUDA runtime without a GPU is missing: {sources} (set PLATFORM_TEST_NULL_CUDA)")
    if torch.version.cuda is None or not all(map(shutil.which, ("gcc", "g++", "nm"))):
        pytest.skip("the CUDA runtime without a GPU needs gcc, g++, nm and a PyTorch for CUDA")
    folder = tmp_path_factory.mktemp("gpus")
    _compile(sources, folder)
    home = folder / "home"
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("PLATFORM_", "MLFLOW_"))}
    paths = [REPOSITORY / "platform", REPOSITORY / "registry", sources]
    return Gpus(
        sources,
        f"{home}:{folder / 'driver'}",
        {
            **clean,
            "PYTHONPATH": os.pathsep.join(map(str, paths)),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PLATFORM_CACHE": str(folder / "cache"),
            "NULLCUDA_HOME": str(home),
            "NULLCUDA_DEVICES": "2",
            "NULLCUDA_BYTES": "16000000000",
            "LD_PRELOAD": f"{home / 'libgpus.so'}:{home / 'libnullcuda.so'}",
            "LD_LIBRARY_PATH": str(home),
            "TORCH_CUDNN_V8_API_DISABLED": "1",
            "CUDA_MODULE_LOADING": "LAZY",
        },
    )


def _compile(sources: Path, folder: Path) -> None:
    """Compiles the runtime, and the functions of `tests/support/gpu` in front of it."""
    headers, home, driver = folder / "headers", folder / "home", folder / "driver"
    driver.mkdir()
    package = "nvidia-cuda-crt==" + torch.version.cuda + ".*"
    install = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--retries",
        "1",
        "--target",
        headers,
        "--no-deps",
        package,
    ]
    if (error := _failure(install)) is not None:
        pytest.skip(f"the headers of the CUDA runtime without a GPU cannot be installed: {error}")
    includes = [f"-I{path}" for path in (sources / "null" / "include", *_includes(headers), *_includes(SITE_PACKAGES))]
    library = ["-shared", "-fPIC", "-w", "-o"]
    for command in (
        [sys.executable, sources / "null" / "build.py", SITE_PACKAGES, headers, home],
        ["g++", *library, home / "libgpus.so", SUPPORT / "gpus.cc", *includes],
        ["gcc", *library, driver / "libnvidia-ml.so.1", SUPPORT / "driver.c"],
    ):
        if (error := _failure(command)) is not None:
            pytest.skip(f"the CUDA runtime without a GPU cannot be compiled for PyTorch {torch.__version__}: {error}")


def _includes(folder: Path) -> list[Path]:
    """Folders of headers in NVIDIA's packages: one for each major version of CUDA, or one for each library."""
    return sorted(folder.glob("nvidia/*/include"))


def _failure(command: list[object], seconds: float = PATIENCE) -> str | None:
    try:
        ended = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired as error:
        return str(error)
    return ended.stderr if ended.returncode else None


@pytest.fixture
def study(tmp_path: Path) -> Callable[..., Path]:
    """Writes a recipe and 16 images of two classes into a folder; returns the folder."""

    def write(precision: str, batch_size: int) -> Path:
        generator = np.random.default_rng(0)
        for name, channel in (("blue", 2), ("red", 0)):
            folder = tmp_path / "images" / name
            folder.mkdir(parents=True)
            for index in range(8):
                pixels = generator.integers(0, 120, (40, 40, 3))
                pixels[..., channel] += 120
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{index}.png")
        (tmp_path / "recipe.yaml").write_text(RECIPE.format(precision=precision, batch_size=batch_size))
        return tmp_path

    return write


@pytest.mark.parametrize("folders", [["cu13", "cudnn"], ["cu14"], ["cublas", "cuda_runtime"]])
def test_headers_are_found_for_each_version_of_cuda(tmp_path: Path, folders: list[str]) -> None:
    for folder in [*folders, "nccl"]:
        (tmp_path / "nvidia" / folder / ("lib" if folder == "nccl" else "include")).mkdir(parents=True)
    assert _includes(tmp_path) == [tmp_path / "nvidia" / folder / "include" for folder in folders]


def test_a_command_of_the_compilation_that_takes_too_long_is_a_failure() -> None:
    command = [sys.executable, "-c", "import time; time.sleep(600)"]
    assert "timed out after 0.1 seconds" in str(_failure(command, seconds=0.1))
    assert _failure([sys.executable, "-c", ""]) is None
    assert _failure([sys.executable, "-c", "raise SystemExit('reason')"]) == "reason\n"


def test_bfloat16_is_timed_only_on_the_gpu_that_computes_in_it(gpus: Gpus) -> None:
    assert gpus.step("timed_precisions") == [["bfloat16", "float32"], ["float16", "float32"]]


def test_stored_features_are_addressed_by_gpu_and_driver(gpus: Gpus) -> None:
    described = gpus.step("addresses", LD_LIBRARY_PATH=gpus.driver) + gpus.step("addresses")
    assert [(each["gpu"], each["gpu_driver"]) for each in described] == [
        ("Null H100", "580.65.06"),
        ("NVIDIA T4", "580.65.06"),
        ("Null H100", "unknown"),
        ("NVIDIA T4", "unknown"),
    ]
    assert len({each["address"] for each in described}) == 4


def test_a_split_is_verified_without_tf32(gpus: Gpus) -> None:
    """TF32 is used by the passes before and after the verification."""
    _, err = gpus.run(SUPPORT / "steps.py", "verify_split", GPU_MATH=1)
    before, during, after = ({*part.split("\n")} & MATH for part in err.split("split\n"))
    assert before == after == {"convolution: tf32", "product: tf32"}
    assert during == {"convolution: float32", "product: float32"}


@pytest.mark.parametrize(("library", "expected"), [("cublas", "float32"), ("cudnn", "bfloat16")])
def test_a_library_without_memory_does_not_end_the_selection_of_the_precision(
    gpus: Gpus, library: str, expected: str
) -> None:
    """No precision runs without cuBLAS. With the old interface of cuDNN, PyTorch computes in bfloat16 without it."""
    result = gpus.step("without_memory", GPU_WITHOUT_MEMORY=library)
    assert f"{library.upper()}_STATUS_ALLOC_FAILED" in result.pop("error")
    assert result == {"recognized": True, "precision": expected}


def test_a_run_logs_the_gpu_with_its_driver_and_libraries(gpus: Gpus, study: Callable[..., Path]) -> None:
    work = study(precision="float32", batch_size=8)
    _, err = gpus.platform(work, "run", "recipe.yaml", "--device", "cuda", LD_LIBRARY_PATH=gpus.driver)
    assert "trial 0: complete" in err
    with sqlite3.connect(work / "mlflow.db") as connection:
        logged = dict(connection.execute("SELECT key, value FROM params WHERE key LIKE 'machine.%'"))
    expected = {"device": "cuda", "gpu": "Null H100", "gpu_driver": "580.65.06", "cuda": torch.version.cuda}
    assert {f"machine.{key}": value for key, value in expected.items()}.items() <= logged.items()
    assert logged["machine.cudnn"].isdecimal()


def test_a_nearest_neighbor_head_is_chosen_and_served_on_a_gpu(gpus: Gpus, study: Callable[..., Path]) -> None:
    work = study(precision="float32", batch_size=8)
    out, err = gpus.platform(work, "run", "recipe.yaml", "--device", "cuda:1", "-o", "head.kind=knn")
    assert "1 trial on cuda:1, float32" in err
    assert "trial 0: complete" in err
    assert "test/accuracy 1.0000" in out
    [model] = work.glob("studies/*/model/model.json")
    assert json.loads(model.read_text())["network"]["neighbors"]["images"] == 10  # the split for training


def test_a_batch_that_does_not_fit_does_not_end_the_selection_of_the_precision(
    gpus: Gpus, study: Callable[..., Path]
) -> None:
    """The frozen network runs in batches of 8 images afterwards, which fit."""
    work = study(precision="auto", batch_size=256)
    _, err = gpus.platform(work, "run", "recipe.yaml", "--device", "cuda:1", NULLCUDA_BYTES=100_000_000)
    selection, _, trials = err.partition("1 trial on cuda:1, ")
    assert "failed with OOM" in selection
    assert "trial 0: complete" in trials
    assert "failed with OOM" not in trials


def test_a_run_on_a_gpu_that_is_too_small_ends_with_the_reason(gpus: Gpus, study: Callable[..., Path]) -> None:
    work = study(precision="auto", batch_size=16)
    _, err = gpus.platform(work, "run", "recipe.yaml", "--device", "cuda:1", code=1, NULLCUDA_BYTES=40_000_000)
    assert "1 trial on cuda:1, " in err
    error, _, advice = err.partition("error: no trial in the study completed:\n")[2].partition("; ")
    assert error.startswith("  trial 0: fail frozen layers: CUDA out of memory")
    assert advice.startswith("set a smaller dataset.image_size, or use another device\n")
    assert "Traceback" not in err
