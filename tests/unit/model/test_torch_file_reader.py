from __future__ import annotations

import argparse
import functools
import io
import json
import pickle
from collections import OrderedDict, defaultdict, deque
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from transfer_model.checkpoint import read_state_dicts
from transfer_model.errors import WeightsError
from transfer_model.torch_file_reader import (
    STATE_DICTS,
    Placeholder,
    RestrictedUnpickler,
    find_state_dicts,
    load,
    save,
    versions,
)


class UnknownModule(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        self.bn = nn.BatchNorm2d(4)


class AttributeDict(dict[str, object]):
    """Dictionary with attributes, as in Lightning and in many configuration libraries."""

    def __init__(self, *items: object, **named: object) -> None:
        super().__init__(*items, **named)
        self.frozen = True


class States(OrderedDict[str, object]):
    """State dict of a class that is not loaded."""


class History(list[object]):
    """List of a class that is not loaded."""


class SubclassedTensor(torch.Tensor):
    """Tensor of a class that is not loaded."""


OTHER_OBJECTS = {
    "dict": AttributeDict(lr=0.1),
    "nested": AttributeDict(model=AttributeDict(name="resnet")),
    "defaultdict": defaultdict(list, a=[1]),
    "nested defaultdict": defaultdict(functools.partial(defaultdict, int), a=defaultdict(int, b=1)),
    "list": History([1, 2]),
    "one item": History([1]),
    "deque": deque([1.0, 2.0], maxlen=20),
    "set": {AttributeDict, 2},
    "frozenset": frozenset({1, 2}),
    "namespace": argparse.Namespace(model="resnet", values=AttributeDict(a=1)),
    "path": Path("a/b"),
    "method": Path("a").touch,
    "range": range(3),
    "complex": 1j,
    "bytes": bytearray(b"ab"),
    "large number": 1 << 3000,
}


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("kind", OTHER_OBJECTS)
def test_objects_of_other_classes_are_ignored(kind: str, protocol: int, tmp_path: Path) -> None:
    content = {"other": OTHER_OBJECTS[kind], "state_dict": {"w": torch.arange(3.0)}}
    torch.save(content, tmp_path / "checkpoint.pth", pickle_protocol=protocol)
    found = find_state_dicts(load(tmp_path / "checkpoint.pth"))
    assert list(found) == ["state_dict"]
    assert torch.equal(found["state_dict"]["w"], torch.arange(3.0))


@pytest.mark.parametrize("kind", OTHER_OBJECTS)
def test_objects_of_other_classes_are_ignored_in_the_format_before_torch_1_6(kind: str, tmp_path: Path) -> None:
    content = {"other": OTHER_OBJECTS[kind], "state_dict": {"w": torch.arange(3.0)}}
    torch.save(content, tmp_path / "checkpoint.pth", _use_new_zipfile_serialization=False)
    assert torch.equal(find_state_dicts(load(tmp_path / "checkpoint.pth"))["state_dict"]["w"], torch.arange(3.0))


def test_a_state_dict_of_another_class_is_found_with_its_versions(tmp_path: Path) -> None:
    states = States(nn.BatchNorm2d(2).state_dict())
    states._metadata = nn.BatchNorm2d(2).state_dict()._metadata  # type: ignore[attr-defined]
    torch.save(AttributeDict(state_dict=states), tmp_path / "checkpoint.pth")
    found = find_state_dicts(load(tmp_path / "checkpoint.pth"))
    assert list(found) == ["state_dict"]
    assert list(found["state_dict"]) == list(states)
    assert versions(found["state_dict"]) == {"": 2}


def test_a_tensor_of_another_class_becomes_a_plain_tensor(tmp_path: Path) -> None:
    tensor = torch.arange(3.0).as_subclass(SubclassedTensor)
    torch.save({"w": tensor}, tmp_path / "checkpoint.pth")
    loaded = find_state_dicts(load(tmp_path / "checkpoint.pth"))[""]["w"]
    assert type(loaded) is torch.Tensor
    assert torch.equal(loaded, torch.arange(3.0))


@pytest.mark.parametrize(
    ("operations", "changed"),
    [
        (b"ctorch\nTensor\n)RK\x00K\x01s.", "Tensor"),
        (b"ctorch\nTensor\n)R(K\x00K\x01u.", "Tensor"),
        (b"ctorch\nSize\n)RK\x00a.", "Size"),
        (b"ctorch\nSize\n)R(K\x00e.", "Size"),
        (b"ctorch._utils\n_rebuild_tensor\n}b.", "function"),
        (b"ctorch\nTensor\n}b.", "_TensorMeta"),
    ],
)
def test_other_objects_cannot_be_changed(operations: bytes, changed: str) -> None:
    with pytest.raises(pickle.UnpicklingError, match=f"changes an object of type {changed}"):
        RestrictedUnpickler(io.BytesIO(operations)).load()


@pytest.mark.parametrize("name", ["os\nsystem", "posix\nsystem", "builtins\neval", "torch.storage\n_load_from_bytes"])
def test_other_functions_are_not_called(name: str) -> None:
    loaded = RestrictedUnpickler(io.BytesIO(f"c{name}\n(X\x01\0\0\0xtR.".encode())).load()
    assert isinstance(loaded, Placeholder)


def test_a_sparse_tensor_with_indices_out_of_bounds_is_refused(tmp_path: Path) -> None:
    tensor = torch.sparse_coo_tensor(torch.tensor([[7]]), torch.ones(1), (3,), check_invariants=False)
    torch.save({"w": tensor}, tmp_path / "weights.pth")
    with pytest.raises(RuntimeError, match="size is inconsistent with indices"):
        load(tmp_path / "weights.pth")


def test_the_file_name_does_not_matter(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(1)}, tmp_path / "weights.safetensors")
    assert list(find_state_dicts(load(tmp_path / "weights.safetensors"))[""]) == ["w"]


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
    with pytest.raises(
        WeightsError, match=r"is damaged: it starts like a safetensors file, .*\); download or copy it again"
    ):
        read_state_dicts(tmp_path / "weights.safetensors")
    with pytest.raises(WeightsError, match=r"the weights file .* does not exist"):
        read_state_dicts(tmp_path / "none.pth")
