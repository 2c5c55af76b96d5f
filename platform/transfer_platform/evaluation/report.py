"""The report for people: markdown that reads on a terminal, in the MLflow UI and in a browser alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from transfer_platform.evaluation.metrics import per_class
from transfer_platform.evaluation.predictions import Predictions


def class_table(predictions: Predictions) -> dict[str, list[object]]:
    """Columns `class`, `images`, `precision`, `recall`, `f1`; one row per class."""
    figures = per_class(predictions.labels, predictions.predicted, len(predictions.classes))
    return {
        "class": list(predictions.classes),
        "images": [int(count) for count in figures["support"]],
        **{name: figures[name].tolist() for name in ("precision", "recall", "f1")},
    }


def evaluation_report(
    title: str, facts: Mapping[str, str], predictions: Predictions, metrics: Mapping[str, float]
) -> str:
    """The report of an evaluation.

    Args:
        title: Its heading.
        facts: What was evaluated on what, shown as a list.
        predictions: Of the images.
        metrics: By name.
    """
    mistakes = len(predictions.mistakes())
    total = len(predictions.labels)
    lines = [
        f"# {title}",
        "",
        *(f"- {name}: {value}" for name, value in facts.items()),
        "",
        f"{total - mistakes} of {total} images are classified correctly.",
        "",
        *table({"metric": list(metrics), "value": list(metrics.values())}),
        "",
        *table(class_table(predictions)),
        "",
    ]
    return "\n".join(lines)


def threshold_report(
    by_class: Mapping[str, Sequence[object]], decided: Mapping[str, Sequence[object]], chosen_on: int
) -> str:
    """The report of thresholds.

    Args:
        by_class: See `thresholds.class_thresholds`.
        decided: See `thresholds.coverage`.
        chosen_on: How many images they were chosen on.
    """
    lines = [
        "# Thresholds",
        "",
        f"Each class against all others: the probability of best F1 on the {chosen_on} images that ranked",
        "the best trial, calibrated as they are served, and what it is worth on the test images.",
        "",
        *table(by_class),
        "",
        "Where answers of less confidence are refused: the share of the test images that is decided, and the",
        "accuracy among them.",
        "",
        *table(decided),
        "",
    ]
    return "\n".join(lines)


def table(columns: Mapping[str, Sequence[object]]) -> list[str]:
    """The lines of a markdown table, one column a key; numbers with four decimals."""
    rows = zip(*columns.values(), strict=True)
    return [
        "| " + " | ".join(columns) + " |",
        "|" + "---|" * len(columns),
        *("| " + " | ".join(_cell(value) for value in row) + " |" for row in rows),
    ]


def _cell(value: object) -> str:
    text = f"{value:.4f}" if isinstance(value, float) else str(value)
    return text.replace("|", "\\|")
