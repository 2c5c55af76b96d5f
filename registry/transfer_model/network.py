"""The network: a backbone of a library whose classifier is a new head, any part of it frozen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from . import catalog, weight_files
from .backbones import class_names, preprocessings
from .errors import ModelError
from .heads import Head, mean_pool
from .structure import NetworkStructure, build_from_structure, find_structure, parameters_outside

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from torch.utils.hooks import RemovableHandle


@dataclass(frozen=True)
class NetworkSpec:
    """All that the shape of a network depends on; recorded in a model and built again for serving.

    Attributes:
        backbone: A name that `catalog.resolve` knows.
        classes: Number of classes, C.
        dropout: Probability that the head drops a feature in training, 0 to 1 exclusive.
        image_size: Side of the images in pixels, S.
    """

    backbone: str
    classes: int
    dropout: float
    image_size: int


def build_network(spec: NetworkSpec, pretrained: Path | None = None) -> Network:
    """Builds a network, its head new and nothing frozen.

    Heads are drawn from torch's global generator, and so is a backbone without pretrained weights.

    Args:
        spec: What to build.
        pretrained: A local file of weights for the backbone, safetensors or a torch file; of another
            number of classes too. None: random weights.

    Raises:
        UnknownBackboneError: No library knows the backbone.
        WeightsError: The file is unreadable or belongs to another network.
        ModelError: The backbone cannot take images of this size.
    """
    backbone = catalog.resolve(spec.backbone)
    anatomy = find_structure(backbone, spec.image_size)
    module = build_from_structure(backbone, anatomy, spec.classes, spec.image_size)
    state = (
        weight_files.load_backbone_weights(pretrained, backbone, anatomy, module, spec.image_size)
        if pretrained
        else None
    )
    if state is not None:
        weight_files.copy_weights(module, state)
    network = Network(module, anatomy, spec)
    if state is not None:
        network.load_matching_heads(state)
    return network


def build_pretrained_classifier(backbone: str, path: Path) -> tuple[nn.Module, tuple[str, ...]]:
    """Builds a network as it was pretrained, with its original classifier, ready to predict.

    Args:
        backbone: A name that `catalog.resolve` knows.
        path: Local file of its pretrained weights.

    Returns:
        The network in eval mode, images (B, 3, S, S) of `catalog.outline(backbone).preprocessing` to logits
        (B, C), and the names of its C classes.

    Raises:
        UnknownBackboneError: No library knows the backbone.
        WeightsError: The weights cannot be read, belong to another network, or have no classifier.
    """
    resolved = catalog.resolve(backbone)
    chosen, preprocessing = next(iter(preprocessings(resolved).items()))
    names = class_names(resolved, chosen)
    return weight_files.load_pretrained_classifier(
        resolved, path, len(names), preprocessing.image_size
    ).eval(), names


class Network(nn.Module):
    """A backbone and its new head: images (B, 3, S, S) to logits (B, C).

    What is frozen gets no gradient and stays in eval mode whatever `train` says: batch-norm statistics are
    held, dropout and stochastic depth are off.

    Args:
        backbone: The library's network; changed in place: its classifiers become `HeadConfig`s.
        anatomy: What `find_structure` found in it.
        spec: What was built.

    Attributes:
        backbone: The library's network, heads included, under the library's own names.
        spec: What was built.
        stages: Names from the input to the head, which is not among them, in the order in which they run.
        frozen: How many of the stages are frozen, counted from the input.
        separable: Whether `classify(embed(images))` is what `forward` returns.
    """

    def __init__(self, backbone: nn.Module, anatomy: NetworkStructure, spec: NetworkSpec) -> None:
        super().__init__()
        self.backbone = backbone
        self.spec = spec
        self.stages = anatomy.stages
        self.frozen = 0
        self.head_is_output = anatomy.head_is_output
        self._anatomy = anatomy
        self._replace_heads(spec.classes, spec.dropout)
        self._learnable = [parameter for parameter in self.parameters() if parameter.requires_grad]

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, 3, S, S) -> logits (B, C)."""
        return self.forward_with_auxiliary(images)[0]

    def forward_with_auxiliary(self, images: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Logits, and in train mode those of the auxiliary heads that learn.

        Args:
            images: (B, 3, S, S).

        Returns:
            (B, C), and one (B, C) for each auxiliary head that learns: none in eval mode or in most networks.
        """
        output = self.backbone(images)
        if isinstance(output, Tensor):
            return output, ()
        return output[0], tuple(output[position] for position in self.auxiliary_positions)

    @property
    def auxiliary_positions(self) -> tuple[int, ...]:
        """Where, in what the backbone returns in train mode, the auxiliary heads' logits are that learn."""
        return tuple(extra.position for extra in self._anatomy.auxiliary if extra.after > self.frozen)

    def forward_features(self, images: Tensor) -> Tensor:
        """Images (B, 3, S, S) -> the features that the head is given, (B, F) or (B, F, 1, 1).

        Raises:
            ModelError: The network is not `separable`.
        """
        if not self.head_is_output:
            raise ModelError(
                f"the logits of {self.spec.backbone} are more than what one head makes of features"
            )
        features: list[Tensor] = []
        head = self.backbone.get_submodule(self._anatomy.heads[0])
        hook = head.register_forward_pre_hook(lambda _module, inputs: features.append(inputs[0]))
        try:
            self.backbone(images)
        finally:
            hook.remove()
        return features[0]

    def register_feature_hook(self, told: Callable[[Tensor], object]) -> RemovableHandle:
        """Tells what the head is given in every forward pass, (B, F); the mean of tokens or maps.

        It listens at the head's last layer, so that parts that were cut out of this network are heard too.

        Args:
            told: Called in the thread that runs the network.

        Returns:
            Ends it, as a context manager or by its `remove()`.
        """
        head = cast("Head", self.backbone.get_submodule(self._anatomy.heads[0]))
        return head.classifier.register_forward_pre_hook(lambda _module, inputs: told(mean_pool(inputs[0])))

    def forward_head(self, features: Tensor) -> Tensor:
        """Features from `embed` -> logits (B, C); dropout is applied in train mode."""
        return cast("Tensor", self.backbone.get_submodule(self._anatomy.heads[0])(features))

    def to_device(self, device: torch.device) -> Network:
        """Moves it to a device, in place, its convolutions in the memory layout `channels_last`.

        As `to(memory_format=...)`, which refuses a network where one weight has five dimensions.
        """
        self.to(device)
        for parameter in self.parameters():
            if parameter.ndim == 4:
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
        return self

    def freeze(self, count: int) -> None:
        """Freezes the first `count` stages and nothing else; all of them freeze everything but the head.

        Parameters that belong to no stage (class tokens, position embeddings) freeze with the first. An
        auxiliary head learns as long as the stage that it hangs on learns: otherwise its loss would reach
        nothing but itself.
        """
        self.frozen = count
        for parameter in self._learnable:
            parameter.requires_grad_(True)
        for parameter in self._frozen_parameters():
            parameter.requires_grad_(False)
        self.train(self.training)

    def set_dropout(self, share: float) -> None:
        """Sets the share of the features that the head drops in training, 0 to 1 exclusive."""
        for head in self._heads():
            cast("Head", head).dropout.p = share

    def train(self, mode: bool = True) -> Network:
        """Sets train or eval mode; what is frozen stays in eval mode."""
        super().train(mode)
        if self.frozen == len(self.stages):
            self.backbone.eval()
            for head in self._heads():
                head.train(mode)
        for module in self._frozen_modules():
            module.eval()
        return self

    def head_parameters(self) -> Iterator[nn.Parameter]:
        """Parameters of the new heads that learn, auxiliary ones included."""
        heads = [
            *self._heads(),
            *(self.backbone.get_submodule(extra.head) for extra in self._anatomy.auxiliary),
        ]
        return (p for head in heads for p in head.parameters() if p.requires_grad)

    def backbone_parameters(self) -> Iterator[nn.Parameter]:
        """Parameters of the backbone that learn: all that learn but those of the heads."""
        heads = {id(parameter) for parameter in self.head_parameters()}
        return (p for p in self.backbone.parameters() if p.requires_grad and id(p) not in heads)

    def stage_parameters(self, stage: str) -> Iterator[nn.Parameter]:
        """Parameters of one stage; those that belong to no stage are the first one's."""
        yield from self.backbone.get_submodule(stage).parameters()
        if stage == self.stages[0]:
            yield from self._loose_parameters()

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:  # noqa: ANN401 - torch's own result
        """Loads weights as torch does, from a plain mapping (of safetensors) too.

        Some of torchvision's networks (MNASNet) refuse or alter weights that carry no format version; ours
        are always of this version.
        """
        return super().load_state_dict(
            weight_files.with_format_version(state_dict, self), strict=strict, assign=assign
        )

    def load_matching_heads(self, state: Mapping[str, Tensor]) -> None:
        """Takes over heads of the same size that a checkpoint of ours brings along; others stay new."""
        for name in self._head_names():
            prefix = f"{name}.{weight_files.HEAD_PREFIX}"
            found = {
                key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)
            }
            classifier = cast("Head", self.backbone.get_submodule(name)).classifier
            if {key: value.shape for key, value in classifier.state_dict().items()} == {
                key: value.shape for key, value in found.items()
            }:
                classifier.load_state_dict(found)

    def _replace_heads(self, classes: int, dropout: float) -> None:
        for name, began in self._anatomy.weightless_modules:
            module = self.backbone.get_submodule(name)
            if began == len(self.stages) and isinstance(module, nn.Dropout):
                module.p = 0.0  # the head has its own, and the recipe says how much
        for name in self._anatomy.heads:
            self.backbone.set_submodule(name, Head(self.backbone.get_submodule(name), classes, dropout))
        for extra in self._anatomy.auxiliary:
            self.backbone.set_submodule(
                extra.head, Head(self.backbone.get_submodule(extra.head), classes, 0.0)
            )

    def _head_names(self) -> tuple[str, ...]:
        return (*self._anatomy.heads, *(extra.head for extra in self._anatomy.auxiliary))

    def _heads(self) -> list[nn.Module]:
        return [self.backbone.get_submodule(name) for name in self._anatomy.heads]

    def _frozen_modules(self) -> Iterator[nn.Module]:
        names = [
            *self.stages[: self.frozen],
            *(name for name, began in self._anatomy.weightless_modules if began < self.frozen),
            *(extra.branch for extra in self._anatomy.auxiliary if extra.after <= self.frozen),
        ]
        return (self.backbone.get_submodule(name) for name in names)

    def _frozen_parameters(self) -> Iterator[nn.Parameter]:
        for module in self._frozen_modules():
            yield from module.parameters()
        if self.frozen:
            yield from self._loose_parameters()

    def _loose_parameters(self) -> Iterator[nn.Parameter]:
        branches = (extra.branch for extra in self._anatomy.auxiliary)
        return parameters_outside(self.backbone, (*self.stages, *self._anatomy.heads, *branches))
