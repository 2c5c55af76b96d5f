"""How many wrong labels `platform data` finds, and how many right ones it accuses: CIFAR-10, labels flipped.

A share of the training images is moved into another class folder, chosen at random. Every accusation is
compared with what was moved; the labels of CIFAR-10 itself count as right, though a few of them are not.

    python benchmarks/labels.py --archive cifar10_images.zip --unpacked /tmp/cifar10
    python benchmarks/labels.py ... --images 500 --image-size 32      # a small form
"""

from __future__ import annotations

import json
import random
from argparse import Namespace
from pathlib import Path

from measuring import BIN, Row, environment, existing, parser, report, timed, workplace
from scale import part, unpacked


def main() -> None:
    """Flips, asks, and counts."""
    options = _options()
    photographs = unpacked(options.archive, options.unpacked)
    with workplace(options.work or options.unpacked / "runs") as folder:
        rows = [measure(seed, photographs, folder / str(seed), options) for seed in range(options.seeds)]
    notes = [
        f"{options.images} training images, {options.share:.0%} of the labels flipped; {options.backbone} at "
        f"{options.image_size} pixels, frozen; five folds of logistic regression",
        "hit: the share of accusations that are right; found: the share of flipped labels that are accused",
    ]
    report(options, rows, notes)


def _options() -> Namespace:
    arguments = parser(__doc__, photos=False)
    arguments.add_argument("--archive", type=existing, required=True, help="cifar10_images.zip")
    arguments.add_argument("--unpacked", type=Path, required=True, help="a folder for the images; kept")
    arguments.add_argument("--images", type=int, default=5_000, help="of train/")
    arguments.add_argument("--share", type=float, default=0.05, help="of the labels that are flipped")
    arguments.add_argument("--seeds", type=int, default=3)
    arguments.add_argument("--backbone", default="efficientnet_lite0")
    arguments.add_argument("--image-size", type=int, default=224, help="the originals are 32 x 32")
    return arguments.parse_args()


def measure(seed: int, photographs: Path, folder: Path, options: Namespace) -> Row:
    """One line of the table.

    Args:
        seed: Chooses what is flipped.
        photographs: The folder with train/ and test/.
        folder: Gets the images.
        options: Of this benchmark.
    """
    images = part(photographs, round(options.images * 6 / 5), folder / "images")
    flipped = flip(images / "train", options.share, seed)
    recipe = folder / "recipe.yaml"
    recipe.write_text(
        json.dumps(
            {
                "name": "labels",
                "dataset": {
                    "source": str(images),
                    "splits": {"train": "train", "validation": {"folds": 5}, "test": "test"},
                    "image_size": options.image_size,
                },
                "backbone": {"name": options.backbone},
            }
        )
    )
    command = [BIN / "platform", "data", recipe, "--json", "--device", options.device]
    ended = timed(command, folder, environment(options.threads, options.unpacked / "runs" / "cache"))
    found = json.loads(ended.output[ended.output.index("{") :])["findings"]
    accused = _named(found, "label error")
    doubtful = accused | _named(found, "predicted as another class")
    return {
        "seed": seed,
        "flipped": len(flipped),
        "accused": len(accused),
        "hit": len(accused & flipped) / max(1, len(accused)),
        "found": len(accused & flipped) / len(flipped),
        "doubtful in all": len(doubtful),
        "found among them": len(doubtful & flipped) / len(flipped),
        "seconds": ended.seconds,
    }


def flip(train: Path, share: float, seed: int) -> set[str]:
    """Moves images into other classes; gives their new names, relative to the data set."""
    draw = random.Random(seed)
    classes = sorted(path.name for path in train.iterdir())
    files = sorted(train.glob("*/*.jpg"))
    moved = set()
    for file in draw.sample(files, round(share * len(files))):
        other = draw.choice([name for name in classes if name != file.parent.name])
        target = file.rename(train / other / f"moved {file.parent.name} {file.name}")
        moved.add(target.relative_to(train.parent).as_posix())
    return moved


def _named(findings: list[dict[str, list[str]]], kind: str) -> set[str]:
    return {name for each in findings if each["kind"] == kind for name in each["files"]}


if __name__ == "__main__":
    main()
