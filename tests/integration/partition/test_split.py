from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from transfer_model.network import Network, NetworkSpec, build_network
from transfer_model.structure import NetworkStructure
from transfer_platform.partition.split import Partition, PartitionError, partition_network
from transfer_platform.training.network_cache import freeze_through

if TYPE_CHECKING:
    from collections.abc import Callable

SIZE = 32
SMALL = "timm/test_efficientnet"


def built(name: str, stage: str, dropout: float = 0.2, classes: int = 3, seed: int = 0) -> Network:
    torch.manual_seed(seed)
    network = build_network(NetworkSpec(name, classes, dropout, SIZE))
    freeze_through(network, stage)
    return network


def hand_made(backbone: nn.Module, stages: tuple[str, ...] = ("first", "second")) -> Network:
    """A network of (B, 3, 4, 4) images, frozen through its first stage, its classifier called `head`."""
    structure = NetworkStructure(
        heads=("head",), features=6, auxiliary=(), stages=stages, sizes=(), weightless_modules=(), head_is_output=False
    )
    network = Network(backbone, structure, NetworkSpec("hand_made", 3, 0.5, 4))
    network.freeze(1)
    return network


class Backbone(nn.Module):
    """Two convolutions and a classifier, with an operation of the test between them."""

    def __init__(self, between: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 6, 3, padding=1)
        self.second = nn.Conv2d(6, 6, 3, padding=1)
        self.head = nn.Linear(6, 3)
        self.register_buffer("seen", torch.zeros(()))
        self.register_buffer("table", torch.arange(6.0).view(1, 6, 1, 1))
        self.between = between

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.second(self.between(self, self.first(images))).mean((2, 3)))


def trained(network: Network, run: Callable[[], tuple[Tensor, tuple[Tensor, ...]]]) -> list[Tensor]:
    """Outputs in eval mode and in train mode, gradients and buffers of one step with a fixed seed."""
    network.eval()
    with torch.no_grad():
        results = [run()[0]]
    network.train()
    network.zero_grad()
    torch.manual_seed(5)
    logits, auxiliary = run()
    sum(each.square().sum() for each in (logits, *auxiliary)).backward()
    results += [logits.detach(), *(each.detach() for each in auxiliary)]
    results += [p.grad.clone() for p in network.parameters() if p.grad is not None]
    return [*results, *(buffer.clone() for buffer in network.buffers()), torch.get_rng_state()]


def assert_same_training(network: Network, partition: Partition, count: int = 5) -> None:
    """The partition trains as the whole network does, and does not modify stored features."""
    side = network.spec.image_size
    images = torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(1))
    buffers = [buffer.clone() for buffer in network.buffers()]
    whole = trained(network, lambda: network.forward_with_auxiliary(images.clone()))
    for buffer, value in zip(network.buffers(), buffers, strict=True):
        buffer.copy_(value)
    stored = partition.features(images.clone()).clone()
    parts = trained(network, lambda: partition.logits(stored.clone()))
    assert len(whole) == len(parts)
    for expected, actual in zip(whole, parts, strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-6, atol=1e-6, equal_nan=True)
    assert tuple(stored.shape) == (count, *partition.shape)


@pytest.mark.parametrize("stage", ["blocks.2", "all"])
def test_lite0_trains_from_features_as_it_does_from_images(stage: str) -> None:
    network = built("efficientnet_lite0", stage)
    assert_same_training(network, partition_network(network))


@pytest.mark.parametrize("stage", ["layer2", "all"])
def test_resnet_trains_from_features_as_it_does_from_images(stage: str) -> None:
    network = built("torchvision/resnet18", stage)
    assert_same_training(network, partition_network(network))


def test_everything_frozen_is_in_the_prefix() -> None:
    partition = partition_network(built("torchvision/resnet18", "all"))
    assert (partition.shape, partition.dtype) == ((512,), torch.float32)
    assert partition_network(built(SMALL, "blocks.4")).shape == (64, 1, 1)


@pytest.mark.parametrize("training", [True, False])
def test_splitting_changes_neither_the_network_nor_the_random_numbers(training: bool) -> None:
    network = built(SMALL, "blocks.0").train(training)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    modes = [module.training for module in network.modules()]
    attributes = {name: set(vars(module)) for name, module in network.named_modules()}
    state = torch.get_rng_state()
    partition_network(network)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert [module.training for module in network.modules()] == modes
    assert {name: set(vars(module)) for name, module in network.named_modules()} == attributes


def test_the_suffix_trains_the_network_itself() -> None:
    network = built("efficientnet_lite0", "blocks.4")
    partition = partition_network(network)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    network.train()
    optimizer = torch.optim.SGD((p for p in network.parameters() if p.requires_grad), lr=0.1)
    logits, _ = partition.logits(torch.randn(4, *partition.shape))
    functional.cross_entropy(logits, torch.tensor([0, 1, 2, 0])).backward()
    optimizer.step()
    changed = {name for name, tensor in network.state_dict().items() if not torch.equal(tensor, before[name])}
    assert "backbone.blocks.5.0.conv_pw.weight" in changed
    assert "backbone.blocks.5.0.bn1.running_mean" in changed
    assert not [name for name in changed if name.startswith("backbone.blocks.4")]


def test_other_weights_and_another_dropout_take_effect() -> None:
    network, other = (built("efficientnet_lite0", "all", dropout=0.0), built("efficientnet_lite0", "all", seed=1))
    partition = partition_network(network)
    for parameter, value in zip(network.parameters(), other.parameters(), strict=True):
        parameter.data.copy_(value.data)
    network.backbone.classifier.dropout.p = 0.9
    assert_same_training(network, partition)
    features = torch.randn(4, *partition.shape)
    network.train()
    assert not torch.equal(partition.logits(features)[0], partition.logits(features)[0])


def test_only_the_prefix_is_in_the_digest() -> None:
    network = built(SMALL, "blocks.2")
    digest = partition_network(network).digest
    other = built(SMALL, "blocks.2", dropout=0.0, classes=7, seed=1).eval()
    behind = ("classifier", "conv_head", "bn2", "blocks.3", "blocks.4")
    state = network.backbone.state_dict()
    in_front = {name: tensor for name, tensor in state.items() if not name.startswith(behind)}
    other.backbone.load_state_dict(in_front, strict=False)
    assert partition_network(other.to(memory_format=torch.channels_last)).digest == digest
    with torch.no_grad():
        other.backbone.bn1.running_mean[0] += 1e-3
    assert partition_network(other).digest != digest


def test_deeper_frozen_is_another_digest() -> None:
    assert partition_network(built(SMALL, "blocks.2")).digest != partition_network(built(SMALL, "blocks.3")).digest


def test_a_setting_of_a_frozen_module_is_in_the_digest() -> None:
    network = built(SMALL, "blocks.2")
    digest = partition_network(network).digest
    network.backbone.bn1.eps = 1e-2
    assert partition_network(network).digest != digest


def relu_in_place(_: nn.Module, x: Tensor) -> Tensor:
    return functional.relu_(x)


def residual_in_place(_: nn.Module, x: Tensor) -> Tensor:
    y = x.sigmoid()
    y += x
    return y


def forgotten_result(_: nn.Module, x: Tensor) -> Tensor:
    x.mul_(2)
    return x


def written_through_a_view(_: nn.Module, x: Tensor) -> Tensor:
    x[:, :2].add_(1)
    x[:, 0].fill_(3.0)
    return x


def read_before_and_after(module: nn.Module, x: Tensor) -> Tensor:
    copy = x + 0
    functional.dropout(x, 0.5, module.training, inplace=True)
    return copy + x


def noise_in_place(module: nn.Module, x: Tensor) -> Tensor:
    functional.relu_(x)
    y = functional.dropout(x, 0.5, module.training)
    y.add_(x)
    x.zero_()
    return y + x


def expanded_to_the_batch(module: nn.Module, x: Tensor) -> Tensor:
    size, channels = x.shape[0], x.shape[1]
    y = functional.dropout(x, 0.5, module.training)
    return y + module.table.expand(size, channels, 4, 4) * size


def folded_windows(module: nn.Module, x: Tensor) -> Tensor:
    b, c, h, w = x.shape
    windows = x.view(b, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 1, 3, 5).reshape(b * 4, c, 2, 2)
    windows = functional.dropout(windows, 0.5, module.training)
    return windows.reshape(b, 2, 2, c, 2, 2).permute(0, 3, 1, 4, 2, 5).reshape(b, c, h, w)


def noise_added(module: nn.Module, x: Tensor) -> Tensor:
    return x + torch.randn_like(x) if module.training else x


def random_depth(module: nn.Module, x: Tensor) -> Tensor:
    if not module.training:
        return x
    return x * x.new_empty((x.shape[0], 1, 1, 1)).bernoulli_(0.5)


def counting(module: nn.Module, x: Tensor) -> Tensor:
    return x if not module.training else x + module.table


OPERATIONS = [
    relu_in_place,
    residual_in_place,
    forgotten_result,
    written_through_a_view,
    read_before_and_after,
    noise_in_place,
    expanded_to_the_batch,
    folded_windows,
    noise_added,
    random_depth,
    counting,
]


@pytest.mark.parametrize("operation", OPERATIONS)
def test_order_of_effects_and_sizes_stay_those_of_the_whole_network(
    operation: Callable[[nn.Module, Tensor], Tensor],
) -> None:
    torch.manual_seed(0)
    network = hand_made(Backbone(operation))
    partition = partition_network(network)
    for count in (1, 2, 7):
        assert_same_training(network, partition, count)


@pytest.mark.parametrize("operation", [relu_in_place, forgotten_result, residual_in_place])
def test_operations_that_training_cannot_change_are_in_the_prefix(
    operation: Callable[[nn.Module, Tensor], Tensor],
) -> None:
    torch.manual_seed(0)
    network = hand_made(Backbone(operation))
    images = torch.randn(2, 3, 4, 4)
    with torch.no_grad():
        features = partition_network(network).features(images)
        expected = operation(network.backbone, network.backbone.first(images))
    assert torch.equal(features, expected)


def test_features_may_be_in_any_memory_layout() -> None:
    network = hand_made(Backbone(noise_in_place)).eval()
    partition = partition_network(network)
    features = partition.features(torch.randn(3, 3, 4, 4))
    with torch.no_grad():
        plain, _ = partition.logits(features.contiguous().clone())
        last, _ = partition.logits(features.clone(memory_format=torch.channels_last))
    assert torch.equal(plain, last)


def test_a_network_without_frozen_stages_is_not_split() -> None:
    with pytest.raises(PartitionError, match="no stage is frozen"):
        partition_network(built("efficientnet_lite0", "none"))


class DataDependent(Backbone):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(-images if images.sum() > 0 else images)


def test_control_flow_that_depends_on_images_is_not_traced() -> None:
    network = hand_made(DataDependent(relu_in_place))
    with pytest.raises(PartitionError, match=r"cannot split hand_made: torch\.fx cannot trace it"):
        partition_network(network)
    assert network.training


class Mixing(Backbone):
    def forward(self, images: Tensor) -> Tensor:
        x = self.first(images)
        return self.head(self.second(x - x.mean(0, keepdim=True)).mean((2, 3)))


def test_features_of_an_image_do_not_depend_on_others() -> None:
    with pytest.raises(PartitionError, match="depend on the other images"):
        partition_network(hand_made(Mixing(relu_in_place)))


class Counting(Backbone):
    """Counts its calls in Python, which a graph does not contain."""

    calls = 0

    def forward(self, images: Tensor) -> Tensor:
        self.calls += 1
        return super().forward(images) * self.calls


def test_a_partition_with_other_results_is_refused() -> None:
    with pytest.raises(PartitionError, match="different results than the whole network"):
        partition_network(hand_made(Counting(relu_in_place)))


class Branching(Backbone):
    """Both stages start at the images, so that no single tensor separates them."""

    def __init__(self) -> None:
        super().__init__(relu_in_place)
        self.second = nn.Conv2d(3, 6, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        return self.head((self.first(images) + self.second(images)).mean((2, 3)))


def test_a_network_without_a_single_tensor_to_cut_at_is_refused() -> None:
    with pytest.raises(PartitionError, match="no single tensor"):
        partition_network(hand_made(Branching()))
