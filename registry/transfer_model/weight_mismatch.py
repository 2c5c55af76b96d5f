"""Explains why weights do not match a network."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from . import backbones
from .backbones import Backbone
from .structure import build_on_meta

_MAX_LISTED = 20


def differences(
    tensors: Mapping[str, Tensor],
    module: nn.Module,
    ignored: tuple[str, ...] = (),
    absent: frozenset[str] = frozenset(),
) -> list[str]:
    """Lists differences in names and shapes between a file (+) and a network (-), sorted by name.

    The list does not include missing `num_batches_tracked` tensors, missing tensors listed in `absent`, or tensors in
    `ignored` modules.
    """
    skipped = tuple(f"{name}." for name in ignored)
    expected = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    actual = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    lines = []
    for name in sorted(expected.keys() | actual.keys()):
        optional = (name.endswith("num_batches_tracked") or name in absent) and name not in actual
        if name.startswith(skipped) or optional or expected.get(name) == actual.get(name):
            continue
        lines += [f"- {name} {expected[name]}"] if name in expected else []
        lines += [f"+ {name} {actual[name]}"] if name in actual else []
    return lines


def describe_mismatch(path: Path, backbone: Backbone, found: list[str]) -> str:
    """Returns an error message that lists the first mismatches: tensors of the network (-) and of the file (+)."""
    missing = [line for line in found if line.startswith("-")]
    extra = [line for line in found if line.startswith("+")]
    half = _MAX_LISTED // 2
    shown = {*missing[: max(half, _MAX_LISTED - len(extra))], *extra[: max(half, _MAX_LISTED - len(missing))]}
    lines = [line for line in found if line in shown]
    lines += [f"... and {len(found) - len(lines)} more"] if len(found) > len(lines) else []
    title = f"the weights in {path} do not match {backbone.key} (-: network, +: file):"
    if not missing:
        title = (
            f"the weights in {path} contain all tensors of {backbone.key} and additional tensors (+); if these are not "
            "needed, remove them from the file; otherwise, use the network that the weights belong to:"
        )
    return "\n".join([title, *lines])


def describe_image_size(
    path: Path,
    backbone: Backbone,
    tensors: Mapping[str, Tensor],
    ignored: tuple[str, ...],
    absent: frozenset[str],
    image_size: int,
) -> str:
    """Returns an error message if the weights fit the network at another known image size; otherwise, ""."""
    sizes = {prepared.image_size for prepared in backbones.preprocessings(backbone).values()} - {image_size}
    for size in sorted(sizes):
        if not differences(tensors, build_on_meta(backbone, 2, size), ignored, absent):
            return (
                f"the weights in {path} are those of {backbone.key} for images of {size} x {size} pixels and cannot be "
                f"converted to {image_size} x {image_size}, because the shapes of some tensors depend on the image "
                f"size; set image_size to {size}, or use another backbone"
            )
    return ""


def describe_values(path: Path, tensors: Mapping[str, Tensor]) -> str:
    """Returns an error message if tensors contain NaN or infinite values; otherwise, ""."""
    broken = [
        name
        for name, tensor in tensors.items()
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor.float()).all())
    ]
    if not broken:
        return ""
    return (
        f"the weights in {path} contain NaN or infinite values in {len(broken)} of {len(tensors)} tensors, first in "
        f"{broken[0]}; use weights that were saved before training diverged"
    )


def describe_types(path: Path, tensors: Mapping[str, Tensor], module: nn.Module) -> str:
    """Returns an error message if tensors contain integers in place of floating-point numbers; otherwise, ""."""
    state = module.state_dict()
    integers = [
        name
        for name, tensor in tensors.items()
        if name in state and state[name].is_floating_point() and not tensor.is_floating_point()
    ]
    if not integers:
        return ""
    return (
        f"the weights in {path} contain {tensors[integers[0]].dtype} values where the network has floating-point "
        f"numbers, first in {integers[0]}; use weights that are not quantized"
    )
