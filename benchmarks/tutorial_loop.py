"""The baseline: the fine-tuning loop of PyTorch's transfer-learning tutorial, written down plainly.

https://docs.pytorch.org/tutorials/beginner/transfer_learning_tutorial.html: `ImageFolder`, `DataLoader`,
batches of 4, SGD with momentum, float32; every image is decoded and goes through the whole network in every
epoch, and what is frozen has `requires_grad = False`. Images are resized and cropped, not augmented, so that
it does the work of a recipe with `augmentation: none`.

    python benchmarks/tutorial_loop.py --photos hymenoptera_data --backbone efficientnet_lite0 --frozen all
"""

from __future__ import annotations

import time
from argparse import Namespace
from pathlib import Path

import torch
from measuring import parser, report
from platform_runs import VALIDATION
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Subset, random_split
from torchvision import transforms
from torchvision.datasets import ImageFolder

from transfer_model import catalog, weight_sources
from transfer_model.network import Network, NetworkSpec, build_network

Images = Dataset[tuple[Tensor, int]]


def main() -> None:
    """Measures the seconds of an epoch."""
    options = _options()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    network = frozen_network(options)
    train, validation = images(options.photos, options.layout, options.backbone)
    rows = epochs(network, train, validation, options)
    fastest = min(float(row["seconds"]) for row in rows)
    notes = [f"{options.backbone}, frozen: {options.frozen}, batches of {options.batch_size}, float32"]
    sizes = {"train_images": len(train), "validation_images": len(validation)}
    fastest_phases = {
        phase: min(float(row[phase]) for row in rows) for phase in ("train_seconds", "validation_seconds")
    }
    report(options, rows, notes, seconds_per_epoch=fastest, **fastest_phases, **sizes)


def _options() -> Namespace:
    arguments = parser(__doc__)
    arguments.add_argument("--backbone", default="efficientnet_lite0")
    arguments.add_argument("--weights", default="default", help="default, none, or a file")
    arguments.add_argument("--frozen", default="all", help="all, none, or the last stage that is frozen")
    arguments.add_argument("--epochs", type=int, default=2)
    arguments.add_argument("--batch-size", type=int, default=4, help="the tutorial's is 4")
    arguments.add_argument("--workers", type=int, default=4, help="of the DataLoader; the tutorial's is 4")
    arguments.add_argument(
        "--layout",
        choices=("tutorial", "recipe"),
        default="tutorial",
        help="tutorial: an epoch trains on train/ and validates on val/; "
        "recipe: a share of train/ validates, so that an epoch sees as many images as the platform's",
    )
    return arguments.parse_args()


def frozen_network(options: Namespace) -> nn.Module:
    """The same network and weights as the platform's, under nobody's control but the loop's."""
    outline = catalog.backbone_info(options.backbone)
    source = weight_sources.locate_weights(options.backbone, options.weights)
    if source.path is None and source.url is not None:
        raise SystemExit(f"the weights of {options.backbone} are not here: --weights none, or a file")
    spec = NetworkSpec(options.backbone, classes=2, dropout=0.0, image_size=outline.preprocessing.image_size)
    network = build_network(spec, source.path)
    for parameter in _frozen_parameters(network, options.frozen):
        parameter.requires_grad_(False)
    return network.backbone.to(options.device)


def _frozen_parameters(network: Network, through: str) -> list[nn.Parameter]:
    if through == "none":
        return []
    stages = network.stages if through == "all" else network.stages[: network.stages.index(through) + 1]
    return [parameter for stage in stages for parameter in network.stage_parameters(stage)]


def images(photos: Path, layout: str, backbone: str) -> tuple[Images, Images]:
    """Training and validation images as the tutorial prepares them."""
    settings = catalog.backbone_info(backbone).preprocessing
    prepare = transforms.Compose(
        [
            transforms.Resize(round(settings.image_size / settings.crop)),
            transforms.CenterCrop(settings.image_size),
            transforms.ToTensor(),
            transforms.Normalize(settings.mean, settings.std),
        ]
    )
    train = ImageFolder(photos / "train", prepare)
    if layout == "tutorial":
        return train, ImageFolder(photos / "val", prepare)
    held_out = round(VALIDATION * len(train))
    parts: list[Subset[tuple[Tensor, int]]] = random_split(train, [len(train) - held_out, held_out])
    return parts[0], parts[1]


def epochs(
    network: nn.Module, train: Images, validation: Images, options: Namespace
) -> list[dict[str, float]]:
    """Trains, and times every epoch and its two phases."""
    learning = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(learning, lr=0.001, momentum=0.9)
    rows = []
    for number in range(1, options.epochs + 1):
        start = time.perf_counter()
        loss = train_once(network, _loader(train, options, shuffle=True), optimizer, options.device)
        between = time.perf_counter()
        accuracy = accuracy_on(network, _loader(validation, options), options.device)
        end = time.perf_counter()
        rows.append(
            {
                "epoch": number,
                "seconds": end - start,
                "train_seconds": between - start,
                "validation_seconds": end - between,
                "train_loss": loss,
                "validation_accuracy": accuracy,
            }
        )
    return rows


def _loader(dataset: Images, options: Namespace, *, shuffle: bool = False) -> DataLoader[tuple[Tensor, int]]:
    return DataLoader(dataset, options.batch_size, shuffle=shuffle, num_workers=options.workers)


def train_once(
    network: nn.Module,
    batches: DataLoader[tuple[Tensor, int]],
    optimizer: torch.optim.Optimizer,
    device: str,
) -> float:
    """One epoch of training; gives its mean loss."""
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
def accuracy_on(network: nn.Module, batches: DataLoader[tuple[Tensor, int]], device: str) -> float:
    """Share of the images that the network classifies correctly."""
    network.eval()
    hits, count = 0, 0
    for inputs, labels in batches:
        hits += int((network(inputs.to(device)).argmax(1).cpu() == labels).sum())
        count += len(labels)
    return hits / count


if __name__ == "__main__":
    main()
