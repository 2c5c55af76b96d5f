"""The floor: what nobody who looks at every photograph once can stay below.

A process that imports the libraries that the platform imports, opens a fresh MLflow database, decodes all
photographs once in as many threads as there are, and takes them through the network once, in the fastest
precision and batch size. Those two are found beforehand by a process whose time does not count.

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

from measuring import Ended, environment, last_json, parser, report, timed, workplace

if TYPE_CHECKING:
    from torch import Tensor, nn

    from transfer_model.network import Network

BATCHES = {"cpu": (1, 2, 4, 8, 16, 32), "cuda": (16, 64, 256)}
"""Sizes that are tried."""
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
"""What the platform imports."""
HOPELESS = 0.1
"""A precision this much slower than the best so far is given up: bfloat16 takes minutes on some CPUs."""


def main() -> None:
    """Times the floor, or is the process that is timed."""
    options = _options()
    if options.worker:
        print(json.dumps(_WORKERS[options.worker](options)))
        return
    with workplace(options.work) as folder:
        fastest = tuned(options, folder)
        runs = [floor(options, fastest, folder / f"floor-{number}") for number in range(options.repeats)]
    rows = [{"run": at, "seconds": ended.seconds, **last_json(ended)} for at, ended in enumerate(runs, 1)]
    notes = [f"fastest here: {fastest['precision']}, batches of {fastest['batch']}"]
    report(options, rows, notes, seconds=statistics.median(ended.seconds for ended in runs), fastest=fastest)


def _options() -> Namespace:
    arguments = parser(__doc__)
    arguments.add_argument("--backbone", default="efficientnet_lite0")
    arguments.add_argument("--repeats", type=int, default=3)
    arguments.add_argument("--worker", choices=list(_WORKERS), help="used by the benchmarks themselves")
    arguments.add_argument("--arithmetic", default="float32", help="of the worker")
    arguments.add_argument("--batch", type=int, default=8, help="of the worker")
    return arguments.parse_args()


def tuned(options: Namespace, folder: Path) -> dict[str, Any]:
    """The precision and the batch size in which a forward pass is fastest on this machine."""
    return last_json(_process("tune", options, folder / "tune", ()))


def floor(options: Namespace, fastest: dict[str, Any], folder: Path) -> Ended:
    """The whole process of the floor, in a fresh folder."""
    settings = ("--arithmetic", fastest["precision"], "--batch", fastest["batch"])
    return _process("once", options, folder, settings)


def _process(worker: str, options: Namespace, folder: Path, settings: Sequence[object]) -> Ended:
    command = [sys.executable, Path(__file__).resolve(), "--worker", worker, "--photos", options.photos]
    command += ["--backbone", options.backbone, "--device", options.device, "--threads", options.threads]
    return timed([*command, *settings], folder, environment(options.threads))


def import_libraries() -> None:
    """Imports what the platform stands on."""
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
    images = decoded(options.photos, options.backbone, options.threads)
    read = time.perf_counter()
    network = _network(options)
    for at in range(0, len(images), options.batch):
        _forward(network, images[at : at + options.batch], options.arithmetic, options.device)
    _wait(options.device)
    return {
        "imports": imported - start,
        "database": opened - imported,
        "decoding": read - opened,
        "network": time.perf_counter() - read,
        "images": len(images),
    }


def decoded(photos: Path, backbone: str, threads: int) -> Tensor:
    """All photographs (N, 3, S, S), normalised; each file is decoded whole, several at a time."""
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
    """All JPEG files of train/ and val/, in order."""
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
    found: list[dict[str, Any]] = []
    for precision in ("float32", "bfloat16"):
        for batch in BATCHES[options.device]:
            # float32 is tried in every size, so that a moment's load does not end the search for the best.
            to_beat = max(one["images_per_second"] for one in found) if precision != "float32" else 0.0
            speed = _speed(network, precision, batch, options.device, to_beat)
            found.append({"precision": precision, "batch": batch, "images_per_second": speed})
            if speed < HOPELESS * to_beat:
                break
    return {**max(found, key=lambda one: float(one["images_per_second"])), "tried": found}


def _speed(network: Network, precision: str, batch: int, device: str, to_beat: float) -> float:
    """Images a second: the best of three rounds of 16 images or more, after one pass that loads kernels."""
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
        if number and best < HOPELESS * to_beat:
            break
    return best


_WORKERS = {"tune": _tune, "once": _once, "imports": _imports}


if __name__ == "__main__":
    main()
