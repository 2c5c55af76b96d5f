"""The systems of the source material: published test accuracy beside ours, one shipped recipe per row.

Each row is `platform run` of a shipped recipe, once per seed, in a folder of its own below `--work`. A finished seed
is not run again, and an interrupted one continues as `platform run` does: repeat the command. Without a row, the
command lists all rows with the results found in `--work`.

    python benchmarks/results.py --work results
    python benchmarks/results.py cifar10_alexnet --work results
    python benchmarks/results.py cifar10_alexnet --work results -o dataset.source=/path/cifar10
    python benchmarks/results.py cifar10_alexnet --work smoke -o training.epochs=1 -o dataset.source=few    # smoke test
"""

from __future__ import annotations

import json
import shlex
import statistics
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from harness import BIN, REPOSITORY, Row, environment, parser, report, run_process, table
from platform_runs import read_test_accuracies

PUBLISHED: Mapping[str, str] = MappingProxyType(
    {
        "cifar10_alexnet": "75.08 % (50 epochs)",
        "cifar10_resnet18": "82.98 % (50 epochs)",
        "kmnist": "95.12 % (simple CNN)",
    }
)
"""Test accuracy in the source material, keyed by the name of the recipe that repeats the system here."""


def main() -> None:
    """Runs one row, or lists all rows."""
    options = _options()
    if options.row is None:
        print(table([_listed(row, options.work / f"{row}.json") for row in PUBLISHED]))
        return
    options.out = options.work / f"{options.row}.json"
    runs = [_run(options, seed) for seed in range(options.seeds)]
    rows = [_row(options.row, name, [run[name] for run in runs]) for name in runs[0]]
    report(options, rows, [f"seeds 0 to {options.seeds - 1}", *(f"-o {change}" for change in options.overrides)])


def _run(options: Namespace, seed: int) -> dict[str, float]:
    """Returns the test accuracies of a seed, keyed by study; reads them from a file if the seed has finished."""
    command = [BIN / "platform", "run", REPOSITORY / "recipes" / f"{options.row}.yaml", "--device", options.device]
    for change in (f"seed={seed}", *options.overrides):
        command += ["-o", change]
    folder = options.work / options.row / str(seed)
    finished, key = folder / "finished.json", shlex.join(map(str, command[2:]))
    if finished.exists() and (known := json.loads(finished.read_text()))["command"] == key:
        return dict(known["accuracies"])
    run_process(command, folder, environment(options.threads, options.work / "cache"))
    accuracies = read_test_accuracies(folder)
    finished.write_text(json.dumps({"command": key, "accuracies": accuracies}))
    return accuracies


def _row(recipe: str, name: str, accuracies: list[float]) -> Row:
    return {
        "system": name,
        "published": PUBLISHED[recipe],
        "median": f"{statistics.median(accuracies):.2%}",
        "by seed": " ".join(f"{accuracy:.2%}" for accuracy in accuracies),
    }


def _listed(recipe: str, result: Path) -> Row:
    """Returns the row of a recipe for the list; a recipe that was not run has its command in place of a result."""
    row = {"recipe": recipe, "published": PUBLISHED[recipe]}
    if not result.exists():
        return row | {"here": "not measured", "date and command": f"python benchmarks/results.py {recipe}"}
    known = json.loads(result.read_text())
    measured = "; ".join(f"{row['system']} {row['median']}" for row in known["rows"])
    return row | {"here": measured, "date and command": f"{known['date']}: {known['command']}"}


def _options() -> Namespace:
    arguments = parser(__doc__, photos=False)
    arguments.add_argument("row", nargs="?", choices=list(PUBLISHED), help="name of a recipe; default: list all rows")
    arguments.add_argument("--seeds", type=int, default=1, help="number of seeds, starting at 0")
    arguments.add_argument("-o", dest="overrides", action="append", default=[], help="override, as of `platform run`")
    arguments.set_defaults(work=Path("results"))
    options = arguments.parse_args()
    options.work = options.work.resolve()
    options.work.mkdir(parents=True, exist_ok=True)
    return options


if __name__ == "__main__":
    main()
