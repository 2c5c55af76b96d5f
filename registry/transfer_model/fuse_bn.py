"""Batch norms folded into the convolutions before them: the same network with fewer operations, to serve it.

Which norm follows which convolution is observed in a forward pass, and what comes out is compared.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from timm.layers.conv2d_same import Conv2dSame
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

if TYPE_CHECKING:
    from collections.abc import Iterator

_CONVOLUTIONS = (nn.Conv2d, Conv2dSame)
"""Exactly these: others, that standardise their weights first for example, cannot be folded into."""
_TOLERANCE = 1e-4
"""How far outputs may move, as a share of the largest; rounding alone is a hundredth of it."""


def fuse_batch_norms(network: nn.Module, images: Tensor) -> int:
    """Folds batch norms into convolutions, in place; afterwards the network is for inference only.

    Args:
        network: In eval mode.
        images: (B, 3, S, S), to watch the network with.

    Returns:
        How many norms were folded; 0 where the network would have answered otherwise, and is left as it was.
    """
    with torch.no_grad():
        before, pairs = _watched(network, images)
        kept = [
            (norm, network.get_submodule(norm), convolution.weight, convolution.bias)
            for convolution, norm in pairs
        ]
        for convolution, norm in pairs:
            _fold_pair(network, convolution, norm)
        moved, largest = (network(images) - before).abs().max(), before.abs().max()
        if moved <= _TOLERANCE * largest:  # which is false where there is a NaN
            return len(pairs)
        for (convolution, _), (norm, module, weight, bias) in zip(pairs, kept, strict=True):
            network.set_submodule(norm, module)
            convolution.weight, convolution.bias = weight, bias
    return 0


def _watched(network: nn.Module, images: Tensor) -> tuple[Tensor, list[tuple[nn.Conv2d, str]]]:
    """What the network answers, and each convolution whose output was what a norm, by its name, was given."""
    made: dict[int, tuple[nn.Conv2d, Tensor]] = {}
    given: dict[str, list[nn.Conv2d | None]] = {}
    calls: dict[nn.Module, int] = {}

    def convolved(module: nn.Module, _inputs: Any, output: Tensor) -> None:  # noqa: ANN401 - torch's hook
        assert isinstance(module, nn.Conv2d)
        calls[module] = calls.get(module, 0) + 1
        made[id(output)] = (module, output)  # the tensor is kept, or its id would be given to another

    def normalises(name: str) -> Any:  # noqa: ANN401 - torch's hook
        def hook(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            given.setdefault(name, []).append(made.get(id(inputs[0]), (None, None))[0])

        return hook

    with _hooks() as hooks:
        for name, module in network.named_modules():
            if type(module) in _CONVOLUTIONS:
                hooks.append(module.register_forward_hook(convolved))
            elif type(module) in (nn.BatchNorm2d, BatchNormAct2d):
                hooks.append(module.register_forward_pre_hook(normalises(name)))
        answered = network(images)
    pairs = [(seen[0], name) for name, seen in given.items() if len(seen) == 1 and seen[0] is not None]
    return answered, [(convolution, name) for convolution, name in pairs if calls[convolution] == 1]


@contextmanager
def _hooks() -> Iterator[list[Any]]:
    hooks: list[Any] = []
    try:
        yield hooks
    finally:
        for hook in hooks:
            hook.remove()


def _fold_pair(network: nn.Module, convolution: nn.Conv2d, name: str) -> None:
    norm: Any = network.get_submodule(name)
    convolution.weight, convolution.bias = fuse_conv_bn_weights(
        convolution.weight,
        convolution.bias,
        norm.running_mean,
        norm.running_var,
        norm.eps,
        norm.weight,
        norm.bias,
    )
    rest = nn.Sequential(norm.drop, norm.act) if isinstance(norm, BatchNormAct2d) else nn.Identity()
    network.set_submodule(name, rest.eval())
