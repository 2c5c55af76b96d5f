"""Network that consists of a backbone with freezable stages and a new head."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from . import catalog, weight_files
from .architecture import Architecture
from .backbones import class_names, preprocessings
from .errors import ModelError
from .heads import Head, mean_pool
from .neighbors import NeighborClassifier, NeighborSpec
from .structure import NetworkStructure, build_from_structure, find_structure, parameters_outside

if TYPE_CHECKING:
    from torch.utils.hooks import RemovableHandle


@dataclass(frozen=True)
class NetworkSpec:
    """Everything that determines a network's architecture; stored with the model.

    Attributes:
        backbone: Architecture accepted by `catalog.resolve`; a name is converted to an architecture without options.
        classes: Number of classes C.
        dropout: Dropout probability of the head, at least 0 and less than 1.
        image_size: Image side S in pixels.
        labels: For each class, the number of outputs it combines (see `Head`); empty if each class has one output.
        neighbors: Specification of a nearest-neighbor head; None if the head is linear.
    """

    backbone: Architecture
    classes: int
    dropout: float
    image_size: int
    labels: tuple[int, ...] = ()
    neighbors: NeighborSpec | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "backbone", Architecture.of(self.backbone))

    @property
    def outputs(self) -> int:
        """Number of outputs of the last layer."""
        return sum(self.labels) or self.classes

    def to_json(self) -> dict[str, Any]:
        """Returns the fields as JSON values, without `labels` and `neighbors` if they are empty."""
        values = {**asdict(self), "backbone": self.backbone.to_json()}
        return {name: value for name, value in values.items() if value or name not in ("labels", "neighbors")}


def build_network(spec: NetworkSpec, pretrained: Path | None = None) -> Network:
    """Builds a network with a new head and no frozen stages.

    `pretrained` is a safetensors or torch file with backbone weights for any number of classes. Weights that
    are not loaded from the file are initialized using torch's global random generator.

    Raises:
        UnknownBackboneError: No library provides this backbone.
        WeightsError: The file is unreadable or belongs to another network.
        ModelError: The backbone does not accept images of this size.
    """
    backbone = catalog.resolve(spec.backbone)
    structure = find_structure(backbone, spec.image_size)
    module = build_from_structure(backbone, structure, spec.classes, spec.image_size)
    if pretrained is None:
        return Network(module, structure, spec)
    weights = weight_files.load_backbone_weights(pretrained, backbone, structure, module, spec.image_size)
    weight_files.copy_weights(module, weights.tensors)
    network = Network(module, structure, spec, weights.summary)
    network.load_matching_heads(weights.tensors)
    return network


def build_pretrained_classifier(backbone: Architecture | str, path: Path) -> tuple[nn.Module, tuple[str, ...]]:
    """Builds a network with its original classifier and loads the default pretrained weights from a local file.

    Returns:
        The network in evaluation mode, and its C class names. The network maps images (B, 3, S, S) to logits (B, C).

    Raises:
        UnknownBackboneError: No library provides this backbone.
        WeightsError: The weights are unreadable, belong to another network, or do not include a classifier.
    """
    resolved = catalog.resolve(backbone)
    weights, preprocessing = next(iter(preprocessings(resolved).items()))
    names = class_names(resolved, weights)
    return weight_files.load_pretrained_classifier(resolved, path, len(names), preprocessing.image_size).eval(), names


class Network(nn.Module):
    """Backbone with a new head: maps images (B, 3, S, S) to logits (B, C).

    Frozen stages receive no gradients and stay in evaluation mode regardless of `train`: their batch norm statistics
    do not change, and dropout and stochastic depth are disabled.

    Attributes:
        backbone: The library's network with its original module names; `Head` modules replace its classifiers.
        spec: Specification of the architecture.
        weights_summary: Text that says which tensors were loaded from the weights file; empty for random weights.
        stages: Names of the stages in execution order; the head is not included.
        frozen: Number of frozen stages, counted from the input.
        head_is_output: True if `forward_head(forward_features(images))` equals `forward(images)`.
    """

    def __init__(
        self, backbone: nn.Module, structure: NetworkStructure, spec: NetworkSpec, weights_summary: str = ""
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.spec = spec
        self.weights_summary = weights_summary
        self.stages = structure.stages
        self.frozen = 0
        self.head_is_output = structure.head_is_output
        self._structure = structure
        self._replace_heads(spec)
        self._trainable = [parameter for parameter in self.parameters() if parameter.requires_grad]

    def forward(self, images: Tensor) -> Tensor:
        """Maps images (B, 3, S, S) to logits (B, C)."""
        return self.forward_with_auxiliary(images)[0]

    def forward_with_auxiliary(self, images: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Returns logits (B, C) and, in training mode, the logits of the trainable auxiliary heads.

        The second return value has one (B, C) tensor per trainable auxiliary head; it is empty for most networks.
        """
        output = self.backbone(images)
        if isinstance(output, Tensor):
            return output, ()
        return output[0], tuple(output[position] for position in self.auxiliary_positions)

    @property
    def classifier(self) -> nn.Linear | nn.Conv2d | NeighborClassifier:
        """The last layer of the main head."""
        return self._main_head().classifier

    @property
    def features(self) -> int:
        """Number of input features F of the main head."""
        return self._structure.features

    @property
    def auxiliary_positions(self) -> tuple[int, ...]:
        """Positions of trainable auxiliary heads' logits in the tuple that the backbone returns in training mode."""
        auxiliary = self._structure.auxiliary
        return tuple(extra.position for extra in auxiliary if extra.stages_before > self.frozen)

    def forward_features(self, images: Tensor) -> Tensor:
        """Maps images (B, 3, S, S) to the head's input, (B, F) or (B, F, 1, 1).

        Raises:
            ModelError: `head_is_output` is False.
        """
        if not self.head_is_output:
            raise ModelError(f"the logits of {self.spec.backbone} are not the output of a single head")
        features: list[Tensor] = []
        hook = self._main_head().register_forward_pre_hook(lambda _module, inputs: features.append(inputs[0]))
        try:
            self.backbone(images)
        finally:
            hook.remove()
        return features[0]

    def register_feature_hook(self, hook: Callable[[Tensor], object]) -> RemovableHandle:
        """Registers a hook that is called in every forward pass with the head's input, mean-pooled to (B, F).

        The hook runs in the thread that runs the network, and is also called if only the last layers are run. To remove
        the hook, call `remove()` on the returned handle, or use the handle as a context manager.
        """
        return self.classifier.register_forward_pre_hook(lambda _module, inputs: hook(mean_pool(inputs[0])))

    def forward_head(self, features: Tensor) -> Tensor:
        """Maps the output of `forward_features` to logits (B, C); applies dropout in training mode."""
        return cast("Tensor", self._main_head()(features))

    def to_device(self, device: torch.device) -> Network:
        """Moves the network to a device in place and converts convolution weights to `channels_last` format.

        Unlike `to(memory_format=...)`, this method supports networks with five-dimensional weights.
        """
        self.to(device)
        for parameter in self.parameters():
            if parameter.ndim == 4:
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
        return self

    def freeze(self, count: int) -> None:
        """Freezes exactly the first `count` stages; if all stages are frozen, only the head is trainable.

        Parameters that belong to no stage (class tokens, position embeddings) are frozen with the first stage. An
        auxiliary head is frozen once all stages before it are frozen, because its loss can only train those stages.
        """
        self.frozen = count
        for parameter in self._trainable:
            parameter.requires_grad_(True)
        for module in self._frozen_modules():
            module.requires_grad_(False)
        for parameter in self._parameters_outside_stages() if count else ():
            parameter.requires_grad_(False)
        self.train(self.training)

    def set_dropout(self, probability: float) -> None:
        """Sets the dropout probability of the head, at least 0 and less than 1."""
        for head in self._heads():
            head.dropout.p = probability

    def train(self, mode: bool = True) -> Network:
        """Sets training or evaluation mode; frozen modules stay in evaluation mode."""
        super().train(mode)
        if self.frozen == len(self.stages):
            self.backbone.eval()
            for head in self._heads():
                head.train(mode)
        for module in self._frozen_modules():
            module.eval()
        return self

    @torch.no_grad()
    def set_head(self, weight: Tensor, bias: Tensor) -> None:
        """Sets the weights (C, F) and biases (C,) of the main head, which must be linear."""
        classifier = cast("nn.Linear", self.classifier)
        classifier.weight.copy_(weight.view_as(classifier.weight))
        classifier.bias.copy_(bias)

    def set_classifier(self, classifier: nn.Module) -> None:
        """Replaces the classifier of the main head, and adapts `spec`. Hooks of the previous one are not moved.

        Args:
            classifier: A `NeighborClassifier`, or a linear classifier that the network had before. It is moved to the
                network's device.
        """
        head = self._main_head()
        device = next(self.parameters()).device
        head.classifier = cast("NeighborClassifier", classifier.to(device))
        neighbors = classifier.spec if isinstance(classifier, NeighborClassifier) else None
        self.spec = replace(self.spec, neighbors=neighbors)

    def head_parameters(self) -> Iterator[nn.Parameter]:
        """Yields the trainable parameters of the new heads, including auxiliary heads."""
        return (p for name in self._head_names() for p in self._head(name).parameters() if p.requires_grad)

    def backbone_parameters(self) -> Iterator[nn.Parameter]:
        """Yields the trainable parameters outside the heads."""
        heads = {id(parameter) for parameter in self.head_parameters()}
        return (p for p in self.backbone.parameters() if p.requires_grad and id(p) not in heads)

    def stage_parameters(self, stage: str) -> Iterator[nn.Parameter]:
        """Yields the parameters of a stage; the first stage includes parameters that belong to no stage."""
        yield from self.backbone.get_submodule(stage).parameters()
        if stage == self.stages[0]:
            yield from self._parameters_outside_stages()

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:  # noqa: ANN401 - torch's return type
        """Like torch's method, but also loads MNASNet weights from safetensors files, which lack a format version."""
        return super().load_state_dict(weight_files.with_format_version(state_dict, self), strict=strict, assign=assign)

    def load_matching_heads(self, state: Mapping[str, Tensor]) -> None:
        """Copies heads with matching shapes from a `Network` checkpoint; leaves other heads unchanged."""
        for name in self._head_names():
            prefix = f"{name}.{weight_files.HEAD_PREFIX}"
            tensors = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
            classifier = self._head(name).classifier
            shapes = {key: value.shape for key, value in classifier.state_dict().items()}
            if shapes == {key: value.shape for key, value in tensors.items()}:
                classifier.load_state_dict(tensors)

    def copy_label_rows(self, pretrained: nn.Module, rows: Sequence[int]) -> None:
        """Copies rows of a pretrained classifier into the head in place.

        Args:
            pretrained: The same network with its pretrained classifier.
            rows: Row of the pretrained classifier for each of the head's `spec.outputs` outputs.

        Raises:
            ModelError: `head_is_output` is False.
        """
        if not self.head_is_output:
            raise ModelError(f"the logits of {self.spec.backbone} are not the output of a single head")
        original, head = pretrained.get_submodule(self._structure.heads[0]), self.classifier
        head.load_state_dict({**head.state_dict(), **{k: v[list(rows)] for k, v in original.state_dict().items()}})

    def _replace_heads(self, spec: NetworkSpec) -> None:
        for name, stages_before in self._structure.weightless_modules:
            module = self.backbone.get_submodule(name)
            if stages_before == len(self.stages) and isinstance(module, nn.Dropout):
                module.p = 0.0  # replaced by the dropout of the new head
        for name in self._structure.heads:
            original = self.backbone.get_submodule(name)
            head = Head(original, spec.classes, spec.dropout, labels=spec.labels, neighbors=spec.neighbors)
            self.backbone.set_submodule(name, head)
        for extra in self._structure.auxiliary:
            self.backbone.set_submodule(extra.head, Head(self.backbone.get_submodule(extra.head), spec.classes, 0.0))

    def _head_names(self) -> tuple[str, ...]:
        return (*self._structure.heads, *(extra.head for extra in self._structure.auxiliary))

    def _head(self, name: str) -> Head:
        return cast("Head", self.backbone.get_submodule(name))

    def _heads(self) -> list[Head]:
        return [self._head(name) for name in self._structure.heads]

    def _main_head(self) -> Head:
        return self._head(self._structure.heads[0])

    def _frozen_modules(self) -> Iterator[nn.Module]:
        weightless, auxiliary = self._structure.weightless_modules, self._structure.auxiliary
        names = [
            *self.stages[: self.frozen],
            *(name for name, stages_before in weightless if stages_before < self.frozen),
            *(extra.branch for extra in auxiliary if extra.stages_before <= self.frozen),
        ]
        return (self.backbone.get_submodule(name) for name in names)

    def _parameters_outside_stages(self) -> Iterator[nn.Parameter]:
        branches = (extra.branch for extra in self._structure.auxiliary)
        return parameters_outside(self.backbone, (*self.stages, *self._structure.heads, *branches))
