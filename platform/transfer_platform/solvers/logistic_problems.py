"""Objectives, gradients and Hessians of logistic regressions on the same images."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from transfer_platform.solvers.linear_path import weighted_mean

MIN_LOGIT = -60.0
"""Smallest logit relative to the largest; smaller ones would give denormal probabilities, which are slow."""

BIAS_PENALTY = 1e-12
"""Penalty of the squared bias, relative to the total weight of the images.

Without it, there would be no solution if a fold has no training image of a class, because its bias would tend to minus
infinity. It does not affect other solutions noticeably.
"""


@dataclass(frozen=True)
class CenteredRows:
    """Images as rows: centered features and a column of ones, D = min(N, F) + 1 columns.

    The solution lies in the span of the images, so fewer images than features need no more columns than images.

    Attributes:
        exact: CenteredRows (N, D), float64.
        fast: The same in float32.
        mean: Mean (F,) of the features.
        rotation: Orthonormal columns (F, D - 1): `features = mean + exact[:, :-1] @ rotation.T`; None for no rotation.
    """

    exact: Tensor
    fast: Tensor
    mean: Tensor
    rotation: Tensor | None

    @staticmethod
    def of(features: Tensor, weights: Tensor) -> CenteredRows:
        """Centers features (N, F) by their mean with the weights (N,)."""
        mean = weighted_mean(features.double(), weights)
        rows, rotation = features.double() - mean, None
        if len(rows) < rows.shape[1]:
            rotation, triangle = torch.linalg.qr(rows.T)
            rows = triangle.T.contiguous()
        exact = torch.cat([rows, rows.new_ones(len(rows), 1)], dim=1)
        return CenteredRows(exact, exact.float(), mean, rotation)

    def linear(self, solution: Tensor) -> tuple[Tensor, Tensor]:
        """Returns weights (P, C, F) and biases (P, C) on the original features.

        Args:
            solution: Coefficients (C - 1, P, D) relative to the last class.
        """
        full = torch.cat([solution, torch.zeros_like(solution[:1])])
        coefficients = (full - full.mean(dim=0)).transpose(0, 1)
        weight = coefficients[..., :-1]
        weight = weight if self.rotation is None else weight @ self.rotation.T
        return weight, coefficients[..., -1] - weight @ self.mean


@dataclass(frozen=True)
class Problems:
    """P logistic regressions on the same N images; solutions are coefficients (C - 1, P, D).

    Images are the last dimension of logits, since thin matrices are multiplied faster in this layout.

    Each solution holds the differences between the coefficients of a class and those of the last class, whose logit
    is 0. The smallest squared norm of coefficients with these differences is `sum(v^2) - sum(v)^2 / C`. With two
    classes, scikit-learn penalizes the squared norm of the difference itself.

    Attributes:
        rows: See `CenteredRows`.
        targets: Class probabilities (C, N), float64.
        weights: Weights of the images (P, N), float64, multiplied by the penalty C.
    """

    rows: CenteredRows
    targets: Tensor
    weights: Tensor

    @property
    def classes(self) -> int:
        """Number of classes C."""
        return len(self.targets)

    def logits(self, solution: Tensor) -> Tensor:
        """Returns logits (C - 1, P, N) in the precision of the solution."""
        rows = self.rows.exact if solution.dtype == torch.float64 else self.rows.fast
        return (solution.flatten(0, 1) @ rows.T).view(*solution.shape[:2], -1)

    def gradient(self, solution: Tensor, probabilities: Tensor) -> Tensor:
        """Returns the gradients (C - 1, P, D) at solutions with these probabilities (C - 1, P, N), in float64."""
        residuals = (probabilities - self.targets[:-1, None]) * self.weights
        return self._backward(self.rows.exact, residuals) + self.penalty(solution)

    def curvature_product(self, direction: Tensor, curvature: Curvature) -> Tensor:
        """Returns the product (C - 1, P, D) of the Hessians with a direction, in float32."""
        moved = curvature.product(self.logits(direction))
        return self._backward(self.rows.fast, moved) + self.penalty(direction)

    def penalty(self, solution: Tensor) -> Tensor:
        """Returns the gradient (C - 1, P, D) of the penalty; the bias in the last column has almost no penalty."""
        shared = 0 if self.classes == 2 else solution.sum(dim=0) / self.classes
        gradient = solution - shared
        gradient[..., -1] = self._bias_penalty.to(solution.dtype) * solution[..., -1]
        return gradient

    @cached_property
    def _bias_penalty(self) -> Tensor:
        return BIAS_PENALTY * self.weights.sum(dim=1)

    @staticmethod
    def _backward(rows: Tensor, residuals: Tensor) -> Tensor:
        return (residuals.flatten(0, 1) @ rows).view(*residuals.shape[:2], -1)


@dataclass(frozen=True)
class Curvature:
    """Second derivatives of the weighted cross-entropies with respect to the logits, in float32.

    Attributes:
        probabilities: Probabilities (C - 1, P, N).
        last: Probability (P, N) of the last class.
        largest: Most probable class (1, P, N) but the last.
        shifted: 0 (1, P, N) where the most probable class is the last one, else 1.
        weighted: Probabilities multiplied by the weights of the images.
    """

    probabilities: Tensor
    last: Tensor
    largest: Tensor
    shifted: Tensor
    weighted: Tensor

    @staticmethod
    def at(probabilities: Tensor, weights: Tensor) -> Curvature:
        """Prepares products at probabilities (C - 1, P, N), float64, with weights (P, N)."""
        last = 1 - probabilities.sum(dim=0)
        value, largest = probabilities.max(dim=0, keepdim=True)
        fast = probabilities.float()
        return Curvature(fast, last.float(), largest, (value >= last).float(), fast * weights.float())

    def product(self, moved: Tensor) -> Tensor:
        """Returns `weights * (diag(p) - p p^T) @ moved`; changes `moved` (C - 1, P, N) in place.

        The product does not change if a constant is added to all logits of an image. With the most probable class at
        0, no digits are lost where its probability is nearly 1.
        """
        shift = moved.gather(0, self.largest) * self.shifted
        moved -= shift
        moved -= (self.probabilities * moved).sum(dim=0) - self.last * shift[0]
        return moved.mul_(self.weighted)


def softmax_of_differences(logits: Tensor) -> Tensor:
    """Returns the probabilities (C - 1, P, N) of all classes but the last, whose logit is 0."""
    largest = logits.amax(dim=0).clamp(min=0)
    exponentials = (logits - largest).clamp(min=MIN_LOGIT).exp()
    return exponentials / (exponentials.sum(dim=0) + (-largest).clamp(min=MIN_LOGIT).exp())


def dot(first: Tensor, second: Tensor) -> Tensor:
    """Returns the inner products (P,) of solutions (C - 1, P, D)."""
    return (first * second).sum(dim=(0, 2))
