"""Fuses batch norm layers into the preceding convolutions for faster inference."""

from collections import Counter
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from timm.layers.conv2d_same import Conv2dSame
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

_CONVOLUTIONS = (nn.Conv2d, Conv2dSame)
"""Layers are matched by exact type; other subclasses of `Conv2d`, such as weight-standardized ones, cannot be fused."""
_TOLERANCE = 1e-4
"""Maximum accepted change in any output, relative to the largest output; rounding errors are only about 1e-6."""


def fuse_batch_norms(network: nn.Module, images: Tensor) -> int:
    """Fuses batch norm layers into convolutions in place; the resulting network only supports inference.

    Args:
        network: Network in evaluation mode.
        images: Images (B, 3, S, S) used to trace the network and to compare its outputs before and after fusion.

    Returns:
        Number of fused layers; 0 if fusion was undone because it changed the outputs too much.
    """
    with torch.no_grad():
        before, pairs = _trace(network, images)
        originals = [(network.get_submodule(norm), conv.weight, conv.bias) for conv, norm in pairs]
        for convolution, norm in pairs:
            _fuse_pair(network, convolution, norm)
        change, largest = (network(images) - before).abs().max(), before.abs().max()
        if change <= _TOLERANCE * largest:  # False if there is a NaN
            return len(pairs)
        for (convolution, norm), (module, weight, bias) in zip(pairs, originals, strict=True):
            network.set_submodule(norm, module)
            convolution.weight, convolution.bias = weight, bias
    return 0


def _trace(network: nn.Module, images: Tensor) -> tuple[Tensor, list[tuple[nn.Conv2d, str]]]:
    """Returns the network's output and the layers to fuse, as pairs of a convolution and the name of its batch norm."""
    outputs: dict[int, tuple[nn.Conv2d, Tensor]] = {}
    producers: dict[str, list[nn.Conv2d | None]] = {}
    calls: Counter[nn.Module] = Counter()

    def record_output(module: nn.Module, _inputs: object, output: Tensor) -> None:
        assert isinstance(module, nn.Conv2d)
        calls[module] += 1
        outputs[id(output)] = (module, output)  # keeps the tensor alive so that its id is not reused

    def record_input(name: str, _module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        producers.setdefault(name, []).append(outputs.get(id(inputs[0]), (None, None))[0])

    with ExitStack() as hooks:
        for name, module in network.named_modules():
            if type(module) in _CONVOLUTIONS:
                hooks.callback(module.register_forward_hook(record_output).remove)
            elif type(module) in (nn.BatchNorm2d, BatchNormAct2d):
                hooks.callback(module.register_forward_pre_hook(partial(record_input, name)).remove)
        result = network(images)
    return result, [
        (convolution, name)
        for name, (convolution, *others) in producers.items()
        if convolution is not None and not others and calls[convolution] == 1
    ]


def _fuse_pair(network: nn.Module, convolution: nn.Conv2d, name: str) -> None:
    norm: Any = network.get_submodule(name)
    convolution.weight, convolution.bias = fuse_conv_bn_weights(
        convolution.weight, convolution.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
    )
    rest = nn.Sequential(norm.drop, norm.act) if isinstance(norm, BatchNormAct2d) else nn.Identity()
    network.set_submodule(name, rest.eval())
