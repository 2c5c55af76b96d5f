"""Baseline: the fine-tuning loop of PyTorch's transfer-learning tutorial.

https://docs.pytorch.org/tutorials/beginner/transfer_learning_tutorial.html: `ImageFolder`, `DataLoader`,
batch size 4, SGD with momentum, float32. Every epoch decodes all images and runs the whole network; frozen
parameters have `requires_grad = False`. Images are resized and cropped but not augmented, so that the work
equals that of a recipe with `augmentation: none`.

    python benchmarks/tutorial_loop.py --photos hymenoptera_data --backbone efficientnet_lite0 --frozen all
"""

from __future__ import annotations

import time
from argparse import Namespace
from pathlib import Path

import torch
from harness import parser, report
from platform_runs import VALIDATION
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Subset, random_split
from torchvision import transforms
from torchvision.datasets import ImageFolder

from transfer_model import catalog, weight_sources
from transfer_model.network import Network, NetworkSpec, build_network

Images = Dataset[tuple[Tensor, int]]


def main() -> None:
    """Measures the seconds per epoch."""
    options = _options()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    network = frozen_network(options)
    train, validation = datasets(options.photos, options.layout, options.backbone)
    rows = epochs(network, train, validation, options)
    fastest = min(float(row["seconds"]) for row in rows)
    notes = [f"{options.backbone}, frozen: {options.frozen}, batch size {options.batch_size}, float32"]
    sizes = {"train_images": len(train), "validation_images": len(validation)}
    fastest_phases = {
        phase: min(float(row[phase]) for row in rows) for phase in ("train_seconds", "validation_seconds")
    }
    report(options, rows, notes, seconds_per_epoch=fastest, **fastest_phases, **sizes)


def _options() -> Namespace:
    arguments = parser(__doc__)
    arguments.add_argument("--backbone", default="efficientnet_lite0")
    arguments.add_argument("--weights", default="default", help="default, none, or a file")
    arguments.add_argument("--frozen", default="all", help="all, none, or the last frozen stage")
    arguments.add_argument("--epochs", type=int, default=2)
    arguments.add_argument("--batch-size", type=int, default=4, help="4 in the tutorial")
    arguments.add_argument("--workers", type=int, default=4, help="workers of the DataLoader; 4 in the tutorial")
    arguments.add_argument(
        "--layout",
        choices=("tutorial", "recipe"),
        default="tutorial",
        help="tutorial: train on train/, validate on val/; "
        "recipe: validate on a share of train/, with as many images per epoch as the platform",
    )
    return arguments.parse_args()


def frozen_network(options: Namespace) -> nn.Module:
    """Returns the backbone with the weights that the platform uses, partly frozen."""
    info = catalog.backbone_info(options.backbone)
    source = weight_sources.locate_weights(options.backbone, options.weights)
    if source.path is None and source.url is not None:
        raise SystemExit(f"the weights of {options.backbone} are not installed: use --weights none or --weights FILE")
    spec = NetworkSpec(options.backbone, classes=2, dropout=0.0, image_size=info.preprocessing.image_size)
    network = build_network(spec, source.path)
    for parameter in _frozen_parameters(network, options.frozen):
        parameter.requires_grad_(False)
    return network.backbone.to(options.device)


def _frozen_parameters(network: Network, through: str) -> list[nn.Parameter]:
    if through == "none":
        return []
    stages = network.stages if through == "all" else network.stages[: network.stages.index(through) + 1]
    return [parameter for stage in stages for parameter in network.stage_parameters(stage)]


def datasets(photos: Path, layout: str, backbone: str) -> tuple[Images, Images]:
    """Returns training and validation images, preprocessed as in the tutorial."""
    preprocessing = catalog.backbone_info(backbone).preprocessing
    transform = transforms.Compose(
        [
            transforms.Resize(round(preprocessing.image_size / preprocessing.crop)),
            transforms.CenterCrop(preprocessing.image_size),
            transforms.ToTensor(),
            transforms.Normalize(preprocessing.mean, preprocessing.std),
        ]
    )
    train = ImageFolder(photos / "train", transform)
    if layout == "tutorial":
        return train, ImageFolder(photos / "val", transform)
    held_out = round(VALIDATION * len(train))
    subsets: list[Subset[tuple[Tensor, int]]] = random_split(train, [len(train) - held_out, held_out])
    return subsets[0], subsets[1]


def epochs(network: nn.Module, train: Images, validation: Images, options: Namespace) -> list[dict[str, float]]:
    """Trains and measures every epoch and its two phases."""
    trainable = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trainable, lr=0.001, momentum=0.9)
    rows = []
    for number in range(1, options.epochs + 1):
        start = time.perf_counter()
        loss = train_epoch(network, _loader(train, options, shuffle=True), optimizer, options.device)
        trained = time.perf_counter()
        accuracy = evaluate(network, _loader(validation, options), options.device)
        end = time.perf_counter()
        rows.append(
            {
                "epoch": number,
                "seconds": end - start,
                "train_seconds": trained - start,
                "validation_seconds": end - trained,
                "train_loss": loss,
                "validation_accuracy": accuracy,
            }
        )
    return rows


def _loader(dataset: Images, options: Namespace, *, shuffle: bool = False) -> DataLoader[tuple[Tensor, int]]:
    return DataLoader(dataset, options.batch_size, shuffle=shuffle, num_workers=options.workers)


def train_epoch(
    network: nn.Module, batches: DataLoader[tuple[Tensor, int]], optimizer: torch.optim.Optimizer, device: str
) -> float:
    """Trains for one epoch; returns the mean loss."""
    network.train()
    criterion = nn.CrossEntropyLoss()
    total, count = 0.0, 0
    for inputs, labels in batches:
        optimizer.zero_grad()
        output = network(inputs.to(device))
        loss = criterion(output, labels.to(device))
        loss.backward()
        optimizer.step()
        total += loss.item() * len(labels)
        count += len(labels)
    return total / count


@torch.no_grad()
def evaluate(network: nn.Module, batches: DataLoader[tuple[Tensor, int]], device: str) -> float:
    """Returns the accuracy, 0 to 1."""
    network.eval()
    correct, count = 0, 0
    for inputs, labels in batches:
        correct += int((network(inputs.to(device)).argmax(1).cpu() == labels).sum())
        count += len(labels)
    return correct / count


if __name__ == "__main__":
    main()
