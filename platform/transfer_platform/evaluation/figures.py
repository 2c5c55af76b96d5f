"""Images of what predictions are worth, as matplotlib figures that belong to no window."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.metrics import ConfusionMatrixDisplay

from transfer_model.preprocessing import decode
from transfer_platform.evaluation.metrics import CALIBRATION_BINS, calibration_curve
from transfer_platform.evaluation.predictions import Predictions

THUMBNAIL = 160
"""Side of a gallery image in pixels."""


def confusion_matrix(predictions: Predictions) -> Figure:
    """How often each class (row) was taken for each class (column)."""
    classes = predictions.classes
    side = min(4 + 0.35 * len(classes), 24)
    figure = Figure(figsize=(side, side), layout="constrained")
    ConfusionMatrixDisplay.from_predictions(
        predictions.labels,
        predictions.predicted,
        labels=range(len(classes)),
        display_labels=classes,
        xticks_rotation=90 if len(classes) > 4 else 0,
        include_values=len(classes) <= 40,
        colorbar=False,
        cmap="Blues",
        ax=figure.subplots(),
    )
    return figure


def calibration(predictions: Predictions) -> Figure:
    """Accuracy against confidence; on the diagonal the probabilities mean what they say."""
    confidence, accuracy, counts = calibration_curve(predictions.labels, predictions.probabilities)
    figure = Figure(figsize=(5, 5), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="grey", linestyle="--", linewidth=1)
    axes.scatter(confidence, accuracy, s=20 + 400 * counts / counts.sum())
    axes.set(
        xlabel=f"confidence (mean of each of {CALIBRATION_BINS} bins)",
        ylabel="accuracy",
        xlim=(0, 1.02),
        ylim=(0, 1.02),
    )
    return figure


def learning_curves(history: Mapping[str, Sequence[tuple[int, float]]]) -> Figure:
    """Metrics of one trial over its epochs, one curve each, losses apart from the rest.

    Args:
        history: By the metric's name, epochs and values.
    """
    figure = Figure(figsize=(9, 4), layout="constrained")
    losses, quality = figure.subplots(1, 2)
    for metric, points in history.items():
        axes = losses if metric.endswith("/loss") else quality
        axes.plot(*zip(*points, strict=True), marker=".", label=metric)
    for axes in (losses, quality):
        axes.set(xlabel="epoch")
        axes.legend()
    return figure


def worst_mistakes(predictions: Predictions, most: int = 16) -> Figure:
    """The images whose true class got the least probability, among those that were classified wrongly."""
    shown = predictions.mistakes()[:most]
    columns = 4
    rows = max(1, -(-len(shown) // columns))
    figure = Figure(figsize=(2.6 * columns, 3 * rows), layout="constrained")
    for axes in (grid := figure.subplots(rows, columns, squeeze=False)).flat:
        axes.set_axis_off()
    for index, axes in zip(shown, grid.flat, strict=False):
        _show(axes, predictions, index)
    if not shown:
        figure.suptitle("not one mistake")
    return figure


def _show(axes: Axes, predictions: Predictions, index: int) -> None:
    image = decode(predictions.paths[index])
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    true, predicted = predictions.labels[index], predictions.predicted[index]
    axes.imshow(np.asarray(image))
    axes.set_title(
        f"{predictions.classes[true]}, taken for {predictions.classes[predicted]}\n"
        f"with {predictions.probabilities[index, predicted]:.3f}: {predictions.paths[index].name[:28]}",
        fontsize=7,
    )
