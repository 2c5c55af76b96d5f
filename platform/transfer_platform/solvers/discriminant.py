"""Linear discriminant analysis with shrinkage, and nearest class means."""

from collections.abc import Sequence

import torch
from torch import Tensor

from transfer_platform.solvers.linear_path import LinearPath, weighted_mean

SMALLEST_SHARE = 1e-10
"""Lower bound on the variance within classes, as a share of the total variance."""


def lda_path(features: Tensor, targets: Tensor, weights: Tensor, values: Sequence[float]) -> LinearPath:
    """Returns a linear discriminant classifier for each shrinkage g and each weighting.

    The covariance S within classes, pooled over all images, is replaced by `(1 - g) * S + g * trace(S) / F * I`, as in
    scikit-learn's `LinearDiscriminantAnalysis(solver="lsqr", shrinkage=g)`. An image with soft targets counts toward
    each class in proportion to its probability. One eigendecomposition per weighting gives all solutions.

    Args:
        features: Features (N, F).
        targets: Class probabilities (N, C); every class needs a positive total weight.
        weights: Weights (K, N) of the images; one row for each fold.
        values: V values of the shrinkage, above 0 and at most 1.
    """
    shrinkages = torch.as_tensor(values, dtype=torch.float64)
    solutions = [_lda(features.double(), targets.double(), row.double(), shrinkages) for row in weights]
    return LinearPath.stacked(solutions)


def _lda(features: Tensor, targets: Tensor, weights: Tensor, shrinkages: Tensor) -> tuple[Tensor, Tensor]:
    mean, width = weighted_mean(features, weights), features.shape[1]
    features = features - mean
    rotation: Tensor | None = None
    if len(features) < width:  # the class means lie in the span of the images
        rotation, triangle = torch.linalg.qr(features.T)
        features = triangle.T
    shares = targets * (weights / weights.sum())[:, None]
    priors = shares.sum(dim=0)
    means = (shares / priors).T @ features
    # sum_c shares_c (x - mean_c)(x - mean_c)^T = sum x x^T - sum_c priors_c mean_c mean_c^T
    rows = torch.cat([features * shares.sum(dim=1).sqrt()[:, None], means])
    signs = torch.cat([torch.ones(len(features)), -priors]).to(rows)
    eigenvalues, vectors = torch.linalg.eigh(rows.T @ (rows * signs[:, None]))
    eigenvalues = eigenvalues.clamp(min=0)
    # If the images of each class are all equal, the covariance is 0; a small share of the total variance replaces it.
    variance = torch.maximum(eigenvalues.sum(), SMALLEST_SHARE * (features.square().sum(dim=1) @ shares.sum(dim=1)))
    shrunk = (1 - shrinkages[:, None]) * eigenvalues + shrinkages[:, None] * (variance / width)
    weight = ((means @ vectors) / shrunk[:, None]) @ vectors.T
    bias = priors.log() - (weight * means).sum(dim=2) / 2
    weight = weight if rotation is None else weight @ rotation.T
    return weight, bias - weight @ mean


def prototype_path(features: Tensor, targets: Tensor, weights: Tensor) -> LinearPath:
    """Returns the linear classifier that predicts the class with the nearest mean, for each weighting; V is 1.

    The distance is Euclidean: `-|x - mean_c|^2 / 2` equals `mean_c x - |mean_c|^2 / 2` plus a term that is the same for
    all classes. The arguments are those of `lda_path`.
    """
    center = features.double().mean(dim=0)  # float32 logits are more accurate without a common offset
    shares = targets.double() * weights.double()[:, :, None]
    means = (shares / shares.sum(dim=1, keepdim=True)).mT @ (features.double() - center)
    return LinearPath(means[None], (-means.square().sum(dim=2) / 2 - means @ center)[None])
