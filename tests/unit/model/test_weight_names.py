"""Weights are found below every wrapper and prefix."""

from __future__ import annotations

import re
from collections import OrderedDict
from functools import lru_cache
from typing import TYPE_CHECKING

import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from network_states import assert_backbone_is, spec, state
from safetensors.torch import save_file

from transfer_model import weight_files
from transfer_model.checkpoint import StateDict
from transfer_model.errors import WeightsError
from transfer_model.network import build_network
from transfer_model.torch_file_reader import find_state_dicts, load
from transfer_model.weight_names import find_candidates

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

WRAPPERS = ("", "state_dict", "model", "model_state_dict", "state_dict_ema", "model_ema", "teacher", "ema.state_dict")
PARTS = ("module", "backbone", "encoder", "_orig_mod", "model", "net", "encoder_q", "teacher", "0")


@lru_cache
def original() -> dict[str, Tensor]:
    return state(timm.create_model("test_resnet", num_classes=7))


@lru_cache
def headless() -> dict[str, Tensor]:
    return {name: tensor for name, tensor in original().items() if not name.startswith("fc.")}


def shapes(tensors: dict[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def wrapped(content: dict[str, Tensor], path: str) -> dict[str, object]:
    checkpoint: dict[str, object] = dict(content)
    for key in reversed(path.split(".") if path else []):
        checkpoint = {"epoch": 3, key: checkpoint}
    return checkpoint


def read(checkpoint: dict[str, object]) -> list[StateDict]:
    return [StateDict(path, OrderedDict(tensors)) for path, tensors in find_state_dicts(checkpoint).items()]


@given(
    wrapper=st.sampled_from(WRAPPERS),
    parts=st.lists(st.sampled_from(PARTS), max_size=4),
    head=st.sampled_from(["none", "its own", "beside", "other"]),
    half=st.booleans(),
)
@settings(max_examples=60)
def test_every_wrapper_and_prefix_with_any_head(wrapper: str, parts: list[str], head: str, half: bool) -> None:
    prefix = "".join(f"{part}." for part in parts)
    content = {f"{prefix}{name}": tensor for name, tensor in headless().items()}
    content |= {
        "none": {},
        "its own": {f"{prefix}fc.weight": torch.ones(7, 64), f"{prefix}fc.bias": torch.ones(7)},
        "beside": {"projector.0.weight": torch.ones(2, 2)} if prefix else {},
        "other": {f"{prefix}fc.0.weight": torch.ones(5, 64), f"{prefix}fc.2.weight": torch.ones(7, 5)},
    }[head]
    content = {name: tensor.half() if half else tensor for name, tensor in content.items()}
    best, *others = find_candidates(read(wrapped(content, wrapper)), shapes(headless()))
    assert not others
    assert (best.path, best.prefix) == (wrapper, prefix)
    assert best.tensors.keys() - headless().keys() == {
        name.removeprefix(prefix) for name in content if name.startswith(f"{prefix}fc.")
    }
    assert all(torch.equal(best.tensors[name], content[prefix + name]) for name in headless())
    assert set(best.unused) == {name for name in content if not name.startswith(prefix)}


@given(
    prefix=st.lists(st.sampled_from(PARTS), max_size=3).map(lambda parts: "".join(f"{part}." for part in parts)),
    half=st.booleans(),
)
@settings(max_examples=10)
def test_a_network_is_built_from_every_prefix(
    prefix: str, half: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.mktemp("weights") / "weights.safetensors"
    save_file({prefix + name: tensor.half() if half else tensor for name, tensor in original().items()}, file)
    network = build_network(spec("timm/test_resnet"), file)
    expected = {name: (tensor.half() if half else tensor).to(tensor.dtype) for name, tensor in headless().items()}
    assert_backbone_is(network, expected, heads=())


@lru_cache
def vit(head: str) -> dict[str, Tensor]:
    """Weights of a transformer for images of 160 pixels; the head is none, its own, or that of other software."""
    tensors = state(timm.create_model("test_vit", num_classes=0 if head == "none" else 7))
    if head == "other":
        tensors = {name.replace("head.", "head.mlp.0."): tensor for name, tensor in tensors.items()}
    return tensors


def read_here(path: Path) -> list[StateDict]:
    """Reads a torch file without a separate process."""
    return read(load(path))  # type: ignore[arg-type]


@given(
    wrapper=st.sampled_from(WRAPPERS),
    parts=st.lists(st.sampled_from(PARTS), max_size=3),
    averaged=st.sampled_from(["", "model_ema", "teacher"]),
    head=st.sampled_from(["none", "its own", "other"]),
    half=st.booleans(),
    size=st.sampled_from([160, 64]),
)
@settings(max_examples=40)
def test_a_network_is_built_from_every_form_and_the_summary_says_how(
    wrapper: str,
    parts: list[str],
    averaged: str,
    head: str,
    half: bool,
    size: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    prefix = "".join(f"{part}." for part in parts)
    content = {prefix + name: tensor.half() if half else tensor for name, tensor in vit(head).items()}
    checkpoint = wrapped(content, wrapper)
    averaged = averaged if wrapper in ("", "state_dict", "model") and "teacher" not in parts else ""
    if averaged:  # the weights of the last step are others
        last = {name: torch.zeros_like(tensor) for name, tensor in content.items()}
        checkpoint = {**wrapped(last, wrapper), averaged: content}
    file = tmp_path_factory.mktemp("weights") / "mine.pth"
    torch.save(checkpoint, file)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(weight_files, "read_state_dicts", read_here)
        network = build_network(spec("timm/test_vit", size=size), file)
    expected = {name: (tensor.half() if half else tensor).to(tensor.dtype) for name, tensor in vit(head).items()}
    assert_backbone_is(network, expected, heads=("head.", *["pos_embed"] * (size != 160)))
    source, summary = ".".join(part for part in (averaged or wrapper, *parts) if part), network.weights_summary
    count = len(vit("none"))
    assert summary.startswith(f"weights from mine.pth{f' ({source})' if source else ''}: {count} tensors loaded")
    assert ("; resized pos_embed (1, 101, 64) to (1, 17, 64)" in summary) == (size != 160)
    assert (
        re.findall("; not used: (.*)", summary)
        == {"none": [], "its own": ["head.weight, head.bias"], "other": ["head.mlp.0.weight, head.mlp.0.bias"]}[head]
    )


@pytest.mark.parametrize("last", ["student", "state_dict", "model"])
@pytest.mark.parametrize("averaged", ["teacher", "model_ema", "state_dict_ema", "ema"])
def test_an_averaged_copy_is_preferred_in_any_order(last: str, averaged: str) -> None:
    for keys in ((last, averaged), (averaged, last)):
        best, *_ = find_candidates(read({key: headless() for key in keys}), shapes(headless()))
        assert best.path == averaged


def test_an_averaged_copy_of_another_network_is_not_preferred() -> None:
    checkpoint = {"model": headless(), "model_ema": {"w": torch.ones(1)}}
    best, *_ = find_candidates(read(checkpoint), shapes(headless()))
    assert best.path == "model"


class TestSummary:
    def test_names_what_was_loaded_and_what_was_not_used(self, tmp_path: Path) -> None:
        content = {f"backbone.{name}": tensor for name, tensor in headless().items()}
        save_file({**content, "projector.weight": torch.ones(1)}, tmp_path / "mine.safetensors")
        network = build_network(spec("timm/test_resnet"), tmp_path / "mine.safetensors")
        count = len(headless())
        assert network.weights_summary == (
            f"weights from mine.safetensors (backbone): {count} tensors loaded; not used: projector.weight"
        )

    def test_names_what_was_resized(self, tmp_path: Path) -> None:
        save_file(state(timm.create_model("test_vit", num_classes=0)), tmp_path / "mine.safetensors")
        network = build_network(spec("timm/test_vit", size=64), tmp_path / "mine.safetensors")
        assert "; resized pos_embed (1, 101, 64) to (1, 17, 64)" in network.weights_summary

    def test_names_a_norm_layer_that_a_file_without_a_head_lacks(self, tmp_path: Path) -> None:
        original = timm.create_model("levit_128s", num_classes=0)
        save_file(state(original), tmp_path / "mine.safetensors")
        network = build_network(spec("levit_128s", size=224), tmp_path / "mine.safetensors")
        assert "; not in the file: head.bn.bias, head.bn.num_batches_tracked, " in network.weights_summary
        assert_backbone_is(network, state(original), heads=())

    def test_is_empty_for_random_weights(self) -> None:
        assert build_network(spec("timm/test_resnet")).weights_summary == ""


class TestRefusal:
    def test_of_values_that_are_not_finite(self, tmp_path: Path) -> None:
        for value in ("nan", "inf"):
            broken = {**original(), "bn1.weight": original()["bn1.weight"] * float(value)}
            save_file(broken, tmp_path / "weights.safetensors")
            with pytest.raises(WeightsError, match=r"contain NaN or infinite values in 1 of .*, first in bn1\.weight"):
                build_network(spec("timm/test_resnet"), tmp_path / "weights.safetensors")

    def test_of_integers(self, tmp_path: Path) -> None:
        save_file({name: tensor.to(torch.int8) for name, tensor in original().items()}, tmp_path / "w.safetensors")
        with pytest.raises(WeightsError, match=r"contain torch\.int8 values where the network has floating-point"):
            build_network(spec("timm/test_resnet"), tmp_path / "w.safetensors")

    def test_lists_the_names_in_the_file_and_in_the_network(self, tmp_path: Path) -> None:
        save_file({f"zzz.other{index}.weight": torch.ones(1) for index in range(90)}, tmp_path / "w.safetensors")
        with pytest.raises(WeightsError) as error:
            build_network(spec("timm/test_resnet"), tmp_path / "w.safetensors")
        signs = [line[0] for line in str(error.value).splitlines()[1:]]
        assert (signs.count("-"), signs.count("+"), signs[-1]) == (10, 10, ".")

    def test_says_that_the_file_has_more_than_the_network(self, tmp_path: Path) -> None:
        save_file({**original(), "decoder.weight": torch.ones(1)}, tmp_path / "w.safetensors")
        with pytest.raises(WeightsError, match=r"contain all tensors of timm/test_resnet and additional(?s:.*)decoder"):
            build_network(spec("timm/test_resnet"), tmp_path / "w.safetensors")

    def test_names_the_image_size_if_that_is_the_reason(self, tmp_path: Path) -> None:
        save_file(state(timm.create_model("levit_128s")), tmp_path / "w.safetensors")
        with pytest.raises(WeightsError, match="for images of 224 x 224 pixels and cannot be converted to 96 x 96"):
            build_network(spec("levit_128s", size=96), tmp_path / "w.safetensors")
