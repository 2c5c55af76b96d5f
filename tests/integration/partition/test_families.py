"""Training from features equals training the whole network: one network of each of many families.

Weights are random and images are noise of a small size that the network takes; a family is frozen through
the stage in its middle, and through all of them.
"""

from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from transfer_model.architecture import Architecture, Options
from transfer_model.network import Network, NetworkSpec, build_network
from transfer_platform.partition.split import Partition, partition_network

CLASSES, EPOCHS, BATCHES, BATCH = 3, 3, 2, 2
AUXILIARY_WEIGHT = 0.4

SHORTCUTS = [
    Architecture("resnet", Options({"layers": [1, 1, 1, 1], "shortcut": "A", "norm": "group", "stem": "cifar"})),
    Architecture("resnet", Options({"layers": [1, 1, 1, 1], "shortcut": "C", "dilation": 4, "stem": "cifar"})),
]

FAMILIES = {
    **dict.fromkeys(SHORTCUTS, 32),
    "alexnet_cifar": 32,
    "resnet18_cifar": 32,
    "efficientnet_lite0": 64,
    "torchvision/convnext_tiny": 32,
    "torchvision/densenet121": 32,
    "torchvision/efficientnet_b0": 32,
    "torchvision/googlenet": 32,
    "torchvision/inception_v3": 299,
    "torchvision/maxvit_t": 224,
    "torchvision/mobilenet_v3_small": 32,
    "torchvision/regnet_y_400mf": 32,
    "torchvision/resnet18": 32,
    "torchvision/squeezenet1_1": 64,
    "torchvision/swin_t": 64,
    "torchvision/vgg11_bn": 32,
    "torchvision/vit_b_16": 32,
    "timm/convnextv2_atto": 32,
    "timm/deit_tiny_distilled_patch16_224": 32,
    "timm/swin_tiny_patch4_window7_224": 32,
    "timm/vit_tiny_patch16_224": 32,
}
"""Architecture and image size in pixels."""
SLOW = ("torchvision/inception_v3", "torchvision/maxvit_t")
"""Large images: frozen through the middle stage only."""
CASES = [
    (name, through) for name in FAMILIES for through in ("middle", "all") if through == "middle" or name not in SLOW
]

Run = Callable[[Network, Tensor], tuple[Tensor, tuple[Tensor, ...]]]


@pytest.mark.parametrize(("name", "through"), CASES)
def test_training_from_features_is_training_the_whole_network(name: str, through: str) -> None:
    whole = frozen(name, through)
    split = copy.deepcopy(whole)
    partition = partition_network(split)
    batches = images(whole)
    stored = [partition.features(batch).clone() for batch in batches]
    losses = train(whole, batches, Network.forward_with_auxiliary)
    from_features = train(split, stored, lambda _, features: partition.logits(features.clone()))
    assert from_features == pytest.approx(losses, rel=1e-5, abs=1e-5)
    assert len(set(losses)) > 1, "the losses did not change"
    expected = predictions(whole, batches, Network.forward_with_auxiliary)
    assert torch.equal(predictions(split, stored, lambda _, rows: partition.logits(rows.clone())), expected)
    assert_features_unchanged(partition, batches, stored)


def frozen(name: str, through: str) -> Network:
    torch.manual_seed(0)
    network = build_network(NetworkSpec(name, CLASSES, 0.2, FAMILIES[name])).to(memory_format=torch.channels_last)
    network.freeze(len(network.stages) if through == "all" else len(network.stages) // 2)
    return network


def images(network: Network) -> list[Tensor]:
    side = network.spec.image_size
    generator = torch.Generator().manual_seed(1)
    shape = (BATCH, 3, side, side)
    noise = (torch.randn(shape, generator=generator) for _ in range(BATCHES))
    return [batch.to(memory_format=torch.channels_last) for batch in noise]


def train(network: Network, batches: list[Tensor], run: Run) -> list[float]:
    """Losses of every step."""
    optimizer = torch.optim.SGD((p for p in network.parameters() if p.requires_grad), lr=1e-3, momentum=0.9)
    losses = []
    for epoch in range(EPOCHS):
        network.train()
        torch.manual_seed(epoch)
        for number, batch in enumerate(batches):
            targets = torch.arange(number, number + BATCH) % CLASSES
            logits, auxiliary = run(network, batch)
            loss = functional.cross_entropy(logits, targets)
            for extra in auxiliary:
                loss = loss + AUXILIARY_WEIGHT * functional.cross_entropy(extra, targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    return losses


def predictions(network: Network, batches: list[Tensor], run: Run) -> Tensor:
    network.eval()
    with torch.no_grad():
        return torch.cat([run(network, batch)[0].argmax(1) for batch in batches])


def assert_features_unchanged(partition: Partition, batches: list[Tensor], stored: list[Tensor]) -> None:
    """Training has not changed the features."""
    for batch, rows in zip(batches, stored, strict=True):
        assert torch.equal(partition.features(batch), rows)


def test_auxiliary_heads_learn_where_the_stage_that_they_hang_on_learns() -> None:
    network = frozen("torchvision/googlenet", "all").train()
    assert auxiliaries(network) == 0
    network.freeze(len(network.stages) // 2)
    assert auxiliaries(network) == 1
    network.freeze(1)
    assert auxiliaries(network) == 2


def auxiliaries(network: Network) -> int:
    partition = partition_network(network)
    return len(partition.logits(partition.features(images(network)[0]))[1])


def test_another_process_finds_the_same_digest() -> None:
    code = (
        "import torch\n"
        "from transfer_model.network import NetworkSpec, build_network\n"
        "from transfer_platform.partition.split import partition_network\n"
        "torch.manual_seed(0)\n"
        "for name, size in (('torchvision/swin_t', 64), ('timm/convnextv2_atto', 32)):\n"
        f"    network = build_network(NetworkSpec(name, {CLASSES}, 0.0, size))\n"
        "    network.freeze(len(network.stages))\n"
        "    print(partition_network(network.eval()).digest)\n"
    )
    command = [sys.executable, "-c", code]
    first = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    second = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    assert first == second
    assert len(set(first)) == 2
