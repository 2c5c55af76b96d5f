"""Ridge regression of class probabilities for all penalties and folds."""

from collections.abc import Sequence

import torch
from torch import Tensor

from transfer_platform.solvers.linear_path import LinearPath, weighted_mean


def ridge_path(features: Tensor, targets: Tensor, weights: Tensor, values: Sequence[float]) -> LinearPath:
    """Regresses class probabilities on features, for each penalty alpha and each weighting.

    Minimizes `sum(weights * |targets - prediction|^2) + alpha * |W|^2` with unpenalized biases, like scikit-learn's
    `Ridge`. One eigendecomposition per weighting gives the solutions for all penalties.

    Args:
        features: Features (N, F).
        targets: Class probabilities (N, C).
        weights: Weights (K, N) of the images; one row for each fold.
        values: V positive penalties alpha.
    """
    penalties = torch.as_tensor(values, dtype=torch.float64)
    solutions = [_ridge(features.double(), targets.double(), row.double(), penalties) for row in weights]
    return LinearPath.stacked(solutions)


def _ridge(features: Tensor, targets: Tensor, weights: Tensor, penalties: Tensor) -> tuple[Tensor, Tensor]:
    mean, target_mean = weighted_mean(features, weights), weighted_mean(targets, weights)
    roots = weights.sqrt()[:, None]
    rows, responses = (features - mean) * roots, (targets - target_mean) * roots
    if len(rows) < rows.shape[1]:  # the smaller Gram matrix: W = X^T (X X^T + alpha I)^-1 Y
        eigenvalues, vectors = torch.linalg.eigh(rows @ rows.T)
        left, right = rows.T @ vectors, vectors.T @ responses
    else:
        eigenvalues, left = torch.linalg.eigh(rows.T @ rows)
        right = left.T @ (rows.T @ responses)
    filters = 1 / (eigenvalues.clamp(min=0) + penalties[:, None])
    weight = ((left * filters[:, None]) @ right).mT
    return weight, target_mean - weight @ mean
