"""Preflight throughput compared with a loop that only decodes: 1,000 to 60,000 images of CIFAR-10.

Both are separate processes on the same files, which have been read before, so that neither waits for the
disk. The preflight hashes, decodes, measures and compares all images with an empty cache; a second preflight
reuses the cache. Memory is the maximum resident memory minus that of a process that only imports.

    python benchmarks/preflight.py --archive cifar10_images.zip --unpacked /tmp/cifar10
    python benchmarks/preflight.py ... --side 224           # the same images, upscaled from 32 pixels
    python benchmarks/preflight.py ... --sizes 200 400      # smoke test
"""

from __future__ import annotations

import json
import sys
import time
from argparse import Namespace
from pathlib import Path

from harness import Row, environment, existing_path, last_json_line, parser, report, run_process, work_folder
from scale import extract_archive, link_subset

IMPORTS = "import transfer_platform.inspection.preflight, joblib, scipy.fft, scipy.sparse.csgraph"


def main() -> None:
    """Measures all sizes; with `--loop` or `--preflight`, runs one measured process."""
    options = _options()
    if options.loop or options.preflight:
        seconds = loop(options.loop) if options.loop else preflight(options.preflight)
        print(json.dumps({"seconds": seconds}))
        return
    photographs = extract_archive(options.archive, options.unpacked)
    with work_folder(options.work) as folder:
        imports = run_process([sys.executable, "-c", IMPORTS], folder / "imports", environment(options.threads))
        rows = [measure(size, photographs, imports.peak_bytes, folder, options) for size in options.sizes]
    report(options, rows, [f"memory of the imports: {imports.peak_bytes / 2**20:.0f} MiB"])


def _options() -> Namespace:
    arguments = parser(__doc__, photos=False)
    arguments.add_argument("--archive", type=existing_path, help="cifar10_images.zip")
    arguments.add_argument("--unpacked", type=Path, help="folder for the extracted images; not deleted")
    arguments.add_argument("--sizes", type=int, nargs="+", default=[1_000, 10_000, 60_000])
    arguments.add_argument(
        "--side", type=int, help="resize the images to this many pixels; default: 32, the original size"
    )
    arguments.add_argument("--loop", type=Path, help="internal")
    arguments.add_argument("--preflight", type=Path, help="internal")
    return arguments.parse_args()


def measure(size: int, photographs: Path, imports: int, folder: Path, options: Namespace) -> Row:
    """Returns a row of the table.

    Args:
        size: Number of images, five sixths of them from train/.
        photographs: Folder with train/ and test/.
        imports: Peak memory of a process that only imports, in bytes.
        folder: Working folder.
        options: Options of this benchmark.
    """
    images = link_subset(photographs, size, folder / f"images{size}")
    if options.side:
        images = resize_all(images, options.side, folder / f"resized{size}")
    for file in images.rglob("*.jpg"):
        file.read_bytes()
    processes = {}
    for run in ("loop", "preflight", "again"):
        variables = environment(options.threads, folder / f"cache{size}")
        worker = "--loop" if run == "loop" else "--preflight"
        command = [sys.executable, Path(__file__).resolve(), worker, images]
        processes[run] = run_process(command, folder / f"{run}{size}", variables)
    seconds = {run: last_json_line(process)["seconds"] for run, process in processes.items()}
    return {
        "images": size,
        "loop, images/s": size / seconds["loop"],
        "preflight, images/s": size / seconds["preflight"],
        "speedup": seconds["loop"] / seconds["preflight"],
        "second preflight, s": seconds["again"],
        "memory above imports, MiB": (processes["preflight"].peak_bytes - imports) / 2**20,
    }


def resize_all(images: Path, side: int, folder: Path) -> Path:
    """Writes the images as squares of another size, JPEG quality 85; returns their folder."""
    from PIL import Image

    for file in images.rglob("*.jpg"):
        target = folder / file.relative_to(images)
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.open(file).convert("RGB").resize((side, side), Image.Resampling.BICUBIC).save(target, quality=85)
    return folder


def loop(folder: Path) -> float:
    """Decodes every file to RGB; returns the seconds."""
    from PIL import Image

    start = time.perf_counter()
    for file in folder.rglob("*.jpg"):
        Image.open(file).convert("RGB")
    return time.perf_counter() - start


def preflight(folder: Path) -> float:
    """Runs the preflight on the files; returns the seconds."""
    from transfer_platform.data.dataset import open_dataset
    from transfer_platform.inspection.preflight import preflight as run_preflight
    from transfer_platform.recipe.schema import DatasetConfig, SplitsConfig

    start = time.perf_counter()
    splits = SplitsConfig(train="train", validation=0.1, test="test")
    run_preflight(open_dataset(DatasetConfig(source=str(folder), splits=splits), folder))
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
