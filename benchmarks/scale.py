"""Time and memory by dataset size: 1,000, 10,000 and 60,000 images of CIFAR-10.

Each size is one `platform run` with a cold cache and a single trial with everything frozen. Memory is the
maximum resident memory of the process (or one of its children) minus that of a process that only imports the
libraries; resident pages of memory-mapped files are included.

    python benchmarks/scale.py --archive cifar10_images.zip --unpacked /tmp/cifar10
    python benchmarks/scale.py ... --sizes 200 400 --epochs 1 --image-size 32      # smoke test
"""

from __future__ import annotations

import os
import sys
import zipfile
from argparse import Namespace
from pathlib import Path

from harness import Row, environment, existing_path, parser, precision_argument, report, run_process, work_folder
from platform_runs import platform_run

CLASSES = 10
TRAIN_SHARE = 5 / 6
"""CIFAR-10 has 50,000 training and 10,000 test images; subsets have the same proportion."""
IMPORTS = "import floor; floor.import_libraries(); import transfer_platform.commands.run"


def main() -> None:
    """Measures all sizes and plots them."""
    options = _options()
    photographs = extract_archive(options.archive, options.unpacked)
    with work_folder(options.work or options.unpacked / "runs") as folder:
        imports = _imports_peak(folder, options)
        rows = [measure(size, photographs, imports, folder / str(size), options) for size in options.sizes]
    notes = [
        f"memory of the imports: {imports / 2**20:.0f} MiB",
        f"{options.backbone} at {options.image_size} pixels, everything frozen, {options.epochs} epochs, "
        f"batch size {options.batch_size}, cold cache, one trial, including the test",
    ]
    report(options, rows, notes)
    plot(rows, options.out.with_suffix(".png"))


def _options() -> Namespace:
    arguments = parser(__doc__, photos=False)
    arguments.add_argument("--archive", type=existing_path, required=True, help="cifar10_images.zip")
    arguments.add_argument(
        "--unpacked",
        type=Path,
        required=True,
        help="folder for the extracted images, outside of the repository; not deleted",
    )
    arguments.add_argument("--sizes", type=int, nargs="+", default=[1_000, 10_000, 60_000])
    arguments.add_argument("--backbone", default="efficientnet_lite0")
    arguments.add_argument("--image-size", type=int, default=64, help="pixels; the originals are 32 x 32")
    arguments.add_argument("--epochs", type=int, default=3)
    arguments.add_argument("--batch-size", type=int, default=64)
    precision_argument(arguments)
    return arguments.parse_args()


def extract_archive(archive: Path, folder: Path) -> Path:
    """Extracts the archive unless done before; returns its folder `cifar10` with train/ and test/."""
    folder = folder.expanduser().resolve()
    marker = folder / "unpacked"
    if not marker.exists():
        with zipfile.ZipFile(archive) as images:
            images.extractall(folder)
        marker.touch()
    return folder / "cifar10"


def _imports_peak(folder: Path, options: Namespace) -> int:
    variables = {**environment(options.threads), "PYTHONPATH": str(Path(__file__).parent)}
    return run_process([sys.executable, "-c", IMPORTS], folder / "imports", variables).peak_bytes


def measure(size: int, photographs: Path, imports: int, folder: Path, options: Namespace) -> Row:
    """Returns a row of the table: a cold run on `size` images, train and test together."""
    data = link_subset(photographs, size, folder / "images")
    process, study = platform_run(
        _recipe(data, options), folder / "work", folder / "cache", options.threads, options.device
    )
    cached = sum(file.stat().st_size for file in (folder / "cache").rglob("*") if file.is_file())
    return {
        "images": size,
        "seconds": process.seconds,
        "seconds per 1,000 images": process.seconds / size * 1000,
        "seconds per epoch": min(study.epoch_seconds),
        "MiB above imports": (process.peak_bytes - imports) / 2**20,
        "MiB in cache": cached / 2**20,
        "test accuracy": study.test_accuracy,
    }


def link_subset(photographs: Path, size: int, folder: Path) -> Path:
    """Links the first images of every class; the proportions of classes and splits are preserved."""
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
        "training": {"epochs": options.epochs, "batch_size": options.batch_size, "precision": options.precision},
    }


def plot(rows: list[Row], path: Path) -> None:
    """Plots seconds and memory by number of images."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, (seconds, memory) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    images = [row["images"] for row in rows]
    seconds.loglog(images, [row["seconds"] for row in rows], "o-")
    seconds.set(xlabel="images", ylabel="seconds, total", title="time")
    memory.semilogx(images, [row["MiB above imports"] for row in rows], "o-")
    memory.set(xlabel="images", ylabel="MiB above imports", title="peak memory")
    memory.set_ylim(0, 1.15 * memory.get_ylim()[1])
    for axes in (seconds, memory):
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
