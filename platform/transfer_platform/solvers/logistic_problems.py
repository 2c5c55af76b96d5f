"""Objectives, gradients and Hessians of logistic regressions on the same images."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from transfer_platform.solvers.linear_path import weighted_mean

MIN_LOGIT = -60.0
"""Lower bound on logits relative to the largest; lower logits would give denormal probabilities, which are slow."""

BIAS_PENALTY = 1e-12
"""Penalty on the squared bias, relative to the total weight of the images.

Without it, there would be no solution if a fold had no training image of a class, because the bias of the class would
tend to minus infinity. The penalty does not affect other solutions noticeably.
"""


@dataclass(frozen=True)
class CenteredRows:
    """One row per image: centered features and a column of ones, D = min(N, F) + 1 columns in total.

    If there are fewer images than features, N columns suffice because the solution lies in the span of the images.

    Attributes:
        exact: Rows (N, D), float64.
        fast: The same rows in float32.
        mean: Mean (F,) of the features.
        rotation: Orthonormal columns (F, D - 1) with `features = mean + exact[:, :-1] @ rotation.T`, or None.
    """

    exact: Tensor
    fast: Tensor
    mean: Tensor
    rotation: Tensor | None

    @staticmethod
    def of(features: Tensor, weights: Tensor) -> CenteredRows:
        """Centers features (N, F) at their mean, which is weighted by `weights` (N,)."""
        mean = weighted_mean(features.double(), weights)
        rows, rotation = features.double() - mean, None
        if len(rows) < rows.shape[1]:
            rotation, triangle = torch.linalg.qr(rows.T)
            rows = triangle.T.contiguous()
        exact = torch.cat([rows, rows.new_ones(len(rows), 1)], dim=1)
        return CenteredRows(exact, exact.float(), mean, rotation)

    def linear(self, solution: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the weights (P, C, F) and biases (P, C) for the original features.

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

    The last dimension of logits is that of the images, because thin matrices are multiplied faster in this layout.

    A solution consists of the differences v between the coefficients of each class and those of the last class, whose
    logit is 0. The penalty is half of `sum(v^2) - sum(v)^2 / C`, the smallest squared norm of coefficients with these
    differences. With two classes, it is half of the squared norm of v itself, as in scikit-learn.

    Attributes:
        rows: See `CenteredRows`.
        targets: Class probabilities (C, N), float64.
        weights: Weights (P, N) of the images, multiplied by the regularization parameter C of the problem, float64.
    """

    rows: CenteredRows
    targets: Tensor
    weights: Tensor

    @property
    def classes(self) -> int:
        """Number of classes C."""
        return len(self.targets)

    def logits(self, solution: Tensor) -> Tensor:
        """Returns logits (C - 1, P, N) in the same precision as the solution."""
        rows = self.rows.exact if solution.dtype == torch.float64 else self.rows.fast
        return (solution.flatten(0, 1) @ rows.T).view(*solution.shape[:2], -1)

    def gradient(self, solution: Tensor, probabilities: Tensor) -> Tensor:
        """Returns the gradients (C - 1, P, D) at the solutions, given their probabilities (C - 1, P, N), in float64."""
        residuals = (probabilities - self.targets[:-1, None]) * self.weights
        return self._backward(self.rows.exact, residuals) + self.penalty(solution)

    def curvature_product(self, direction: Tensor, curvature: Curvature) -> Tensor:
        """Returns the product (C - 1, P, D) of the Hessians and a direction, in float32."""
        moved = curvature.product(self.logits(direction))
        return self._backward(self.rows.fast, moved) + self.penalty(direction)

    def penalty(self, solution: Tensor) -> Tensor:
        """Returns the gradient (C - 1, P, D) of the penalty; the bias (last column) is hardly penalized."""
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
        largest: Most probable class (1, P, N), excluding the last class.
        shifted: Array (1, P, N) that is 0 where the most probable class is the last one, and 1 elsewhere.
        weighted: Probabilities multiplied by the weights of the images.
    """

    probabilities: Tensor
    last: Tensor
    largest: Tensor
    shifted: Tensor
    weighted: Tensor

    @staticmethod
    def at(probabilities: Tensor, weights: Tensor) -> Curvature:
        """Returns the curvature at probabilities (C - 1, P, N), float64, for images with weights (P, N)."""
        last = 1 - probabilities.sum(dim=0)
        value, largest = probabilities.max(dim=0, keepdim=True)
        fast = probabilities.float()
        return Curvature(fast, last.float(), largest, (value >= last).float(), fast * weights.float())

    def product(self, moved: Tensor) -> Tensor:
        """Returns `weights * (diag(p) - p p^T) @ moved`; changes `moved` (C - 1, P, N) in place.

        Adding a constant to an image's elements of `moved` does not change the product. Shifting them so that the
        element of the most probable class is 0 avoids a loss of precision if its probability is close to 1.
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
