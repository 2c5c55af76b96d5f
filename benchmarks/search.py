"""A complete search compared with the tutorial loop at the same number of epochs, and with the lower bound.

Measures whole processes: imports, a new MLflow database, decoding, trials, test and report. The recipe is the
shipped one with everything frozen, without pruning, early stopping and promotion, so that each trial executes
all its epochs, which are counted in MLflow. One or a few epochs of the tutorial loop are measured; the
fastest one is multiplied by the number of epochs that the search executed.

    python benchmarks/search.py --photos hymenoptera_data
    python benchmarks/search.py --photos hymenoptera_data --trials 3 --epochs 2 --repeats 1     # smoke test
"""

from __future__ import annotations

import statistics
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from floor import find_fastest_settings, floor
from harness import ProcessResult, parser, precision_argument, report, run_benchmark, work_folder
from platform_runs import SHIPPED, VALIDATION, StudyResult, ants_bees_recipe, platform_run


def main(argv: Sequence[str] | None = None) -> None:
    """Measures all sides in turn, `--repeats` times."""
    options = _options(argv)
    with work_folder(options.work) as folder:
        fastest = find_fastest_settings(options, folder)
        floors, cold, warm, same = _rounds(options, fastest, folder)
        shipped = _shipped(options, folder) if options.shipped else []
        loop = _tutorial(options, folder)
    executed = cold[0][1].epochs
    cold_seconds = statistics.median(process.seconds for process, _ in cold)
    rows = [*_loop_rows(loop, executed), *_process_rows(floors, cold, warm, same), *shipped]
    for row in rows:
        row["relative to cold search"] = row["seconds"] / cold_seconds
    notes = [
        f"{cold[0][1].trials} trials, {executed} executed epochs",
        f"tutorial loop: fastest of {options.loop_epochs} measured epochs, times {executed}",
        f"medians of {options.repeats} rounds",
        f"lower bound: {fastest['precision']}, batch size {fastest['batch']}",
        "seconds per trial: from the start of the first to the end of the last, divided by their number",
    ]
    all_seconds = {
        "floor": [process.seconds for process in floors],
        "cold": [process.seconds for process, _ in cold],
        "warm": [process.seconds for process, _ in warm],
        "warm_same_folder": [process.seconds for process, _ in same],
        "tutorial_epoch": loop["rows"],
        "floor_settings": fastest,
    }
    report(options, rows, notes, all_seconds=all_seconds)


def _options(argv: Sequence[str] | None) -> Namespace:
    arguments = parser(__doc__)
    arguments.add_argument("--trials", type=int, default=20)
    arguments.add_argument("--epochs", type=int, default=15, help="epochs per trial")
    arguments.add_argument("--repeats", type=int, default=3, help="rounds of lower bound, cold and warm search")
    arguments.add_argument("--loop-epochs", type=int, default=2, help="measured epochs of the tutorial loop")
    arguments.add_argument("--shipped", action="store_true", help="also measure the unmodified shipped recipe")
    precision_argument(arguments)
    arguments.set_defaults(backbone="efficientnet_lite0")
    return arguments.parse_args(argv)


Runs = list[tuple[ProcessResult, StudyResult]]


def _rounds(options: Namespace, fastest: dict[str, Any], folder: Path) -> tuple[list[ProcessResult], Runs, Runs, Runs]:
    """Measures lower bound, cold, warm, and warm in the folder of the cold run, in turn in each round."""
    floors: list[ProcessResult] = []
    cold: Runs = []
    warm: Runs = []
    same: Runs = []
    for number in range(options.repeats):
        round_folder = folder / f"round-{number}"
        recipe = search_recipe(options)
        floors.append(floor(options, fastest, round_folder / "floor"))
        cold.append(_run(options, recipe, round_folder, "cold"))
        warm.append(_run(options, recipe, round_folder, "warm"))
        # Another seed starts a new study with the existing MLflow database and the same features.
        same.append(_run(options, {**recipe, "seed": 1}, round_folder, "cold"))
    return floors, cold, warm, same


def _run(options: Namespace, recipe: dict[str, Any], folder: Path, name: str) -> tuple[ProcessResult, StudyResult]:
    return platform_run(recipe, folder / name, folder / "cache", options.threads, options.device)


def search_recipe(options: Namespace) -> dict[str, Any]:
    """Returns the recipe with a trained head, changed to execute all epochs of all trials and to register nothing."""
    return ants_bees_recipe(
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
    return run_benchmark("tutorial_loop", *settings, folder=folder / "tutorial", threads=options.threads)


def _loop_rows(loop: dict[str, Any], executed: int) -> list[dict[str, Any]]:
    """Returns rows for the epoch of the tutorial, and for one scaled to the images of the search."""
    train, validation = loop["train_images"], loop["validation_images"]
    held_out = round(VALIDATION * train)
    scaled = loop["train_seconds"] * (train - held_out) / train + loop["validation_seconds"] * held_out / validation
    return [
        _loop_row(f"tutorial loop, {train + validation} images per epoch", loop["seconds_per_epoch"], executed),
        _loop_row(f"tutorial loop, scaled to {train} images per epoch", scaled, executed),
    ]


def _loop_row(name: str, seconds: float, executed: int) -> dict[str, Any]:
    return {"run": name, "seconds": seconds * executed, "epochs": executed, "seconds per epoch": seconds}


def _process_rows(floors: list[ProcessResult], cold: Runs, warm: Runs, same: Runs) -> list[dict[str, Any]]:
    return [
        {"run": "lower bound", "seconds": statistics.median(process.seconds for process in floors)},
        _process_row("platform run, cold", cold),
        _process_row("platform run, warm, new folder", warm),
        _process_row("platform run, warm, same folder, other seed", same),
    ]


def _process_row(name: str, runs: Runs) -> dict[str, Any]:
    return {
        "run": name,
        "seconds": statistics.median(process.seconds for process, _ in runs),
        "epochs": runs[0][1].epochs,
        "seconds per trial": statistics.median(study.span / study.trials for _, study in runs),
        "test accuracy": runs[0][1].test_accuracy,
    }


def _shipped(options: Namespace, folder: Path) -> list[dict[str, Any]]:
    """Measures the shipped recipe on local photographs, with and without promotion."""
    shipped = ants_bees_recipe(options.photos, SHIPPED)
    subfolder = folder / "shipped"
    cold = _run(options, shipped, subfolder, "cold")
    warm = _run(options, shipped, subfolder, "warm")
    bare = _run(options, {key: shipped[key] for key in shipped if key != "promotion"}, subfolder, "bare")
    return [
        _process_row("shipped recipe, cold", [cold]),
        _process_row("shipped recipe, warm", [warm]),
        _process_row("shipped recipe without promotion, warm", [bare]),
        {"run": "promotion (difference)", "seconds": warm[0].seconds - bare[0].seconds},
    ]


if __name__ == "__main__":
    main()
