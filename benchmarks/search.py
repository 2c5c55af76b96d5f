"""A whole search against the tutorial loop at the same number of epochs, and against the floor.

Whole processes, from start to end: imports, MLflow's new database, decoding, trials, test and report. The
recipe is the shipped one with everything frozen, without pruning, early stopping and promotion, so that each
trial executes all its epochs; they are counted in MLflow. Of the tutorial loop one epoch or a few are
measured, and the fastest is multiplied by the number of epochs that the search executed.

    python benchmarks/search.py --photos hymenoptera_data
    python benchmarks/search.py --photos hymenoptera_data --trials 3 --epochs 2 --repeats 1     # a small form
"""

from __future__ import annotations

import statistics
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from floor import floor, tuned
from measuring import Ended, parser, precision_argument, report, script, workplace
from platform_runs import SHIPPED, VALIDATION, Study, ants_bees, platform_run


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures every side in turn, as often as asked."""
    options = _options(arguments)
    with workplace(options.work) as folder:
        fastest = tuned(options, folder)
        floors, cold, warm, same = _rounds(options, fastest, folder)
        shipped = _shipped(options, folder) if options.shipped else []
        loop = _tutorial(options, folder)
    executed = cold[0][1].epochs
    middle = statistics.median(ended.seconds for ended, _ in cold)
    rows = [*_loops(loop, executed), *_sides(floors, cold, warm, same), *shipped]
    for row in rows:
        row["times the cold search"] = row["seconds"] / middle
    notes = [
        f"{cold[0][1].trials} trials, {executed} executed epochs, counted in MLflow",
        f"tutorial loop: fastest of {options.loop_epochs} measured epochs, times {executed}",
        f"medians of {options.repeats} rounds",
        f"floor in {fastest['precision']}, batches of {fastest['batch']}",
        "seconds a trial: from the start of the first trial to the end of the last, over the trials",
    ]
    everything = {
        "floor": [ended.seconds for ended in floors],
        "cold": [ended.seconds for ended, _ in cold],
        "warm": [ended.seconds for ended, _ in warm],
        "warm_same_folder": [ended.seconds for ended, _ in same],
        "tutorial_epoch": loop["rows"],
        "floor_settings": fastest,
    }
    report(options, rows, notes, all_seconds=everything)


def _options(arguments: Sequence[str] | None) -> Namespace:
    known = parser(__doc__)
    known.add_argument("--trials", type=int, default=20)
    known.add_argument("--epochs", type=int, default=15, help="of each trial")
    known.add_argument("--repeats", type=int, default=3, help="rounds of floor, cold and warm search")
    known.add_argument("--loop-epochs", type=int, default=2, help="of the tutorial loop that are measured")
    known.add_argument("--shipped", action="store_true", help="also the shipped recipe as it is")
    precision_argument(known)
    known.set_defaults(backbone="efficientnet_lite0")
    return known.parse_args(arguments)


Runs = list[tuple[Ended, Study]]


def _rounds(
    options: Namespace, fastest: dict[str, Any], folder: Path
) -> tuple[list[Ended], Runs, Runs, Runs]:
    """Floor, cold, warm, warm in the cold one's folder: in turn, so that all meet the same machine."""
    floors: list[Ended] = []
    cold: Runs = []
    warm: Runs = []
    same: Runs = []
    for number in range(options.repeats):
        here = folder / f"round-{number}"
        recipe = search_recipe(options)
        floors.append(floor(options, fastest, here / "floor"))
        cold.append(_run(options, recipe, here, "cold"))
        warm.append(_run(options, recipe, here, "warm"))
        # Another seed is another study: MLflow's database exists already, and the features are the same.
        same.append(_run(options, {**recipe, "seed": 1}, here, "cold"))
    return floors, cold, warm, same


def _run(options: Namespace, recipe: dict[str, Any], here: Path, name: str) -> tuple[Ended, Study]:
    return platform_run(recipe, here / name, here / "cache", options.threads, options.device)


def search_recipe(options: Namespace) -> dict[str, Any]:
    """The shipped search, every trial of it executed to its last epoch and nothing registered."""
    return ants_bees(
        options.photos,
        backbone__freeze_through="all",
        training__epochs=options.epochs,
        training__early_stopping=None,
        training__precision=options.precision,
        search__trials=options.trials,
        search__pruning=False,
        promotion=None,
    )


def _tutorial(options: Namespace, folder: Path) -> dict[str, Any]:
    settings = ("--photos", options.photos, "--epochs", options.loop_epochs, "--device", options.device)
    return script("tutorial_loop", *settings, folder=folder / "tutorial", threads=options.threads)


def _loops(loop: dict[str, Any], executed: int) -> list[dict[str, Any]]:
    """The tutorial's own epoch, and one of as many images as an epoch of the search sees."""
    train, validation = loop["train_images"], loop["validation_images"]
    held_out = round(VALIDATION * train)
    scaled = (
        loop["train_seconds"] * (train - held_out) / train
        + loop["validation_seconds"] * held_out / validation
    )
    return [
        _loop(f"tutorial loop, {train + validation} images an epoch", loop["seconds_per_epoch"], executed),
        _loop(f"tutorial loop, scaled to the search's {train} images an epoch", scaled, executed),
    ]


def _loop(name: str, seconds: float, executed: int) -> dict[str, Any]:
    return {"what": name, "seconds": seconds * executed, "epochs": executed, "seconds an epoch": seconds}


def _sides(floors: list[Ended], cold: Runs, warm: Runs, same: Runs) -> list[dict[str, Any]]:
    return [
        {"what": "floor", "seconds": statistics.median(ended.seconds for ended in floors)},
        _side("platform run, cold", cold),
        _side("platform run, warm, new folder", warm),
        _side("platform run, warm, same folder, other seed", same),
    ]


def _side(name: str, runs: Runs) -> dict[str, Any]:
    return {
        "what": name,
        "seconds": statistics.median(ended.seconds for ended, _ in runs),
        "epochs": runs[0][1].epochs,
        "seconds a trial": statistics.median(study.span / study.trials for _, study in runs),
        "test accuracy": runs[0][1].test_accuracy,
    }


def _shipped(options: Namespace, folder: Path) -> list[dict[str, Any]]:
    """The shipped recipe as it is but for its source, and the same without promotion; their difference."""
    whole = ants_bees(
        options.photos,
        dataset__splits__validation=_shipped_validation(),
        training__precision=options.precision,
    )
    here = folder / "shipped"
    cold = _run(options, whole, here, "cold")
    warm = _run(options, whole, here, "warm")
    bare = _run(options, {key: whole[key] for key in whole if key != "promotion"}, here, "bare")
    return [
        _side("shipped recipe, cold", [cold]),
        _side("shipped recipe, warm", [warm]),
        _side("shipped recipe without promotion, warm", [bare]),
        {"what": "promotion: the difference", "seconds": warm[0].seconds - bare[0].seconds},
    ]


def _shipped_validation() -> object:
    from ruamel.yaml import YAML

    return YAML(typ="safe").load(SHIPPED)["dataset"]["splits"]["validation"]


if __name__ == "__main__":
    main()
