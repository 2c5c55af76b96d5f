"""Lower bound for any process that processes every photograph once.

The process imports the libraries that the platform imports, opens a new MLflow database, decodes all
photographs once in parallel, and runs one forward pass with the fastest precision and batch size. A separate
process, which is not measured, determines these two.

    python benchmarks/floor.py --photos hymenoptera_data
"""

from __future__ import annotations

import importlib
import json
import statistics
import sys
import time
from argparse import Namespace
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import ProcessResult, environment, last_json_line, parser, report, run_process, work_folder

if TYPE_CHECKING:
    from torch import Tensor, nn

    from transfer_model.network import Network

BATCHES = {"cpu": (1, 2, 4, 8, 16, 32), "cuda": (16, 64, 256)}
"""Batch sizes to try."""
LIBRARIES = (
    "alembic",
    "matplotlib.pyplot",
    "mlflow.tracking",
    "optuna",
    "pydantic",
    "ruamel.yaml",
    "safetensors.torch",
    "scipy.stats",
    "sklearn.metrics",
    "sqlalchemy",
    "timm",
    "torch",
    "torchvision.transforms.v2",
)
"""Libraries that the platform imports."""
MIN_RELATIVE_SPEED = 0.1
"""Relative speed below which a precision is abandoned: bfloat16 takes minutes on some CPUs."""


def main() -> None:
    """Measures the lower bound; with `--worker`, runs the measured process."""
    options = _options()
    if options.worker:
        print(json.dumps(_WORKERS[options.worker](options)))
        return
    with work_folder(options.work) as folder:
        fastest = find_fastest_settings(options, folder)
        runs = [floor(options, fastest, folder / f"floor-{number}") for number in range(options.repeats)]
    rows = [{"run": at, "seconds": process.seconds, **last_json_line(process)} for at, process in enumerate(runs, 1)]
    notes = [f"fastest settings: {fastest['precision']}, batch size {fastest['batch']}"]
    report(options, rows, notes, seconds=statistics.median(process.seconds for process in runs), fastest=fastest)


def _options() -> Namespace:
    arguments = parser(__doc__)
    arguments.add_argument("--backbone", default="efficientnet_lite0")
    arguments.add_argument("--repeats", type=int, default=3)
    arguments.add_argument("--worker", choices=list(_WORKERS), help="internal")
    arguments.add_argument("--worker-precision", default="float32", help="internal")
    arguments.add_argument("--worker-batch", type=int, default=8, help="internal")
    return arguments.parse_args()


def find_fastest_settings(options: Namespace, folder: Path) -> dict[str, Any]:
    """Returns the precision and batch size with the fastest forward pass on this machine."""
    return last_json_line(_process("tune", options, folder / "tune", ()))


def floor(options: Namespace, fastest: dict[str, Any], folder: Path) -> ProcessResult:
    """Measures the lower bound in a new folder."""
    settings = ("--worker-precision", fastest["precision"], "--worker-batch", fastest["batch"])
    return _process("once", options, folder, settings)


def _process(worker: str, options: Namespace, folder: Path, settings: Sequence[object]) -> ProcessResult:
    command = [sys.executable, Path(__file__).resolve(), "--worker", worker, "--photos", options.photos]
    command += ["--backbone", options.backbone, "--device", options.device, "--threads", options.threads]
    return run_process([*command, *settings], folder, environment(options.threads))


def import_libraries() -> None:
    """Imports the libraries that the platform imports."""
    for name in LIBRARIES:
        importlib.import_module(name)


def _imports(_: Namespace) -> dict[str, object]:
    import_libraries()
    return {}


def _once(options: Namespace) -> dict[str, object]:
    start = time.perf_counter()
    import_libraries()
    import torch
    from mlflow.tracking import MlflowClient

    torch.set_num_threads(options.threads)
    imported = time.perf_counter()
    MlflowClient(f"sqlite:///{Path.cwd()}/mlflow.db").search_experiments(max_results=1)
    opened = time.perf_counter()
    images = decode_all(options.photos, options.backbone, options.threads)
    read = time.perf_counter()
    network = _network(options)
    for at in range(0, len(images), options.worker_batch):
        _forward(network, images[at : at + options.worker_batch], options.worker_precision, options.device)
    _wait(options.device)
    return {
        "imports": imported - start,
        "database": opened - imported,
        "decoding": read - opened,
        "network": time.perf_counter() - read,
        "images": len(images),
    }


def decode_all(photos: Path, backbone: str, threads: int) -> Tensor:
    """Returns all photographs, preprocessed (N, 3, S, S); decodes files at full size in several threads."""
    from concurrent.futures import ThreadPoolExecutor

    import torch
    from PIL import Image

    from transfer_model import catalog

    prepare = catalog.backbone_info(backbone).preprocessing

    def one(path: Path) -> Tensor:
        with Image.open(path) as image:
            return prepare(image.convert("RGB"))

    with ThreadPoolExecutor(threads) as pool:
        return torch.stack(list(pool.map(one, photographs(photos))))


def photographs(photos: Path) -> Iterable[Path]:
    """Returns all JPEG files of train/ and val/, sorted."""
    return sorted(path for path in photos.glob("*/*/*") if path.suffix.lower() in (".jpg", ".jpeg"))


def _network(options: Namespace) -> Network:
    import torch

    from transfer_model import catalog, weight_sources
    from transfer_model.network import NetworkSpec, build_network

    size = catalog.backbone_info(options.backbone).preprocessing.image_size
    source = weight_sources.locate_weights(options.backbone, "default")
    network = build_network(NetworkSpec(options.backbone, 2, 0.0, size), source.path)
    return network.eval().to(options.device).to(memory_format=torch.channels_last)


def _forward(network: nn.Module, images: Tensor, precision: str, device: str) -> None:
    import torch

    lower = precision != "float32"
    images = images.to(device, memory_format=torch.channels_last)
    with torch.inference_mode(), torch.autocast(device, getattr(torch, precision), enabled=lower):
        network(images)


def _wait(device: str) -> None:
    import torch

    if device == "cuda":
        torch.cuda.synchronize()


def _tune(options: Namespace) -> dict[str, object]:
    import torch

    torch.set_num_threads(options.threads)
    network = _network(options)
    results: list[dict[str, Any]] = []
    for precision in ("float32", "bfloat16"):
        for batch in BATCHES[options.device]:
            # float32 is measured at every size, so that a short load peak does not end the search.
            best_so_far = max(result["images_per_second"] for result in results) if precision != "float32" else 0.0
            speed = _speed(network, precision, batch, options.device, best_so_far)
            results.append({"precision": precision, "batch": batch, "images_per_second": speed})
            if speed < MIN_RELATIVE_SPEED * best_so_far:
                break
    return {**max(results, key=lambda result: float(result["images_per_second"])), "all": results}


def _speed(network: Network, precision: str, batch: int, device: str, best_so_far: float) -> float:
    """Returns images per second: best of three rounds of at least 16 images, after a warm-up pass."""
    import torch

    size = network.spec.image_size
    images = torch.randn(batch, 3, size, size, device=device)
    best = 0.0
    for number, passes in enumerate((1, 1, *[max(1, 16 // batch)] * 3)):
        start = time.perf_counter()
        for _ in range(passes):
            _forward(network, images, precision, device)
        _wait(device)
        best = max(best, passes * batch / (time.perf_counter() - start))
        if number and best < MIN_RELATIVE_SPEED * best_so_far:
            break
    return best


_WORKERS = {"tune": _tune, "once": _once, "imports": _imports}


if __name__ == "__main__":
    main()
