"""What a network's features say of a data set: labels that are likely wrong, images unlike all others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from transfer_platform.inspection.findings import Finding

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from transfer_platform.data.catalog import ImageRecord

FOLDS = 5
"""Parts into which images are dealt; each is judged by what the others taught."""
STRENGTHS = (0.0003, 0.001, 0.01, 0.1)
"""Inverse strengths of L2 regularisation that are tried."""
TRIED = 2000
"""Images on which they are."""
ITERATIONS = 500
"""Of the optimizer, more than any of these problems takes."""
NEIGHBOURS = 5
"""Nearest images whose mean distance is an image's own."""
OUTLIER_FACTOR = 6.0
"""Deviations above its median (1.4826 times the median of absolute deviations) from which one is far."""

_BLOCK = 1024


def out_of_fold_probabilities(
    features: NDArray[np.float32], labels: NDArray[np.int64], seed: int = 0
) -> NDArray[np.float64]:
    """Probabilities of a logistic regression on standardised features, for images that it has not seen.

    Its regularisation is the one of `STRENGTHS` with the smallest out-of-fold loss on up to `TRIED` images.

    Args:
        features: (N, D).
        labels: Class indices (N,), each class at least twice.
        seed: Of the folds.

    Returns:
        (N, C).
    """
    from sklearn.metrics import log_loss
    from sklearn.model_selection import train_test_split

    some = np.arange(len(labels))
    if len(some) > TRIED:
        some, _ = train_test_split(some, train_size=TRIED, stratify=labels, random_state=seed)
    losses = {
        strength: log_loss(labels[some], _predicted(features[some], labels[some], strength, seed))
        for strength in STRENGTHS
    }
    return _predicted(features, labels, min(losses, key=losses.__getitem__), seed)


def _predicted(
    features: NDArray[np.float32], labels: NDArray[np.int64], strength: float, seed: int
) -> NDArray[np.float64]:
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    folds = StratifiedKFold(min(FOLDS, int(np.bincount(labels).min())), shuffle=True, random_state=seed)
    model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=ITERATIONS))
    found: NDArray[np.float64] = cross_val_predict(model, features, labels, cv=folds, method="predict_proba")
    return found


def find_label_errors(
    images: Sequence[ImageRecord], classes: Sequence[str], probabilities: NDArray[np.float64]
) -> Iterator[Finding]:
    """Labels that are likely wrong, by confident learning (Northcutt et al., 2021), and other misses.

    Confident learning counts the labels that are wrong: those beside which another class is as probable as it
    usually is for images of its own. So many labels of the smallest probability are accused. The other
    images that are taken for another class are hard, or not typical of theirs. The image whose label got
    the smallest probability comes first.

    Args:
        images: N of them.
        classes: In the order of the columns.
        probabilities: From networks that have not seen the image (N, C).
    """
    from cleanlab.filter import find_label_issues

    labels = np.array([classes.index(image.label) for image in images])
    accused = find_label_issues(labels, probabilities, filter_by="low_self_confidence", n_jobs=1)
    yield from _told("likely mislabelled", accused, images, classes, probabilities)
    yield from misclassified_images(images, classes, probabilities, but=accused)


def misclassified_images(
    images: Sequence[ImageRecord],
    classes: Sequence[str],
    probabilities: NDArray[np.floating],
    but: NDArray[np.bool_] | None = None,
) -> Iterator[Finding]:
    """Images that are taken for another class than theirs, but for some (N,)."""
    labels = np.array([classes.index(image.label) for image in images])
    missed = probabilities.argmax(axis=1) != labels
    which = missed if but is None else missed & ~but
    yield from _told("taken for another class", which, images, classes, probabilities)


def _told(
    kind: str,
    which: NDArray[np.bool_],
    images: Sequence[ImageRecord],
    classes: Sequence[str],
    probabilities: NDArray[np.floating],
) -> Iterator[Finding]:
    """Some of the images, the one whose label got the smallest probability first."""
    labels = np.array([classes.index(image.label) for image in images])
    own, best = probabilities[np.arange(len(labels)), labels], probabilities.argmax(axis=1)
    for index in np.argsort(own, kind="stable"):
        if which[index]:
            yield Finding(
                kind,
                (images[index].path,),
                f"labelled {images[index].label!r} with probability {own[index]:.3f}, "
                f"taken for {classes[best[index]]!r} with {probabilities[index, best[index]]:.3f}",
            )


def find_outliers(images: Sequence[ImageRecord], features: NDArray[np.float32]) -> Iterator[Finding]:
    """Images whose nearest neighbours are far away, the farthest first.

    Args:
        images: N of them.
        features: (N, D).
    """
    if len(images) <= NEIGHBOURS:
        return
    distances = _neighbour_distances(features)
    median = float(np.median(distances))
    spread = 1.4826 * float(np.median(np.abs(distances - median)))
    for index in np.argsort(-distances):
        if distances[index] <= median + OUTLIER_FACTOR * spread:
            return
        yield Finding(
            "far from the rest",
            (images[index].path,),
            f"mean cosine distance to its {NEIGHBOURS} nearest {distances[index]:.2f}, usually {median:.2f}",
        )


def _neighbour_distances(features: NDArray[np.float32]) -> NDArray[np.float64]:
    """Mean cosine distance of each row to its nearest others (N,)."""
    rows = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    means = []
    for start in range(0, len(rows), _BLOCK):
        distances = 1 - rows[start : start + _BLOCK] @ rows.T
        here = np.arange(len(distances))
        distances[here, start + here] = np.inf
        means.append(np.partition(distances, NEIGHBOURS - 1, axis=1)[:, :NEIGHBOURS].mean(axis=1))
    return np.concatenate(means).astype(np.float64)
