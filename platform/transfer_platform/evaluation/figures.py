"""Matplotlib figures for predictions and learning curves."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.metrics import ConfusionMatrixDisplay

from transfer_model.decode import decode
from transfer_platform.evaluation.calibration import CALIBRATION_BINS, calibration_curve
from transfer_platform.evaluation.drawn_names import DrawnNames, drawn_names
from transfer_platform.evaluation.predictions import Predictions

THUMBNAIL_SIZE = 160
"""Longer side of a thumbnail, in pixels."""
COLUMNS = 4


def confusion_matrix(predictions: Predictions) -> Figure:
    """Plots image counts by true class (rows) and predicted class (columns)."""
    classes = predictions.classes
    side = min(4 + 0.35 * len(classes), 24)
    figure, names = Figure(figsize=(side, side), layout="constrained"), drawn_names(classes)
    axes = figure.subplots()
    axes.tick_params(labelfontfamily=list(names.families))
    ConfusionMatrixDisplay.from_predictions(
        predictions.labels,
        predictions.predicted,
        labels=range(len(classes)),
        display_labels=names.texts,
        xticks_rotation=90 if len(classes) > 4 else 0,
        include_values=len(classes) <= 40,
        colorbar=False,
        cmap="Blues",
        ax=axes,
    )
    _add_note(figure, names)
    return figure


def calibration(predictions: Predictions) -> Figure:
    """Plots accuracy against confidence; perfectly calibrated probabilities lie on the diagonal."""
    confidence, accuracy, counts = calibration_curve(predictions.labels, predictions.probabilities)
    figure = Figure(figsize=(5, 5), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="grey", linestyle="--", linewidth=1)
    axes.scatter(confidence, accuracy, s=20 + 400 * counts / counts.sum())
    xlabel = f"confidence (mean in each of {CALIBRATION_BINS} bins)"
    axes.set(xlabel=xlabel, ylabel="accuracy", xlim=(0, 1.02), ylim=(0, 1.02))
    return figure


def learning_curves(history: Mapping[str, Sequence[tuple[int, float]]], xlabel: str = "epoch") -> Figure:
    """Plots the metrics of one trial, given as (epoch, value) pairs, with losses in a separate panel."""
    figure = Figure(figsize=(9, 4), layout="constrained")
    losses, others = figure.subplots(1, 2)
    for metric, points in history.items():
        axes = losses if metric.endswith("/loss") else others
        axes.plot(*zip(*points, strict=True), marker=".", label=metric)
    for axes in (losses, others):
        axes.set(xlabel=xlabel)
        axes.legend()
    return figure


def worst_mistakes(predictions: Predictions, limit: int = 16) -> Figure:
    """Shows the misclassified images with the lowest predicted probability for the true class."""
    indices = predictions.mistakes()[:limit]
    rows = max(1, -(-len(indices) // COLUMNS))
    figure = Figure(figsize=(2.6 * COLUMNS, 3 * rows), layout="constrained")
    for axes in (grid := figure.subplots(rows, COLUMNS, squeeze=False)).flat:
        axes.set_axis_off()
    names = drawn_names([line for index in indices for line in _caption(predictions, index)])
    lines = zip(names.texts[::2], names.texts[1::2], strict=True)
    for index, axes, caption in zip(indices, grid.flat, lines, strict=False):
        _show_image(axes, predictions, index)
        axes.set_title("\n".join(caption), fontsize=7, fontfamily=names.families)
    _add_note(figure, names)
    if not indices:
        figure.suptitle("no misclassified images")
    return figure


def image_grid(images: NDArray[np.float32], titles: Sequence[str]) -> Figure:
    """Shows up to 16 images (N, S, S, 3) with values from 0 to 1, each with a title."""
    count = min(len(images), 4 * COLUMNS)
    rows = -(-count // COLUMNS)
    figure, names = Figure(figsize=(2.6 * COLUMNS, 2.9 * rows), layout="constrained"), drawn_names(titles[:count])
    for axes in (grid := figure.subplots(rows, COLUMNS, squeeze=False)).flat:
        axes.set_axis_off()
    for image, title, axes in zip(images, names.texts, grid.flat, strict=False):
        axes.imshow(image)
        axes.set_title(title, fontsize=8, fontfamily=names.families)
    _add_note(figure, names)
    return figure


def _show_image(axes: Axes, predictions: Predictions, index: int) -> None:
    image = decode(predictions.paths[index], intensity=predictions.intensity)
    image.thumbnail((THUMBNAIL_SIZE, THUMBNAIL_SIZE))
    axes.imshow(np.asarray(image))


def _caption(predictions: Predictions, index: int) -> tuple[str, str]:
    """Returns two lines of text for an image: first its label and prediction, then its file name."""
    label, predicted = predictions.labels[index], predictions.predicted[index]
    return (
        f"{predictions.classes[label]}, predicted {predictions.classes[predicted]} "
        f"({predictions.probabilities[index, predicted]:.3f})",
        predictions.paths[index].name[:28],
    )


def _add_note(figure: Figure, names: DrawnNames) -> None:
    if names.note:
        figure.supxlabel(names.note, fontsize=7)
