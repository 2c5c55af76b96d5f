"""Where a network's heads and stages are: found by watching it, not from a list of special names.

A network is built twice without memory, for two numbers of classes: what differs is a classifier. Then one
forward pass over images without content shows which modules run, and in which order.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from .backbones import Backbone, create
from .errors import ModelError
from .heads import PooledHead, in_features, mean_pool
from .memoryless import without_memory
from .watching import ForwardTrace

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_BULK = 0.9
"""A module with more than this share of all parameters is no stage but the home of several."""

_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


@dataclass(frozen=True)
class AuxiliaryHead:
    """A branch that ends in a classifier of its own and runs in training only, as in Inception v3.

    Attributes:
        branch: Module that holds all of it, such as `AuxLogits`.
        head: Its classifier, such as `AuxLogits.fc`.
        position: Where its logits stand in the tuple that the network returns in training.
        after: How many stages have begun when it runs: it hangs on the last of them.
    """

    branch: str
    head: str
    position: int
    after: int


@dataclass(frozen=True)
class NetworkStructure:
    """The parts of a network, by the names of its modules.

    Attributes:
        heads: Classifiers of the logits; several where a network averages them (DeiT, CrossViT).
        features: Width of the first head's input.
        auxiliary: Classifiers that run in training only.
        stages: From the input to the heads, in the order in which they first run.
        sizes: Parameters of each stage; those that belong to none are counted with the first, those that
            several share (CoaT) with the first of them.
        between: Modules without weights outside of all stages, and how many stages have begun before each.
        separable: Whether the logits are the output of the one head as it is, nothing done to it.
        left_out: Auxiliary branches that this image size leaves no room for.
        pooled: Whether the library has no classifier for it, and a `PooledHead` makes the network one.
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


def build_from_structure(
    backbone: Backbone, anatomy: NetworkStructure, classes: int, image_size: int
) -> nn.Module:
    """Builds the network that an anatomy describes, its heads still the library's (or a placeholder)."""
    network = create(backbone, classes, image_size, auxiliary=not anatomy.unused_auxiliary)
    return PooledHead(network, anatomy.features) if anatomy.pooled else network


@lru_cache(maxsize=64)
def find_structure(backbone: Backbone, image_size: int) -> NetworkStructure:
    """Finds heads and stages of a network without allocating its weights.

    Args:
        backbone: From `catalog.resolve`.
        image_size: S in pixels.

    Raises:
        ModelError: The network cannot take images of this size.
    """
    try:
        with torch.random.fork_rng(devices=[]):  # looking at a network must not change what is drawn next
            return _find_structure(backbone, image_size)
    except (RuntimeError, ValueError, AssertionError, TypeError, AttributeError, LookupError) as error:
        # Libraries refuse a size in any of these ways, from asserts while building to shapes that do not fit.
        raise ModelError(
            f"{backbone.key} cannot take images of {image_size} x {image_size} pixels: {_first_line(error)}; "
            "the image size it was made for always works: leave image_size out or see `platform backbones`"
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _find_structure(backbone: Backbone, image_size: int) -> NetworkStructure:
    network = _build(backbone, 2, image_size)
    classifiers = _classifiers(network, _build(backbone, 3, image_size))
    images = torch.empty(2, 3, image_size, image_size, device="meta")
    if not classifiers:
        features = mean_pool(ForwardTrace(network.eval(), ()).run(images)).shape[1]
        network, classifiers = PooledHead(network, features).to("meta"), ("head",)
        pooling = True
    else:
        pooling = False
    watch = ForwardTrace(network.eval(), classifiers)
    output = watch.run(images)
    heads = tuple(name for name in classifiers if name in watch.order)
    branches = {name.split(".")[0]: name for name in classifiers if name not in watch.order}
    stages, places = _stages(network, classifiers, branches, watch.order)
    auxiliary = _auxiliary(network, branches, stages, images)
    outputs = [result for name in heads for result in watch.outputs[name]]
    return NetworkStructure(
        heads=heads,
        features=in_features(network.get_submodule(heads[0])),
        auxiliary=auxiliary,
        stages=stages,
        sizes=_sizes(network, stages, (*heads, *branches)),
        weightless_modules=_between(network, (*stages, *branches, *heads), places, watch.order),
        head_is_output=len(outputs) == 1 and outputs[0] is output,
        unused_auxiliary=() if auxiliary else tuple(branches),
        pooled=pooling,
    )


def _build(backbone: Backbone, classes: int, image_size: int) -> nn.Module:
    try:
        with without_memory():
            return create(backbone, classes, image_size).to("meta")
    except RuntimeError:  # a few networks calculate with their first weights, and need them for that
        return create(backbone, classes, image_size).to("meta")


def _classifiers(network: nn.Module, wider: nn.Module) -> tuple[str, ...]:
    """Names of the modules whose shapes follow the number of classes."""
    shapes = {name: tensor.shape for name, tensor in wider.state_dict().items()}
    changed = [name for name, tensor in network.state_dict().items() if tensor.shape != shapes[name]]
    return tuple(dict.fromkeys(name.rpartition(".")[0] for name in changed))


def _stages(
    network: nn.Module, classifiers: tuple[str, ...], branches: Mapping[str, str], order: Mapping[str, int]
) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Names of the stages in the order of their first call, and the number of that call."""
    found = {}
    for name in _divide(network, "", _size(network), (*classifiers, *branches)):
        calls = [place for called, place in order.items() if called == name or called.startswith(f"{name}.")]
        if calls and network.get_submodule(name).state_dict():
            found[name] = min(calls)
    names = _without_aliases(network, sorted(found, key=lambda name: found[name]))
    return names, tuple(found[name] for name in names)


def _without_aliases(network: nn.Module, names: list[str]) -> tuple[str, ...]:
    """Leaves out stages that consist of parts of earlier ones under a second name, as in CoaT."""
    seen: set[int] = set()
    kept = []
    for name in names:
        own = {id(tensor) for tensor in network.get_submodule(name).state_dict(keep_vars=True).values()}
        if own - seen:
            kept.append(name)
        seen |= own
    return tuple(kept)


def _divide(module: nn.Module, name: str, total: int, taken: tuple[str, ...]) -> Iterator[str]:
    """Divides a module: containers fall into their members, and so does whatever holds a head or the bulk."""
    for child_name, child in module.named_children():
        full = f"{name}.{child_name}" if name else child_name
        if full in taken:
            continue
        holds_head = any(head.startswith(f"{full}.") for head in taken)
        opened = isinstance(child, _CONTAINERS) and not isinstance(module, _CONTAINERS)
        has_children = next(child.children(), None) is not None
        if holds_head or (has_children and (opened or _size(child) > _BULK * total)):
            yield from _divide(child, full, total, taken)
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


def _between(
    network: nn.Module, parts: tuple[str, ...], places: tuple[int, ...], order: Mapping[str, int]
) -> tuple[tuple[str, int], ...]:
    """Modules without weights that are neither in one of the parts nor around one."""
    found = []
    for name, place in order.items():
        apart = not any(f"{part}.".startswith(f"{name}.") or name.startswith(f"{part}.") for part in parts)
        if name and apart and not network.get_submodule(name).state_dict():
            found.append((name, sum(began < place for began in places)))
    return tuple(found)


def _auxiliary(
    network: nn.Module, branches: Mapping[str, str], stages: tuple[str, ...], images: Tensor
) -> tuple[AuxiliaryHead, ...]:
    """The branches that only training runs; none of them where the image size leaves no room for one."""
    if not branches:
        return ()
    watch = ForwardTrace(network.train(), tuple(branches.values()))
    try:
        outputs = watch.run(images)
    except RuntimeError:  # a convolution larger than the map that it is given
        return ()
    return tuple(
        AuxiliaryHead(
            branch,
            head,
            position=next(at for at, output in enumerate(outputs) if output is watch.outputs[head][0]),
            after=sum(watch.order[stage] < watch.order[branch] for stage in stages if stage in watch.order),
        )
        for branch, head in branches.items()
    )


def parameters_outside(network: nn.Module, parts: tuple[str, ...]) -> Iterator[nn.Parameter]:
    """Parameters of a network that belong to none of the modules named: class tokens, position embeddings."""
    inside = {id(parameter) for part in parts for parameter in network.get_submodule(part).parameters()}
    return (parameter for parameter in network.parameters() if id(parameter) not in inside)
