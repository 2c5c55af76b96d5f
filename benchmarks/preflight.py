"""The preflight against a plain loop that decodes every file with Pillow: 1,000 to 60,000 images of CIFAR-10.

Both are processes of their own over the same files, which were read once before, so that neither waits for
the disk. The preflight hashes, decodes, measures and compares all images, with an empty cache; a second
one, with what the first has kept, follows. Memory is the largest resident set above that of a process that
only imports.

    python benchmarks/preflight.py --archive cifar10_images.zip --unpacked /tmp/cifar10
    python benchmarks/preflight.py ... --side 224           # the same photographs, scaled up from 32 pixels
    python benchmarks/preflight.py ... --sizes 200 400      # a small form
"""

from __future__ import annotations

import json
import sys
import time
from argparse import Namespace
from pathlib import Path

from measuring import Row, environment, existing, last_json, parser, report, timed, workplace
from scale import part, unpacked

IMPORTS = "import transfer_platform.inspection.preflight, joblib, scipy.fft, scipy.sparse.csgraph"


def main() -> None:
    """Measures the sizes one after the other, or is one of the processes."""
    options = _options()
    if options.loop or options.preflight:
        seconds = loop(options.loop) if options.loop else preflight(options.preflight)
        print(json.dumps({"seconds": seconds}))
        return
    photographs = unpacked(options.archive, options.unpacked)
    with workplace(options.work) as folder:
        imports = timed([sys.executable, "-c", IMPORTS], folder / "imports", environment(options.threads))
        rows = [measure(size, photographs, imports.peak_bytes, folder, options) for size in options.sizes]
    report(options, rows, [f"the imports alone: {imports.peak_bytes / 2**20:.0f} MiB"])


def _options() -> Namespace:
    arguments = parser(__doc__, photos=False)
    arguments.add_argument("--archive", type=existing, help="cifar10_images.zip")
    arguments.add_argument("--unpacked", type=Path, help="a folder for the images; kept")
    arguments.add_argument("--sizes", type=int, nargs="+", default=[1_000, 10_000, 60_000])
    arguments.add_argument("--side", type=int, help="of the images in pixels; unset, 32, as they are")
    arguments.add_argument("--loop", type=Path, help="used by the benchmark itself")
    arguments.add_argument("--preflight", type=Path, help="used by the benchmark itself")
    return arguments.parse_args()


def measure(size: int, photographs: Path, imports: int, folder: Path, options: Namespace) -> Row:
    """One line of the table.

    Args:
        size: Images, five sixths of them from train/.
        photographs: The folder with train/ and test/.
        imports: Bytes of a process that only imports.
        folder: For the processes.
        options: Of this benchmark.
    """
    images = part(photographs, size, folder / f"images{size}")
    if options.side:
        images = scaled(images, options.side, folder / f"scaled{size}")
    for file in images.rglob("*.jpg"):
        file.read_bytes()
    ended = {}
    for what in ("loop", "preflight", "again"):
        variables = environment(options.threads, folder / f"cache{size}")
        worker = "--loop" if what == "loop" else "--preflight"
        command = [sys.executable, Path(__file__).resolve(), worker, images]
        ended[what] = timed(command, folder / f"{what}{size}", variables)
    seconds = {what: last_json(each)["seconds"] for what, each in ended.items()}
    return {
        "images": size,
        "loop, images/s": size / seconds["loop"],
        "preflight, images/s": size / seconds["preflight"],
        "times faster": seconds["loop"] / seconds["preflight"],
        "again, s": seconds["again"],
        "above the imports, MiB": (ended["preflight"].peak_bytes - imports) / 2**20,
    }


def scaled(images: Path, side: int, folder: Path) -> Path:
    """The same images as squares of another side, JPEG of quality 85."""
    from PIL import Image

    for file in images.rglob("*.jpg"):
        target = folder / file.relative_to(images)
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.open(file).convert("RGB").resize((side, side), Image.Resampling.BICUBIC).save(
            target, quality=85
        )
    return folder


def loop(folder: Path) -> float:
    """Seconds of decoding every file to RGB, one after the other."""
    from PIL import Image

    start = time.perf_counter()
    for file in folder.rglob("*.jpg"):
        Image.open(file).convert("RGB")
    return time.perf_counter() - start


def preflight(folder: Path) -> float:
    """Seconds of the preflight of the same files."""
    from transfer_platform.inspection.preflight import preflight as inspected
    from transfer_platform.recipe.schema import DatasetConfig, SplitsConfig

    start = time.perf_counter()
    splits = SplitsConfig(train="train", validation=0.1, test="test")
    inspected(DatasetConfig(source=str(folder), splits=splits), folder)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
