"""Test accuracy over seeds: holdout validation against folds, stored features against none.

Each run is the shipped recipe without promotion, in a separate folder. Without stored features the frozen
part runs in every epoch of every trial, which takes hours on a CPU: `--unstored-trials` and
`--unstored-epochs` reduce that pair of runs, on both sides.

    python benchmarks/accuracy.py --photos hymenoptera_data --seeds 5
    python benchmarks/accuracy.py --photos hymenoptera_data --seeds 1 --trials 2 --epochs 2    # smoke test
"""

from __future__ import annotations

import statistics
from argparse import Namespace
from pathlib import Path

from harness import Row, parser, precision_argument, report, work_folder
from platform_runs import ants_bees_recipe, platform_run


def main() -> None:
    """Runs all seeds of all variants."""
    options = _options()
    variants = {
        "20 % holdout": (options.trials, options.epochs, 0.2, None),
        "5 folds": (options.trials, options.epochs, {"folds": 5}, None),
    }
    if options.unstored_trials:
        small = (options.unstored_trials, options.unstored_epochs, 0.2)
        variants |= {"small search, stored": (*small, None), "small search, not stored": (*small, "0")}
    with work_folder(options.work) as folder:
        rows = [
            _row(variant, folder / str(number), options, *settings)
            for number, (variant, settings) in enumerate(variants.items())
        ]
    report(options, rows, [f"seeds 0 to {options.seeds - 1}; one of 153 test images is 0.0065"])


def _row(
    variant: str, folder: Path, options: Namespace, trials: int, epochs: int, validation: object, limit: str | None
) -> Row:
    accuracies, seconds = [], []
    for seed in range(options.seeds):
        recipe = ants_bees_recipe(
            options.photos,
            seed=seed,
            promotion=None,
            search__trials=trials,
            training__epochs=epochs,
            training__precision=options.precision,
            dataset__splits={"train": "train", "validation": validation, "test": "val"},
        )
        process, study = platform_run(
            recipe, folder / str(seed), folder.parent / "cache", options.threads, options.device, limit=limit
        )
        accuracies.append(study.test_accuracy)
        seconds.append(process.seconds)
    return {
        "variant": variant,
        "median": statistics.median(accuracies),
        "mean": statistics.mean(accuracies),
        "by seed": " ".join(f"{accuracy:.4f}" for accuracy in accuracies),
        "seconds per run": statistics.median(seconds),
    }


def _options() -> Namespace:
    arguments = parser(__doc__)
    arguments.add_argument("--seeds", type=int, default=5)
    arguments.add_argument("--trials", type=int, default=20)
    arguments.add_argument("--epochs", type=int, default=15, help="epochs per trial")
    arguments.add_argument("--unstored-trials", type=int, default=0)
    arguments.add_argument("--unstored-epochs", type=int, default=2)
    precision_argument(arguments)
    return arguments.parse_args()


if __name__ == "__main__":
    main()
