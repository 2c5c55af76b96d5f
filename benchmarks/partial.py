"""An epoch of the platform against an epoch of the tutorial loop, where part of the network learns or all.

Both see the same number of images in an epoch: 80 % of train/ to learn from, the rest to validate on. The
fastest epoch of each side is compared; what the platform spends before its first epoch (imports, decoding,
the frozen part) is a column of its own, and the epochs after which it is paid back another.

    python benchmarks/partial.py --photos hymenoptera_data
    python benchmarks/partial.py --photos hymenoptera_data --cases resnet18:none --epochs 2   # a small form
"""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from measuring import Row, parser, precision_argument, report, script, workplace
from platform_runs import ants_bees, platform_run

CASES = ("efficientnet_lite0:blocks.4", "resnet18:none", "efficientnet_lite0:none")
RANDOM = "none"
"""Weights of networks whose pretrained ones are not installed: they take the same time."""


def main() -> None:
    """Measures the cases one after the other."""
    options = _options()
    with workplace(options.work) as folder:
        rows = [compare(case, options, folder / str(number)) for number, case in enumerate(options.cases)]
    notes = [
        f"fastest epoch of {options.epochs} (platform, batches of {options.batch_size}) and of "
        f"{options.loop_epochs} (tutorial loop, batches of 4, float32)",
        "only efficientnet_lite0 has its pretrained weights; the others have random ones",
    ]
    report(options, rows, notes)


def _options() -> Namespace:
    arguments = parser(__doc__)
    arguments.add_argument("--cases", nargs="+", default=CASES, help="BACKBONE:FREEZE_THROUGH ...")
    arguments.add_argument("--epochs", type=int, default=5, help="of the platform")
    arguments.add_argument("--batch-size", type=int, default=32, help="of the platform")
    arguments.add_argument("--loop-epochs", type=int, default=2, help="of the tutorial loop")
    arguments.add_argument("--augmentation", default="none", help="of the platform; the loop has none")
    precision_argument(arguments)
    return arguments.parse_args()


def compare(case: str, options: Namespace, folder: Path) -> Row:
    """One line of the table.

    Args:
        case: Name of the backbone in a recipe, and through which stage it is frozen, `none` and `all` too.
        options: Of this benchmark.
        folder: Gets the runs.
    """
    backbone, _, frozen = case.partition(":")
    weights = "default" if backbone == "efficientnet_lite0" else RANDOM
    loop = script(
        "tutorial_loop",
        *("--photos", options.photos, "--backbone", backbone, "--weights", weights, "--frozen", frozen),
        *("--layout", "recipe", "--epochs", options.loop_epochs, "--device", options.device),
        folder=folder / "tutorial",
        threads=options.threads,
    )
    recipe = ants_bees(
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
    ended, study = platform_run(
        recipe, folder / "platform", folder / "cache", options.threads, options.device
    )
    baseline, fastest = loop["seconds_per_epoch"], min(study.epoch_seconds)
    besides = ended.seconds - sum(study.epoch_seconds)
    return {
        "backbone": backbone,
        "frozen": frozen,
        "tutorial epoch, s": baseline,
        "platform epoch, s": fastest,
        "times faster": baseline / fastest,
        "first epoch, s": study.epoch_seconds[0],
        "besides epochs, s": besides,
        "whole process, s": ended.seconds,
        "paid back after epochs": besides / (baseline - fastest) if baseline > fastest else None,
    }


if __name__ == "__main__":
    main()
