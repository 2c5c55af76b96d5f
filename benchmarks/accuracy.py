"""Test accuracy over seeds: a held-out fraction against folds, stored features against none.

Each run is the shipped recipe in a folder of its own, promotion left out. What is not stored runs the frozen
part in every epoch of every trial, which takes hours on a CPU: `--unstored-trials` and `--unstored-epochs`
make that pair of runs smaller, on both of its sides.

    python benchmarks/accuracy.py --photos hymenoptera_data --seeds 5
    python benchmarks/accuracy.py --photos hymenoptera_data --seeds 1 --trials 2 --epochs 2    # a small form
"""

from __future__ import annotations

import statistics
from argparse import Namespace
from pathlib import Path

from measuring import Row, parser, precision_argument, report, workplace
from platform_runs import ants_bees, platform_run


def main() -> None:
    """Runs every seed of every kind."""
    options = _options()
    kinds = {
        "a fraction of 0.2": (options.trials, options.epochs, 0.2, None),
        "5 folds": (options.trials, options.epochs, {"folds": 5}, None),
    }
    if options.unstored_trials:
        small = (options.unstored_trials, options.unstored_epochs, 0.2)
        kinds |= {"small search, stored": (*small, None), "small search, not stored": (*small, "0")}
    with workplace(options.work) as folder:
        rows = [
            _row(kind, folder / str(place), options, *how) for place, (kind, how) in enumerate(kinds.items())
        ]
    report(options, rows, [f"seeds 0 to {options.seeds - 1}; one of 153 test images is 0.0065"])


def _row(
    kind: str,
    folder: Path,
    options: Namespace,
    trials: int,
    epochs: int,
    validation: object,
    limit: str | None,
) -> Row:
    found, seconds = [], []
    for seed in range(options.seeds):
        recipe = ants_bees(
            options.photos,
            seed=seed,
            promotion=None,
            search__trials=trials,
            training__epochs=epochs,
            training__precision=options.precision,
            dataset__splits={"train": "train", "validation": validation, "test": "val"},
        )
        ended, study = platform_run(
            recipe, folder / str(seed), folder.parent / "cache", options.threads, options.device, limit=limit
        )
        found.append(study.test_accuracy)
        seconds.append(ended.seconds)
    accuracies = " ".join(f"{accuracy:.4f}" for accuracy in found)
    return {
        "kind": kind,
        "median": statistics.median(found),
        "mean": statistics.mean(found),
        "each": accuracies,
        "seconds a run": statistics.median(seconds),
    }


def _options() -> Namespace:
    arguments = parser(__doc__)
    arguments.add_argument("--seeds", type=int, default=5)
    arguments.add_argument("--trials", type=int, default=20)
    arguments.add_argument("--epochs", type=int, default=15)
    arguments.add_argument("--unstored-trials", type=int, default=0)
    arguments.add_argument("--unstored-epochs", type=int, default=2)
    precision_argument(arguments)
    return arguments.parse_args()


if __name__ == "__main__":
    main()
