"""Nearest neighbors as a classifier, for several numbers of neighbors."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from transfer_model.neighbors import BATCH, NeighborClassifier, NeighborSpec, nearest, vote

SMOOTHING = 1e-3
"""Share of the probability that is spread evenly over all classes, so that no logit is infinite."""


def total_smoothing(label_smoothing: float) -> float:
    """Returns the share of the probability that is spread evenly over all classes.

    If every neighbor gives the share `label_smoothing` of its vote to all classes, so do the votes together.
    """
    return SMOOTHING + (1 - SMOOTHING) * label_smoothing


def held_out_logits(
    features: Tensor,
    labels: Tensor,
    weights: Tensor,
    folds: Tensor,
    values: Sequence[int],
    classes: int,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Returns the logits (V, N, C) of images that are held out for V numbers of neighbors; 0 for other images.

    The similarities are computed once for all numbers. Numbers above the number of training images of the smallest fold
    have no logits.

    Args:
        features: Features (N, F).
        labels: Class indices (N,).
        weights: Weights of the images' votes (K, N); one row for each fold, 0 for images that do not vote.
        folds: Index (N,) of the fold that holds out each image; -1 for images that are never held out.
        values: Numbers of neighbors, ascending.
        classes: Number of classes C.
        label_smoothing: Share of each vote that is spread evenly over all classes.
    """
    most = int((weights > 0).sum(dim=1).min())
    numbers = [value for value in values if value <= most]
    directions, smoothing = _directions(features), total_smoothing(label_smoothing)
    logits = torch.zeros(len(numbers), len(features), classes)
    for fold, row in enumerate(weights.float()):
        stored = row.nonzero()[:, 0]
        stored_directions = directions[stored]
        for rows in torch.split((folds == fold).nonzero()[:, 0], BATCH):
            similarities, order = nearest(directions[rows], stored_directions, numbers[-1])
            neighbors = stored[order]
            for index, k in enumerate(numbers):
                voters = neighbors[:, :k]
                logits[index, rows] = vote(similarities[:, :k], labels[voters], row[voters], classes, smoothing)
    return logits


def neighbor_classifier(
    features: Tensor, labels: Tensor, weights: Tensor, k: int, classes: int, label_smoothing: float = 0.0
) -> NeighborClassifier:
    """Returns a classifier that stores the images with weights (N,) above 0; see `held_out_logits`."""
    stored = weights.nonzero()[:, 0]
    spec = NeighborSpec(len(stored), k, total_smoothing(label_smoothing))
    classifier = NeighborClassifier(features.shape[1], classes, spec)
    state = {"features": _directions(features)[stored], "labels": labels[stored], "votes": weights[stored].float()}
    classifier.load_state_dict(state)
    return classifier.eval()


def _directions(features: Tensor) -> Tensor:
    return functional.normalize(features.double()).float()
