"""Markdown reports on evaluations and decision thresholds."""

from collections.abc import Mapping, Sequence

from transfer_platform.evaluation.metrics import per_class
from transfer_platform.evaluation.predictions import Predictions


def class_table(predictions: Predictions) -> dict[str, list[object]]:
    """Returns a table with the columns `class`, `images`, `precision`, `recall` and `f1`, and one row per class.

    Undefined values are 0; see `class_lines`.
    """
    metrics = per_class(predictions.labels, predictions.predicted, len(predictions.classes))
    return {
        "class": list(predictions.classes),
        "images": [int(count) for count in metrics["support"]],
        **{name: metrics[name].tolist() for name in ("precision", "recall", "f1")},
    }


def class_lines(predictions: Predictions) -> list[str]:
    """Returns the lines of `class_table` in Markdown, with a dash where there are no images to compute a value from."""
    columns = class_table(predictions)
    predicted = set(predictions.predicted.tolist())
    for index, images in enumerate(columns["images"]):
        if not images:
            columns["recall"][index] = columns["f1"][index] = None
            columns["precision"][index] = columns["precision"][index] if index in predicted else None
    return table(columns)


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
        *class_lines(predictions),
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
    """Returns the lines of a Markdown table, with one column per key.

    Floats have four decimal places, and None is a dash.
    """
    rows = zip(*columns.values(), strict=True)
    return [
        "| " + " | ".join(columns) + " |",
        "|" + "---|" * len(columns),
        *("| " + " | ".join(_cell(value) for value in row) + " |" for row in rows),
    ]


def _cell(value: object) -> str:
    text = f"{value:.4f}" if isinstance(value, float) else "-" if value is None else str(value)
    return text.replace("|", "\\|")
