"""Epoch time of the platform and of the tutorial loop, for a partly frozen and for a trainable network.

Both sides see the same images per epoch: 80 % of train/ for training, the rest for validation. The fastest
epoch of each side is compared. The time of the platform outside of epochs (imports, decoding, feature
extraction) and the number of epochs that amortize it are separate columns.

    python benchmarks/partial.py --photos hymenoptera_data
    python benchmarks/partial.py --photos hymenoptera_data --cases resnet18:none --epochs 2   # smoke test
"""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from harness import Row, parser, precision_argument, report, run_benchmark, work_folder
from platform_runs import ants_bees_recipe, platform_run

CASES = ("efficientnet_lite0:blocks.4", "resnet18:none", "efficientnet_lite0:none")
RANDOM = "none"
"""Weights of networks without installed pretrained weights; the time is the same."""


def main() -> None:
    """Measures all cases."""
    options = _options()
    with work_folder(options.work) as folder:
        rows = [compare(case, options, folder / str(number)) for number, case in enumerate(options.cases)]
    notes = [
        f"fastest epoch of {options.epochs} (platform, batch size {options.batch_size}) and of "
        f"{options.loop_epochs} (tutorial loop, batch size 4, float32)",
        "pretrained weights for efficientnet_lite0 only, random weights otherwise",
    ]
    report(options, rows, notes)


def _options() -> Namespace:
    arguments = parser(__doc__)
    arguments.add_argument("--cases", nargs="+", default=CASES, help="BACKBONE:FREEZE_THROUGH ...")
    arguments.add_argument("--epochs", type=int, default=5, help="epochs of the platform")
    arguments.add_argument("--batch-size", type=int, default=32, help="batch size of the platform")
    arguments.add_argument("--loop-epochs", type=int, default=2, help="epochs of the tutorial loop")
    arguments.add_argument("--augmentation", default="none", help="augmentation of the platform; the loop has none")
    precision_argument(arguments)
    return arguments.parse_args()


def compare(case: str, options: Namespace, folder: Path) -> Row:
    """Returns a row of the table.

    Args:
        case: Backbone and the last frozen stage, `none` or `all`, separated by a colon.
        options: Options of this benchmark.
        folder: Working folder.
    """
    backbone, _, frozen = case.partition(":")
    weights = "default" if backbone == "efficientnet_lite0" else RANDOM
    loop = run_benchmark(
        "tutorial_loop",
        *("--photos", options.photos, "--backbone", backbone, "--weights", weights, "--frozen", frozen),
        *("--layout", "recipe", "--epochs", options.loop_epochs, "--device", options.device),
        folder=folder / "tutorial",
        threads=options.threads,
    )
    recipe = ants_bees_recipe(
        options.photos,
        dataset__augmentation=options.augmentation,
        backbone={"name": backbone, "weights": weights, "freeze_through": frozen},
        head={"dropout": 0.0},
        training={
            "epochs": options.epochs,
            "batch_size": options.batch_size,
            "learning_rate": 0.001,
            "precision": options.precision,
        },
        search=None,
        promotion=None,
    )
    process, study = platform_run(recipe, folder / "platform", folder / "cache", options.threads, options.device)
    baseline, fastest = loop["seconds_per_epoch"], min(study.epoch_seconds)
    outside = process.seconds - sum(study.epoch_seconds)
    return {
        "backbone": backbone,
        "frozen": frozen,
        "tutorial epoch, s": baseline,
        "platform epoch, s": fastest,
        "speedup": baseline / fastest,
        "first epoch, s": study.epoch_seconds[0],
        "outside of epochs, s": outside,
        "total, s": process.seconds,
        "epochs to amortize": outside / (baseline - fastest) if baseline > fastest else None,
    }


if __name__ == "__main__":
    main()
