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
from platform_runs import read_test_metrics

PUBLISHED: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "ants_bees_ablation": {
            "ants-bees-ablation-as-is": "86.928 % (ResNet-50)",
            "ants-bees-ablation-fine-tuned": "95.425 % (ResNet-50)",
            "ants-bees-ablation-new-head": "not stated",
            "ants-bees-ablation-scratch": "68.627 % (ResNet-50)",
        },
        "cats_dogs_vgg16": {"cats-dogs-vgg16": "not stated"},
        "cifar10_alexnet": {"cifar10-alexnet": "75.08 % (50 epochs)"},
        "cifar10_resnet18": {"cifar10-resnet18": "82.98 % (50 epochs)"},
        "kmnist": {"kmnist": "95.12 % (simple CNN)"},
    }
)
"""Test accuracy in the source material, keyed by the recipe that repeats a system here and the name of the study."""


def main() -> None:
    """Runs one row, or lists all rows."""
    options = _options()
    if options.row is None:
        print(table([row for recipe in PUBLISHED for row in _listed(recipe, options.work / f"{recipe}.json")]))
        return
    options.out = options.work / f"{options.row}{options.variant}.json"
    runs = [_run(options, seed) for seed in range(options.seeds)]
    rows = [_row(options.row, name, [run[name] for run in runs]) for name in runs[0]]
    report(options, rows, [f"seeds 0 to {options.seeds - 1}", *(f"-o {change}" for change in options.overrides)])


def _run(options: Namespace, seed: int) -> dict[str, dict[str, float]]:
    """Returns the test metrics of a seed, keyed by study; reads them from a file if the seed has finished."""
    command = [BIN / "platform", "run", REPOSITORY / "recipes" / f"{options.row}.yaml", "--device", options.device]
    for change in (f"seed={seed}", *options.overrides):
        command += ["-o", change]
    command += ["--variant", options.variant] if options.variant else []
    folder = options.work / options.row / str(seed)
    finished, key = folder / f"finished{options.variant}.json", shlex.join(map(str, command[2:]))
    if finished.exists() and (known := json.loads(finished.read_text()))["command"] == key:
        return dict(known["metrics"])
    run_process(command, folder, environment(options.threads, options.work / "cache"))
    ending = f"-{options.variant}" if options.variant else ""
    metrics = {name: values for name, values in read_test_metrics(folder).items() if name.endswith(ending)}
    finished.write_text(json.dumps({"command": key, "metrics": metrics}))
    return metrics


def _row(recipe: str, name: str, runs: list[dict[str, float]]) -> Row:
    accuracies = [run["test/accuracy"] for run in runs]
    return {
        "system": name,
        "published": PUBLISHED[recipe][name],
        "median": f"{statistics.median(accuracies):.2%}",
        "by seed": " ".join(f"{accuracy:.2%}" for accuracy in accuracies),
        "median loss": statistics.median(run["test/loss"] for run in runs),
    }


def _listed(recipe: str, result: Path) -> list[Row]:
    """Returns the rows of a recipe for the list; a recipe that was not run has its command in place of a result."""
    if not result.exists():
        command = f"python benchmarks/results.py {recipe}"
        missing = {"here": "not measured", "date and command": command}
        return [{"system": name, "published": text, **missing} for name, text in PUBLISHED[recipe].items()]
    known = json.loads(result.read_text())
    origin = f"{known['date']}: {known['command']}"
    return [
        {"system": row["system"], "published": row["published"], "here": row["median"], "date and command": origin}
        for row in known["rows"]
    ]


def _options() -> Namespace:
    arguments = parser(__doc__, photos=False)
    arguments.add_argument("row", nargs="?", choices=list(PUBLISHED), help="name of a recipe; default: list all rows")
    arguments.add_argument("--variant", default="", help="run only this variant of the recipe")
    arguments.add_argument("--seeds", type=int, default=1, help="number of seeds, starting at 0")
    arguments.add_argument("-o", dest="overrides", action="append", default=[], help="override, as of `platform run`")
    arguments.set_defaults(work=Path("results"))
    options = arguments.parse_args()
    options.work = options.work.resolve()
    options.work.mkdir(parents=True, exist_ok=True)
    return options


if __name__ == "__main__":
    main()
