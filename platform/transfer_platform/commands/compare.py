"""Runs all variants of a recipe and compares them in one table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from transfer_platform.commands._open import load

# isort: split
from transfer_platform.commands.outcome import Outcome
from transfer_platform.commands.run import run
from transfer_platform.progress import Progress, Say, silent
from transfer_platform.tracking import Tracker

METRICS = ("test/accuracy", "test/macro_f1", "test/loss", "test/ece")
TABLE_FILE = "variants.json"


@dataclass(frozen=True)
class Comparison:
    """Outcomes of all variants of a recipe, keyed by variant name, in the same order as in the recipe."""

    outcomes: Mapping[str, Outcome]

    def table(self) -> dict[str, list[object]]:
        """Returns a table of test metrics with a row for each variant."""
        rows = self.outcomes.values()
        metrics: dict[str, list[object]] = {name: [outcome.metrics[name] for outcome in rows] for name in METRICS}
        return {"variant": list(self.outcomes), **metrics, "run": [outcome.run_id for outcome in rows]}

    def __str__(self) -> str:
        width = max(map(len, ("variant", *self.outcomes)))
        header = "  ".join(["variant".ljust(width), *METRICS])
        lines = [
            "  ".join([name.ljust(width), *(f"{outcome.metrics[each]:{len(each)}.4f}" for each in METRICS)])
            for name, outcome in self.outcomes.items()
        ]
        return "\n".join([header, *lines])


def run_variants(
    recipe: Path | str,
    variant: str | None = None,
    *,
    overrides: Sequence[str] = (),
    fresh: bool = False,
    device: str = "auto",
    progress: Progress = silent,
    say: Say = silent,
) -> Outcome | Comparison:
    """Runs each variant as a separate study, or only the given variant; runs a recipe without variants unchanged.

    The studies belong to one MLflow run, which contains the table. Finished variants are not repeated. See `run` for
    the other arguments.

    Raises:
        TransferError: The recipe, its data, the databases or the registry cannot be used.
    """
    _, loaded = load(recipe, overrides)
    start = partial(run, recipe, overrides=overrides, fresh=fresh, device=device, progress=progress, say=say)
    if variant is not None or not loaded.variants:
        return start(variant=variant)
    outcomes = {}
    for name in loaded.variants:
        say(f"Variant {name}")
        outcomes[name] = start(variant=name)
        outcomes[name].study.close()
    comparison = Comparison(outcomes)
    runs = [outcome.run_id for outcome in outcomes.values()]
    Tracker(loaded.name).group_runs(loaded.name, runs).log_table(comparison.table(), TABLE_FILE)
    return comparison
