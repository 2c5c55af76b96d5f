"""Finds the heads and stages of a network by tracing it on the meta device.

Each network is built twice, with different numbers of classes: modules whose parameter shapes differ are classifiers. A
forward pass then shows which modules run, and in which order. No list of architectures is needed.
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor, nn

from .backbones import Backbone, create_network
from .errors import ModelError, cause
from .heads import PooledHead, in_features, mean_pool

_MAX_STAGE_SHARE = 0.9
"""A module with more than this fraction of all parameters is divided into several stages."""

_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


@dataclass(frozen=True)
class AuxiliaryHead:
    """Branch that has its own classifier and runs only in training mode, such as that of Inception v3.

    Attributes:
        branch: Name of the module that contains the whole branch, such as `AuxLogits`.
        head: Name of the branch's classifier, such as `AuxLogits.fc`.
        position: Index of the branch's logits in the tuple returned by the network in training mode.
        stages_before: Number of stages that run before the branch; the last of these provides the branch's input.
    """

    branch: str
    head: str
    position: int
    stages_before: int


@dataclass(frozen=True)
class NetworkStructure:
    """Parts of a network, identified by module name.

    Attributes:
        heads: Classifiers that produce the logits; several if the network averages their outputs (DeiT, CrossViT).
        features: Number of input features of the first head.
        auxiliary: Auxiliary branches, which run only in training mode.
        stages: Stages from the input to the heads, in the order in which they are first called.
        sizes: Number of parameters in each stage. Parameters outside all stages and heads count toward the first stage.
            Parameters that several stages share, as in CoaT, count only toward the earliest of these stages.
        weightless_modules: Weightless modules outside the stages, each with the number of stages before it.
        head_is_output: True if there is a single head and the network returns that head's output unchanged.
        unused_auxiliary: Auxiliary branches that cannot run because the images are too small.
        pooled: True if the library's network has no classifier and therefore needs a `PooledHead`.
    """

    heads: tuple[str, ...]
    features: int
    auxiliary: tuple[AuxiliaryHead, ...]
    stages: tuple[str, ...]
    sizes: tuple[int, ...]
    weightless_modules: tuple[tuple[str, int], ...]
    head_is_output: bool
    unused_auxiliary: tuple[str, ...] = ()
    pooled: bool = False


class ForwardTrace:
    """Records module calls and classifier outputs during one forward pass on the meta device.

    Attributes:
        order: Position of each module in the order of first calls, starting at 0, keyed by module name.
        outputs: Outputs of each classifier in call order, keyed by module name.
    """

    def __init__(self, network: nn.Module, classifiers: tuple[str, ...]) -> None:
        self._network = network
        self._classifiers = classifiers
        self.order: dict[str, int] = {}
        self.outputs: dict[str, list[Tensor]] = {}

    def run(self, images: Tensor) -> Any:  # noqa: ANN401 - a tensor, or a tuple in training mode
        """Runs the network on images (B, 3, S, S) on the meta device and returns its output."""
        with ExitStack() as hooks, torch.no_grad(), torch.device("meta"):
            for name, module in self._network.named_modules():
                hooks.callback(module.register_forward_pre_hook(partial(self._record_call, name)).remove)
            for name in self._classifiers:
                module = self._network.get_submodule(name)
                hooks.callback(module.register_forward_hook(partial(self._record_output, name)).remove)
            return self._network(images)

    def _record_call(self, name: str, _module: nn.Module, _inputs: object) -> None:
        self.order.setdefault(name, len(self.order))

    def _record_output(self, name: str, _module: nn.Module, _inputs: object, output: Tensor) -> None:
        self.outputs.setdefault(name, []).append(output)


def build_from_structure(backbone: Backbone, structure: NetworkStructure, classes: int, image_size: int) -> nn.Module:
    """Builds a network with the library's own heads, or a `PooledHead` if the library has none."""
    network = create_network(backbone, classes, image_size, auxiliary=not structure.unused_auxiliary)
    return PooledHead(network, structure.features) if structure.pooled else network


def parameters_outside(network: nn.Module, modules: tuple[str, ...]) -> Iterator[nn.Parameter]:
    """Returns the parameters outside the given modules, such as class tokens and position embeddings."""
    inside = {id(parameter) for name in modules for parameter in network.get_submodule(name).parameters()}
    return (parameter for parameter in network.parameters() if id(parameter) not in inside)


@lru_cache(maxsize=64)
def find_structure(backbone: Backbone, image_size: int) -> NetworkStructure:
    """Finds a network's heads and stages by tracing it on the meta device with square images of `image_size` pixels.

    Raises:
        ModelError: The network does not accept images of this size.
    """
    try:
        with torch.random.fork_rng(devices=[]):  # leaves the global random state unchanged
            return _find_structure(backbone, image_size)
    except (RuntimeError, ValueError, AssertionError, TypeError, AttributeError, LookupError) as error:
        # Libraries reject an image size with any of these, from assertions in constructors to shape mismatches.
        reason = cause(error)
        raise ModelError(
            f"{backbone.key} does not accept images of {image_size} x {image_size} pixels: {reason}; omit image_size "
            "to use the default size listed by `platform backbones`"
        ) from error


def _find_structure(backbone: Backbone, image_size: int) -> NetworkStructure:
    network = build_on_meta(backbone, 2, image_size)
    classifiers = _classifiers(network, build_on_meta(backbone, 3, image_size))
    images = torch.empty(2, 3, image_size, image_size, device="meta")
    pooled = not classifiers
    if pooled:
        features = mean_pool(ForwardTrace(network.eval(), ()).run(images)).shape[1]
        network, classifiers = PooledHead(network, features).to("meta"), ("head",)
    trace = ForwardTrace(network.eval(), classifiers)
    output = trace.run(images)
    heads = tuple(name for name in classifiers if name in trace.order)
    branches = {name.split(".")[0]: name for name in classifiers if name not in trace.order}
    stages, first_calls = _stages(network, classifiers, branches, trace.order)
    auxiliary = _auxiliary_heads(network, branches, stages, images)
    outputs = [result for name in heads for result in trace.outputs[name]]
    return NetworkStructure(
        heads=heads,
        features=in_features(network.get_submodule(heads[0])),
        auxiliary=auxiliary,
        stages=stages,
        sizes=_sizes(network, stages, (*heads, *branches)),
        weightless_modules=_weightless_modules(network, (*stages, *branches, *heads), first_calls, trace.order),
        head_is_output=len(outputs) == 1 and outputs[0] is output,
        unused_auxiliary=() if auxiliary else tuple(branches),
        pooled=pooled,
    )


def build_on_meta(backbone: Backbone, classes: int, image_size: int) -> nn.Module:
    """Builds a network with the library's own classifier on the meta device, where tensors have no values."""
    try:
        with torch.device("meta"):
            return create_network(backbone, classes, image_size)
    except RuntimeError:  # the constructor needs tensor values, as in torchvision's RegNet
        return create_network(backbone, classes, image_size).to("meta")


def _classifiers(network: nn.Module, other: nn.Module) -> tuple[str, ...]:
    """Returns the names of the modules whose parameter shapes depend on the number of classes."""
    shapes = {name: tensor.shape for name, tensor in other.state_dict().items()}
    changed = [name for name, tensor in network.state_dict().items() if tensor.shape != shapes[name]]
    return tuple(dict.fromkeys(name.rpartition(".")[0] for name in changed))


def _stages(
    network: nn.Module, classifiers: tuple[str, ...], branches: Mapping[str, str], order: Mapping[str, int]
) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Returns the stages in the order of their first calls, and the position of each in `ForwardTrace.order`."""
    first_calls = {}
    for name in _divide(network, "", _size(network), (*classifiers, *branches)):
        calls = [index for called, index in order.items() if called == name or called.startswith(f"{name}.")]
        if calls and network.get_submodule(name).state_dict():
            first_calls[name] = min(calls)
    names = _without_aliases(network, sorted(first_calls, key=lambda name: first_calls[name]))
    return names, tuple(first_calls[name] for name in names)


def _without_aliases(network: nn.Module, names: list[str]) -> tuple[str, ...]:
    """Removes stages whose tensors all belong to earlier stages; CoaT has such stages."""
    earlier: set[int] = set()
    distinct = []
    for name in names:
        own = {id(tensor) for tensor in network.get_submodule(name).state_dict(keep_vars=True).values()}
        if own - earlier:
            distinct.append(name)
        earlier |= own
    return tuple(distinct)


def _divide(module: nn.Module, name: str, total: int, excluded: tuple[str, ...]) -> Iterator[str]:
    """Yields stage names, recursing into containers, very large modules, and modules that contain a head."""
    for child_name, child in module.named_children():
        full = f"{name}.{child_name}" if name else child_name
        if full in excluded:
            continue
        contains_head = any(head.startswith(f"{full}.") for head in excluded)
        is_container = isinstance(child, _CONTAINERS) and not isinstance(module, _CONTAINERS)
        has_children = next(child.children(), None) is not None
        if contains_head or (has_children and (is_container or _size(child) > _MAX_STAGE_SHARE * total)):
            yield from _divide(child, full, total, excluded)
        else:
            yield full


def _sizes(network: nn.Module, stages: tuple[str, ...], others: tuple[str, ...]) -> tuple[int, ...]:
    counted = {id(parameter) for name in others for parameter in network.get_submodule(name).parameters()}
    sizes = []
    for index, name in enumerate(stages):
        own = list(network.get_submodule(name).parameters())
        own += parameters_outside(network, (*stages, *others)) if index == 0 else []
        sizes.append(sum(parameter.numel() for parameter in own if id(parameter) not in counted))
        counted |= {id(parameter) for parameter in own}
    return tuple(sizes)


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _weightless_modules(
    network: nn.Module, parts: tuple[str, ...], first_calls: tuple[int, ...], order: Mapping[str, int]
) -> tuple[tuple[str, int], ...]:
    """Returns the weightless modules outside the given parts, each with the number of stages that run before it."""
    modules = []
    for name, index in order.items():
        outside = not any(f"{part}.".startswith(f"{name}.") or name.startswith(f"{part}.") for part in parts)
        if name and outside and not network.get_submodule(name).state_dict():
            modules.append((name, sum(call < index for call in first_calls)))
    return tuple(modules)


def _auxiliary_heads(
    network: nn.Module, branches: Mapping[str, str], stages: tuple[str, ...], images: Tensor
) -> tuple[AuxiliaryHead, ...]:
    """Returns the branches that run only in training mode, or () if the images are too small for them."""
    if not branches:
        return ()
    trace = ForwardTrace(network.train(), tuple(branches.values()))
    try:
        outputs = trace.run(images)
    except RuntimeError:  # a kernel is larger than its feature map
        return ()
    return tuple(
        AuxiliaryHead(
            branch,
            head,
            position=next(i for i, output in enumerate(outputs) if output is trace.outputs[head][0]),
            stages_before=sum(trace.order[stage] < trace.order[branch] for stage in stages if stage in trace.order),
        )
        for branch, head in branches.items()
    )
