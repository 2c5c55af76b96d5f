from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from transfer_model.checkpoint import read_state_dicts
from transfer_model.errors import WeightsError
from transfer_model.torch_file_reader import STATE_DICTS, find_state_dicts, load, save


class UnknownModule(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        self.bn = nn.BatchNorm2d(4)


def test_state_dicts_are_found_in_wrappers_but_optimizers_are_not() -> None:
    weights = {"w": torch.ones(1)}
    loaded = {"model": weights, "ema": {"state_dict": weights}, "optimizer": {"state": {0: {"m": torch.ones(1)}}}}
    assert {path: list(found) for path, found in find_state_dicts(loaded).items()} == {
        "model": ["w"],
        "ema.state_dict": ["w"],
    }


def test_a_checkpoint_that_contains_itself_is_searched_to_a_limited_depth() -> None:
    loaded: dict[str, object] = {"w": torch.ones(1)}
    loaded["self"] = loaded
    assert list(find_state_dicts(loaded)) == ["", "self", "self.self"]


def test_a_pickled_module_is_its_state_dict(tmp_path: Path) -> None:
    module = UnknownModule()
    torch.save({"model": module}, tmp_path / "module.pth")
    found = find_state_dicts(load(tmp_path / "module.pth"))["model"]
    assert found.keys() == module.state_dict().keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in module.state_dict().items())


def test_tensors_of_two_state_dicts_are_written_once(tmp_path: Path) -> None:
    weights = {"w": torch.ones(3), "v": torch.zeros(3)}
    save({"model": weights, "ema": {"w": weights["w"], "v": torch.ones(3)}}, tmp_path / "target")
    with safe_open(tmp_path / "target", "pt") as file:
        described = json.loads(file.metadata()[STATE_DICTS])
        assert len(file.keys()) == 3
    assert described["model"]["names"]["w"] == described["ema"]["names"]["w"]


def test_sparse_and_transposed_tensors_become_plain(tmp_path: Path) -> None:
    transposed = torch.arange(6.0).reshape(2, 3).T
    save({"": {"sparse": torch.eye(3).to_sparse(), "transposed": transposed}}, tmp_path / "target")
    with safe_open(tmp_path / "target", "pt") as file:
        assert torch.equal(file.get_tensor("0"), torch.eye(3))
        assert torch.equal(file.get_tensor("1"), transposed)


def test_safetensors_under_any_name(tmp_path: Path) -> None:
    save_file({"fc.weight": torch.ones(2, 3)}, tmp_path / "0a1b2c")
    assert torch.equal(read_state_dicts(tmp_path / "0a1b2c")[0].tensors["fc.weight"], torch.ones(2, 3))


def test_damaged_safetensors_and_missing_files_are_errors(tmp_path: Path) -> None:
    (tmp_path / "weights.safetensors").write_bytes(b"\x00" * 8 + b"{")
    with pytest.raises(WeightsError, match="is damaged: it starts like a safetensors file"):
        read_state_dicts(tmp_path / "weights.safetensors")
    with pytest.raises(WeightsError, match=r"the weights file .* does not exist"):
        read_state_dicts(tmp_path / "none.pth")
