"""Precision and recall of the label errors that `platform data` reports, on CIFAR-10 with flipped labels.

Moves a share of the training images into a random other class folder and compares the reported label errors
with them. The labels of CIFAR-10 itself count as correct, although a few are not.

    python benchmarks/labels.py --archive cifar10_images.zip --unpacked /tmp/cifar10
    python benchmarks/labels.py ... --images 500 --image-size 32      # smoke test
"""

from __future__ import annotations

import json
import random
from argparse import Namespace
from pathlib import Path

from harness import BIN, Row, environment, existing_path, parser, report, run_process, work_folder
from scale import extract_archive, link_subset


def main() -> None:
    """Measures all seeds."""
    options = _options()
    photographs = extract_archive(options.archive, options.unpacked)
    with work_folder(options.work or options.unpacked / "runs") as folder:
        rows = [measure(seed, photographs, folder / str(seed), options) for seed in range(options.seeds)]
    notes = [
        f"{options.images} training images, {options.share:.0%} of the labels flipped; {options.backbone} at "
        f"{options.image_size} pixels, frozen; five folds of logistic regression",
        "precision: share of reported labels that were flipped; recall: share of flipped labels reported",
    ]
    report(options, rows, notes)


def _options() -> Namespace:
    arguments = parser(__doc__, photos=False)
    arguments.add_argument("--archive", type=existing_path, required=True, help="cifar10_images.zip")
    arguments.add_argument("--unpacked", type=Path, required=True, help="folder for the extracted images; not deleted")
    arguments.add_argument("--images", type=int, default=5_000, help="training images")
    arguments.add_argument("--share", type=float, default=0.05, help="share of labels to flip")
    arguments.add_argument("--seeds", type=int, default=3)
    arguments.add_argument("--backbone", default="efficientnet_lite0")
    arguments.add_argument("--image-size", type=int, default=224, help="pixels; the originals are 32 x 32")
    return arguments.parse_args()


def measure(seed: int, photographs: Path, folder: Path, options: Namespace) -> Row:
    """Returns a row of the table.

    Args:
        seed: Seed of the selection of flipped labels.
        photographs: Folder with train/ and test/.
        folder: Working folder.
        options: Options of this benchmark.
    """
    images = link_subset(photographs, round(options.images * 6 / 5), folder / "images")
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
    process = run_process(command, folder, environment(options.threads, options.unpacked / "runs" / "cache"))
    findings = json.loads(process.output[process.output.index("{") :])["findings"]
    errors = _files(findings, "label error")
    suspicious = errors | _files(findings, "predicted as another class")
    return {
        "seed": seed,
        "flipped": len(flipped),
        "reported": len(errors),
        "precision": len(errors & flipped) / max(1, len(errors)),
        "recall": len(errors & flipped) / len(flipped),
        "reported with mispredicted": len(suspicious),
        "recall with mispredicted": len(suspicious & flipped) / len(flipped),
        "seconds": process.seconds,
    }


def flip(train: Path, share: float, seed: int) -> set[str]:
    """Moves images into other classes; returns their new names, relative to the dataset."""
    generator = random.Random(seed)
    classes = sorted(path.name for path in train.iterdir())
    files = sorted(train.glob("*/*.jpg"))
    moved = set()
    for file in generator.sample(files, round(share * len(files))):
        other = generator.choice([name for name in classes if name != file.parent.name])
        target = file.rename(train / other / f"moved {file.parent.name} {file.name}")
        moved.add(target.relative_to(train.parent).as_posix())
    return moved


def _files(findings: list[dict[str, list[str]]], kind: str) -> set[str]:
    return {name for finding in findings if finding["kind"] == kind for name in finding["files"]}


if __name__ == "__main__":
    main()
