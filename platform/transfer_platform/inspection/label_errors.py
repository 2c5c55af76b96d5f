"""Detects label errors and outliers, using network features."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from transfer_platform.inspection.findings import Finding

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from transfer_platform.data.catalog import ImageRecord

FOLDS = 5
"""Number of cross-validation folds."""
REGULARIZATION = (0.0003, 0.001, 0.01, 0.1)
"""Candidate inverse L2 regularization strengths (`C` in scikit-learn)."""
TUNING_IMAGES = 2000
"""Maximum number of images used to select the regularization strength."""
MAX_ITERATIONS = 500
"""Maximum number of solver iterations; high enough for these regressions to converge."""
NEIGHBORS = 5
"""Number of nearest neighbors used for the outlier score."""
OUTLIER_DEVIATIONS = 6.0
"""A score above median + OUTLIER_DEVIATIONS * 1.4826 * median absolute deviation indicates an outlier."""

_BLOCK = 1024


def out_of_fold_probabilities(
    features: NDArray[np.float32], labels: NDArray[np.int64], seed: int = 0
) -> NDArray[np.float64]:
    """Returns class probabilities from a cross-validated logistic regression on standardized features.

    The regularization strength is the one with the lowest out-of-fold loss on a sample of up to `TUNING_IMAGES` images.

    Args:
        features: Features (N, D).
        labels: Class indices (N,), with at least two images per class.
        seed: Seed for the tuning subset and the folds.

    Returns:
        Out-of-fold probabilities (N, C).
    """
    from sklearn.metrics import log_loss
    from sklearn.model_selection import train_test_split

    subset = np.arange(len(labels))
    if len(subset) > TUNING_IMAGES:
        subset, _ = train_test_split(subset, train_size=TUNING_IMAGES, stratify=labels, random_state=seed)
    losses = {
        strength: log_loss(labels[subset], _cross_validate(features[subset], labels[subset], strength, seed))
        for strength in REGULARIZATION
    }
    return _cross_validate(features, labels, min(losses, key=losses.__getitem__), seed)


def _cross_validate(
    features: NDArray[np.float32], labels: NDArray[np.int64], strength: float, seed: int
) -> NDArray[np.float64]:
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    folds = StratifiedKFold(min(FOLDS, int(np.bincount(labels).min())), shuffle=True, random_state=seed)
    model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=MAX_ITERATIONS))
    return np.asarray(cross_val_predict(model, features, labels, cv=folds, method="predict_proba"))


def find_label_errors(
    images: Sequence[ImageRecord], classes: Sequence[str], probabilities: NDArray[np.float64]
) -> Iterator[Finding]:
    """Yields label errors found by confident learning (Northcutt et al., 2021), then other misclassified images.

    The threshold of a class is its mean probability over the images with that label. The estimated number n of label
    errors is the number of images whose probability of another class reaches that class's threshold. The n images with
    the lowest label probabilities are reported. Findings of each kind are sorted by label probability, lowest first.

    Args:
        images: N images.
        classes: Class names in column order.
        probabilities: Out-of-fold probabilities (N, C).
    """
    from cleanlab.filter import find_label_issues

    labels = _label_indices(images, classes)
    errors = find_label_issues(labels, probabilities, filter_by="low_self_confidence", n_jobs=1)
    yield from _describe("label error", errors, images, classes, probabilities)
    misclassified = (probabilities.argmax(axis=1) != labels) & ~errors
    yield from _describe("predicted as another class", misclassified, images, classes, probabilities)


def misclassified_images(
    images: Sequence[ImageRecord], classes: Sequence[str], probabilities: NDArray[np.floating]
) -> Iterator[Finding]:
    """Yields findings for images whose predicted class is not their label, sorted by ascending label probability."""
    misclassified = probabilities.argmax(axis=1) != _label_indices(images, classes)
    yield from _describe("predicted as another class", misclassified, images, classes, probabilities)


def _label_indices(images: Sequence[ImageRecord], classes: Sequence[str]) -> NDArray[np.int64]:
    return np.array([classes.index(image.label) for image in images])


def _describe(
    kind: str,
    mask: NDArray[np.bool_],
    images: Sequence[ImageRecord],
    classes: Sequence[str],
    probabilities: NDArray[np.floating],
) -> Iterator[Finding]:
    labels = _label_indices(images, classes)
    label_probabilities, predicted = probabilities[np.arange(len(labels)), labels], probabilities.argmax(axis=1)
    for index in np.argsort(label_probabilities, kind="stable"):
        if mask[index]:
            label = f"labeled {images[index].label!r} (probability {label_probabilities[index]:.3f})"
            prediction = f"predicted {classes[predicted[index]]!r} ({probabilities[index, predicted[index]]:.3f})"
            yield Finding(kind, (images[index].path,), f"{label}, {prediction}")


def find_outliers(images: Sequence[ImageRecord], features: NDArray[np.float32]) -> Iterator[Finding]:
    """Yields findings for images far from their nearest neighbors in `features` (N, D), farthest first."""
    if len(images) <= NEIGHBORS:
        return
    distances = _neighbor_distances(features)
    median = float(np.median(distances))
    deviation = 1.4826 * float(np.median(np.abs(distances - median)))
    for index in np.argsort(-distances):
        if distances[index] <= median + OUTLIER_DEVIATIONS * deviation:
            return
        distance = f"mean cosine distance to the {NEIGHBORS} nearest neighbors: {distances[index]:.2f}"
        yield Finding("outlier", (images[index].path,), f"{distance} (median over all images: {median:.2f})")


def _neighbor_distances(features: NDArray[np.float32]) -> NDArray[np.float64]:
    """Returns the mean cosine distance (N,) of each image to its nearest neighbors.

    `cleanlab.outlier.OutOfDistribution` computes the same distances, but is slower and uses more memory: 52 s and
    1.6 GiB, compared with 17 s and 0.3 GiB here (12,000 images with 1,280 features each, on one core).
    """
    rows = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    means = []
    for start in range(0, len(rows), _BLOCK):
        distances = 1 - rows[start : start + _BLOCK] @ rows.T
        block = np.arange(len(distances))
        distances[block, start + block] = np.inf
        means.append(np.partition(distances, NEIGHBORS - 1, axis=1)[:, :NEIGHBORS].mean(axis=1))
    return np.concatenate(means).astype(np.float64)
