"""Markdown reports on evaluations and decision thresholds."""

from collections.abc import Mapping, Sequence

from transfer_platform.evaluation.metrics import per_class
from transfer_platform.evaluation.predictions import Predictions


def class_table(predictions: Predictions) -> dict[str, list[object]]:
    """Returns a table with the columns `class`, `images`, `precision`, `recall` and `f1`, and one row per class."""
    metrics = per_class(predictions.labels, predictions.predicted, len(predictions.classes))
    return {
        "class": list(predictions.classes),
        "images": [int(count) for count in metrics["support"]],
        **{name: metrics[name].tolist() for name in ("precision", "recall", "f1")},
    }


def evaluation_report(
    title: str, facts: Mapping[str, str], predictions: Predictions, metrics: Mapping[str, float]
) -> str:
    """Returns an evaluation report in Markdown. `facts`, such as the name of the model, are listed below the title."""
    total = len(predictions.labels)
    lines = [
        f"# {title}",
        "",
        *(f"- {name}: {value}" for name, value in facts.items()),
        "",
        f"{total - len(predictions.mistakes())} of {total} images are classified correctly.",
        "",
        *table({"metric": list(metrics), "value": list(metrics.values())}),
        "",
        *table(class_table(predictions)),
        "",
    ]
    return "\n".join(lines)


def threshold_report(
    thresholds: Mapping[str, Sequence[object]], coverage: Mapping[str, Sequence[object]], images: int
) -> str:
    """Returns a Markdown report on class thresholds and coverage; `images` is the number of validation images."""
    lines = [
        "# Thresholds",
        "",
        "One-vs-rest threshold for each class: the calibrated probability that maximizes F1 on the",
        f"{images} validation images of the best trial, with precision and recall on these images and on",
        "the test images.",
        "",
        *table(thresholds),
        "",
        "`decided` is the fraction of test images with at least this confidence; `accuracy` covers only these images.",
        "",
        *table(coverage),
        "",
    ]
    return "\n".join(lines)


def table(columns: Mapping[str, Sequence[object]]) -> list[str]:
    """Returns the lines of a Markdown table, with one column per key; floats have four decimal places."""
    rows = zip(*columns.values(), strict=True)
    return [
        "| " + " | ".join(columns) + " |",
        "|" + "---|" * len(columns),
        *("| " + " | ".join(_cell(value) for value in row) + " |" for row in rows),
    ]


def _cell(value: object) -> str:
    text = f"{value:.4f}" if isinstance(value, float) else str(value)
    return text.replace("|", "\\|")
