"""Time and memory as a data set grows: 1,000, 10,000 and 60,000 images of CIFAR-10.

Each size is one `platform run` with a cold cache, a single trial with everything frozen. Memory is the
largest resident set of the process (or one of its children) above that of a process that only imports the
libraries; pages of memory-mapped files count while they are resident.

    python benchmarks/scale.py --archive cifar10_images.zip --unpacked /tmp/cifar10
    python benchmarks/scale.py ... --sizes 200 400 --epochs 1 --image-size 32      # a small form
"""

from __future__ import annotations

import os
import sys
import zipfile
from argparse import Namespace
from pathlib import Path

from measuring import Row, environment, existing, parser, precision_argument, report, timed, workplace
from platform_runs import platform_run

CLASSES = 10
TRAIN_SHARE = 5 / 6
"""CIFAR-10 has 50,000 training and 10,000 test images; so has every part of it."""
IMPORTS = "import floor; floor.import_libraries(); import transfer_platform.commands.run"


def main() -> None:
    """Measures the sizes one after the other, smallest first."""
    options = _options()
    photographs = unpacked(options.archive, options.unpacked)
    with workplace(options.work or options.unpacked / "runs") as folder:
        imports = _imports_peak(folder, options)
        rows = [measure(size, photographs, imports, folder / str(size), options) for size in options.sizes]
    notes = [
        f"the imports alone: {imports / 2**20:.0f} MiB",
        f"{options.backbone} at {options.image_size} pixels, everything frozen, {options.epochs} epochs, "
        f"batches of {options.batch_size}, cold cache, one trial, test included",
    ]
    report(options, rows, notes)
    plot(rows, options.out.with_suffix(".png"))


def _options() -> Namespace:
    arguments = parser(__doc__, photos=False)
    arguments.add_argument("--archive", type=existing, required=True, help="cifar10_images.zip")
    arguments.add_argument(
        "--unpacked", type=Path, required=True, help="a folder for the images, outside the repository; kept"
    )
    arguments.add_argument("--sizes", type=int, nargs="+", default=[1_000, 10_000, 60_000])
    arguments.add_argument("--backbone", default="efficientnet_lite0")
    arguments.add_argument("--image-size", type=int, default=64, help="the originals are 32 x 32")
    arguments.add_argument("--epochs", type=int, default=3)
    arguments.add_argument("--batch-size", type=int, default=64)
    precision_argument(arguments)
    return arguments.parse_args()


def unpacked(archive: Path, folder: Path) -> Path:
    """The folder `cifar10` with train/ and test/, unpacked once."""
    folder = folder.expanduser().resolve()
    marker = folder / "unpacked"
    if not marker.exists():
        with zipfile.ZipFile(archive) as images:
            images.extractall(folder)
        marker.touch()
    return folder / "cifar10"


def _imports_peak(folder: Path, options: Namespace) -> int:
    variables = {**environment(options.threads), "PYTHONPATH": str(Path(__file__).parent)}
    return timed([sys.executable, "-c", IMPORTS], folder / "imports", variables).peak_bytes


def measure(size: int, photographs: Path, imports: int, folder: Path, options: Namespace) -> Row:
    """One line of the table: a cold run on `size` images, train and test together."""
    data = part(photographs, size, folder / "images")
    ended, study = platform_run(
        _recipe(data, options), folder / "work", folder / "cache", options.threads, options.device
    )
    cached = sum(file.stat().st_size for file in (folder / "cache").rglob("*") if file.is_file())
    return {
        "images": size,
        "seconds": ended.seconds,
        "seconds per 1,000 images": ended.seconds / size * 1000,
        "seconds an epoch": min(study.epoch_seconds),
        "MiB above the imports": (ended.peak_bytes - imports) / 2**20,
        "MiB in the cache": cached / 2**20,
        "test accuracy": study.test_accuracy,
    }


def part(photographs: Path, size: int, folder: Path) -> Path:
    """The first images of every class as hard links: the proportions of classes and splits stay."""
    counts = {"train": round(size * TRAIN_SHARE / CLASSES), "test": round(size * (1 - TRAIN_SHARE) / CLASSES)}
    for split, count in counts.items():
        for label in sorted((photographs / split).iterdir()):
            (folder / split / label.name).mkdir(parents=True)
            for image in sorted(label.iterdir())[:count]:
                os.link(image, folder / split / label.name / image.name)
    return folder


def _recipe(data: Path, options: Namespace) -> dict[str, object]:
    splits = {"train": "train", "validation": 0.1, "test": "test"}
    return {
        "name": "scale",
        "dataset": {"source": str(data), "splits": splits, "image_size": options.image_size},
        "backbone": {"name": options.backbone, "freeze_through": "all"},
        "training": {
            "epochs": options.epochs,
            "batch_size": options.batch_size,
            "precision": options.precision,
        },
    }


def plot(rows: list[Row], path: Path) -> None:
    """Seconds and memory over the number of images."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, (seconds, memory) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    images = [row["images"] for row in rows]
    seconds.loglog(images, [row["seconds"] for row in rows], "o-")
    seconds.set(xlabel="images", ylabel="seconds, whole process", title="time")
    memory.semilogx(images, [row["MiB above the imports"] for row in rows], "o-")
    memory.set(xlabel="images", ylabel="MiB above the imports", title="peak memory")
    memory.set_ylim(0, 1.15 * memory.get_ylim()[1])
    for axes in (seconds, memory):
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
