from __future__ import annotations

import json
import re
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from transfer_model.weights_path import is_weights_file, weights_problem


@pytest.mark.parametrize(
    "weights", ["lit.ckpt", "w.safetensors", "w.pth", "pytorch_model.bin", "checkpoints/last", "./w"]
)
def test_files(weights: str) -> None:
    assert is_weights_file(weights)


@pytest.mark.parametrize("weights", ["default", "none", "IMAGENET1K_V2", "a1_in1k", "fb_in22k_ft_in1k_384"])
def test_names_of_published_weights(weights: str) -> None:
    assert not is_weights_file(weights)


def half_of(write: Callable[[Path], object]) -> Callable[[Path], None]:
    def write_half(path: Path) -> None:
        write(path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    return write_half


def write_safetensors(path: Path) -> None:
    save_file({"w": torch.ones(100)}, path)


def write_torch(path: Path) -> None:
    torch.save({"w": torch.ones(100)}, path)


def write_tar(path: Path) -> None:
    with tarfile.open(path, "w") as archive:
        archive.add(__file__, "weights.pth")


def write_numpy(path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, w=np.ones(1))


def write_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("weights.pth", b"")


OTHER_CONTENT = {
    "empty": (lambda path: path.touch(), "is empty; download or copy it again"),
    "folder": (lambda path: path.mkdir(), "is a folder; specify a weights file in it"),
    "0xff": (
        lambda path: path.write_bytes(b"\xff" * 1000),
        "is neither a safetensors nor a torch file: it starts with",
    ),
    "zeros": (lambda path: path.write_bytes(bytes(1000)), "is neither a safetensors nor a torch file: it starts with"),
    "html": (
        lambda path: path.write_bytes(b"<html>404"),
        "torch file: it starts with '<html>404'; download or copy it again",
    ),
    "git lfs": (
        lambda path: path.write_bytes(b"version https://git-lfs.github.com/spec/v1"),
        "with 'version https://git-",
    ),
    "json": (lambda path: path.write_text(json.dumps({"weight_map": {}})), "torch file: it starts with '{"),
    "tar": (write_tar, "torch file: it starts with '././@PaxHeader'; download"),
    "numpy": (write_numpy, r"not written by torch\.save: it contains w\.npy; if it"),
    "zip": (write_zip, r"not written by torch\.save: it contains weights\.pth; if it"),
    "half of a safetensors file": (half_of(write_safetensors), r"reading it fails \(.+\); download or copy it again"),
    "half of a torch file": (half_of(write_torch), "is incomplete: .* its end is missing; download or copy it again"),
}


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("kind", OTHER_CONTENT)
def test_a_file_without_weights_is_a_problem_with_its_cause(kind: str, suffix: str, tmp_path: Path) -> None:
    write, message = OTHER_CONTENT[kind]
    path = tmp_path / f"file{suffix}"
    write(path)
    problem = weights_problem(path)
    assert re.search(f"{path} {message}" if message.startswith("is ") else message, problem), problem


@pytest.mark.parametrize("write", [write_safetensors, write_torch])
def test_a_weights_file_is_no_problem(write: Callable[[Path], None], tmp_path: Path) -> None:
    write(tmp_path / "weights")
    assert weights_problem(tmp_path / "weights") == ""


def test_a_folder_is_a_problem_that_names_a_file_in_it(tmp_path: Path) -> None:
    write_torch(tmp_path / "best.pth")
    assert weights_problem(tmp_path) == f"{tmp_path} is a folder; specify a weights file in it, such as best.pth"


def test_a_missing_file_is_a_problem(tmp_path: Path) -> None:
    assert weights_problem(tmp_path / "none.pth") == f"the weights file {tmp_path}/none.pth does not exist"
