"""Small torch files that need much memory or time are refused in one sentence, and this process stays small."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from transfer_model import checkpoint
from transfer_model.checkpoint import read_state_dicts
from transfer_model.errors import WeightsError

READ_ALL = """
import json, resource, sys
from pathlib import Path
from transfer_model.errors import WeightsError
from transfer_model.network import NetworkSpec, build_network

def peak(who):
    return resource.getrusage(who).ru_maxrss << 10

answers, before = [], 0
for file in sys.argv[1:]:
    try:
        build_network(NetworkSpec("timm/test_resnet", 3, 0.0, 32), Path(file))
    except WeightsError as error:
        answers.append(str(error))
    before = before or peak(resource.RUSAGE_SELF)
used = peak(resource.RUSAGE_SELF) - before
print(json.dumps({"answers": answers, "used": used, "reader": peak(resource.RUSAGE_CHILDREN)}))
"""
"""Reads files in a new process, the first of which is good, and prints the errors and both peaks in bytes."""


def rewritten(source: Path, target: Path, change: Callable[[str, bytes], bytes]) -> None:
    """Copies a torch file and changes the content of its parts."""
    with zipfile.ZipFile(source) as original, zipfile.ZipFile(target, "w") as copy:
        for name in original.namelist():
            copy.writestr(name, change(name, original.read(name)))


def huge_declared_size(file: Path) -> None:
    """A storage that is said to have 2 billion values, and has a million."""
    torch.save({"w": torch.zeros(1 << 20)}, file.with_suffix(".original"))
    declared, stored = b"J\xff\xff\xff\x7f", b"J\x00\x00\x10\x00"
    rewritten(
        file.with_suffix(".original"),
        file,
        lambda name, part: part.replace(stored, declared) if "pkl" in name else part,
    )


def compressed(file: Path) -> None:
    """A storage of 2 GB of zeros in a compressed file."""
    torch.save({"w": torch.zeros(1 << 20)}, file.with_suffix(".original"))
    zeros = bytes(1 << 24)
    with (
        zipfile.ZipFile(file.with_suffix(".original")) as original,
        zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as copy,
    ):
        for name in original.namelist():
            content = original.read(name)
            with copy.open(name, "w", force_zip64=True) as part:
                if name.endswith("/data/0"):
                    for _ in range(128):
                        part.write(zeros)
                else:
                    part.write(content.replace(b"J\x00\x00\x10\x00", b"J\x00\x00\x00\x20"))


def repeated_views(file: Path) -> None:
    """Thousands of tensors that overlap in one storage."""
    storage = torch.zeros(100_000)
    torch.save({str(index): storage[index : index + 90_000] for index in range(5000)}, file)


def huge_object(file: Path) -> None:
    """A call of a function that torch considers safe, which returns a terabyte."""
    torch.save({"w": torch.zeros(1)}, file.with_suffix(".original"))
    call = b"\x80\x02cbuiltins\nbytearray\n\x8a\x06\x00\x00\x00\x00\x00\x01\x85R."
    rewritten(file.with_suffix(".original"), file, lambda name, part: call if name.endswith("data.pkl") else part)


BOMBS = [huge_declared_size, compressed, repeated_views, huge_object]


def test_files_that_expand_are_refused_in_one_sentence_and_little_memory(tmp_path: Path) -> None:
    files = [tmp_path / f"{make.__name__}.pth" for make in BOMBS]
    for make, file in zip(BOMBS, files, strict=True):
        make(file)
        assert file.stat().st_size < 10 << 20
    torch.save({"w": torch.zeros(1)}, tmp_path / "of another network.pth")
    done = subprocess.run(
        [sys.executable, "-c", READ_ALL, tmp_path / "of another network.pth", *files],
        env={"PYTHONPATH": ":".join(sys.path), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout)
    _, *answers = found["answers"]
    assert len(answers) == len(BOMBS)
    for file, answer in zip(files, answers, strict=True):
        assert str(file) in answer
        assert len(answer.splitlines()) == 1
        assert "Traceback" not in answer
        assert "takes more than 1.1 GB of memory" in answer or "cannot be read as a torch file: " in answer
    assert found["used"] < 50 << 20
    assert found["reader"] < 2 << 30


def nested_modules() -> nn.Module:
    """A module of 40 levels, each of which contains the next one twice: it has 2 ** 40 parts."""
    module = nn.Module()
    for _ in range(40):
        outer = nn.Module()
        outer.a = outer.b = module
        module = outer
    return module


def nested_dicts() -> dict[str, object]:
    """Dictionaries that contain one another many times."""
    content: dict[str, object] = {}
    for _ in range(3):
        content = dict.fromkeys(map(str, range(3000)), content)
    return content


@pytest.mark.parametrize("content", [nested_modules(), nested_dicts()], ids=["modules", "dicts"])
def test_a_small_file_that_takes_much_time_is_refused(
    content: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "_FREE_SECONDS", 1)
    torch.save({"w": torch.zeros(1), "content": content}, tmp_path / "bomb.pth")
    with pytest.raises(
        WeightsError, match=r"takes more than 1 s of processor time, although the file is only 0\.\d MB"
    ):
        read_state_dicts(tmp_path / "bomb.pth")
