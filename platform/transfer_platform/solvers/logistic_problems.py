"""Objectives, gradients and Hessians of logistic regressions on the same images."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from transfer_platform.solvers.linear_path import weighted_mean

MIN_LOGIT = -60.0
"""Smallest logit relative to the largest; smaller ones would give denormal probabilities, which are slow."""


@dataclass(frozen=True)
class Rows:
    """Images as rows: centered features and a column of ones, D = min(N, F) + 1 columns.

    The solution lies in the span of the images, so fewer images than features need no more columns than images.

    Attributes:
        exact: Rows (N, D), float64.
        fast: The same in float32.
        mean: Mean (F,) of the features.
        rotation: Orthonormal columns (F, D - 1): `features = mean + exact[:, :-1] @ rotation.T`; None for no rotation.
    """

    exact: Tensor
    fast: Tensor
    mean: Tensor
    rotation: Tensor | None

    @staticmethod
    def of(features: Tensor, weights: Tensor) -> Rows:
        """Centers features (N, F) by their mean with the weights (N,)."""
        mean = weighted_mean(features.double(), weights)
        rows, rotation = features.double() - mean, None
        if len(rows) < rows.shape[1]:
            rotation, triangle = torch.linalg.qr(rows.T)
            rows = triangle.T.contiguous()
        exact = torch.cat([rows, rows.new_ones(len(rows), 1)], dim=1)
        return Rows(exact, exact.float(), mean, rotation)

    def linear(self, solution: Tensor) -> tuple[Tensor, Tensor]:
        """Returns weights (P, C, F) and biases (P, C) on the original features.

        Args:
            solution: Coefficients (D, C - 1, P) relative to the last class.
        """
        full = torch.cat([solution, torch.zeros_like(solution[:, :1])], dim=1)
        coefficients = (full - full.mean(dim=1, keepdim=True)).permute(2, 1, 0)
        weight = coefficients[..., :-1]
        weight = weight if self.rotation is None else weight @ self.rotation.T
        return weight, coefficients[..., -1] - weight @ self.mean


@dataclass(frozen=True)
class Problems:
    """P logistic regressions on the same N images; solutions are coefficients (D, C - 1, P).

    Each solution holds the differences between the coefficients of a class and those of the last class, whose logit
    is 0. The smallest squared norm of coefficients with these differences is `sum(v^2) - sum(v)^2 / C`. With two
    classes, scikit-learn penalizes the squared norm of the difference itself.

    Attributes:
        rows: See `Rows`.
        targets: Class probabilities (N, C), float64.
        weights: Weights of the images (N, P), float64, multiplied by the penalty C.
    """

    rows: Rows
    targets: Tensor
    weights: Tensor

    @property
    def classes(self) -> int:
        """Number of classes C."""
        return self.targets.shape[1]

    def select(self, chosen: Tensor) -> Problems:
        """Returns the problems of an index or a boolean mask (P,)."""
        return Problems(self.rows, self.targets, self.weights[:, chosen])

    def logits(self, solution: Tensor) -> Tensor:
        """Returns logits (N, C - 1, P) in the precision of the solution."""
        rows = self.rows.exact if solution.dtype == torch.float64 else self.rows.fast
        return (rows @ solution.flatten(1)).view(-1, *solution.shape[1:])

    def gradient(self, solution: Tensor, probabilities: Tensor) -> Tensor:
        """Returns the gradients (D, C - 1, P) at solutions with these probabilities (N, C - 1, P), in float64."""
        residuals = (probabilities - self.targets[:, :-1, None]) * self.weights[:, None]
        return self._backward(self.rows.exact, residuals) + self.penalty(solution)

    def curvature_product(self, direction: Tensor, curvature: Curvature) -> Tensor:
        """Returns the product (D, C - 1, P) of the Hessians with a direction, in float32."""
        moved = curvature.product(self.logits(direction))
        return self._backward(self.rows.fast, moved) + self.penalty(direction)

    def penalty(self, solution: Tensor) -> Tensor:
        """Returns the gradient (D, C - 1, P) of the penalty, which does not contain the bias in the last row."""
        shared = 0 if self.classes == 2 else solution.sum(dim=1, keepdim=True) / self.classes
        gradient = solution - shared
        gradient[-1] = 0
        return gradient

    @staticmethod
    def _backward(rows: Tensor, residuals: Tensor) -> Tensor:
        return (rows.T @ residuals.flatten(1)).view(-1, *residuals.shape[1:])


@dataclass(frozen=True)
class Curvature:
    """Second derivatives of the weighted cross-entropies with respect to the logits, in float32.

    Attributes:
        probabilities: Probabilities (N, C - 1, P).
        last: Probability (N, 1, P) of the last class.
        largest: Most probable class (N, 1, P); C - 2 where it is the last class.
        shifted: 0 (N, 1, P) where the most probable class is the last one, else 1.
        weighted: Probabilities multiplied by the weights of the images.
    """

    probabilities: Tensor
    last: Tensor
    largest: Tensor
    shifted: Tensor
    weighted: Tensor

    @staticmethod
    def at(probabilities: Tensor, weights: Tensor) -> Curvature:
        """Prepares products at probabilities (N, C - 1, P), float64, with weights (N, P)."""
        last = 1 - probabilities.sum(dim=1, keepdim=True)
        value, largest = probabilities.max(dim=1, keepdim=True)
        fast = probabilities.float()
        return Curvature(fast, last.float(), largest, (value >= last).float(), fast * weights.float()[:, None])

    def product(self, moved: Tensor) -> Tensor:
        """Returns `weights * (diag(p) - p p^T) @ moved`; changes `moved` (N, C - 1, P) in place.

        The product does not change if a constant is added to all logits of an image. With the most probable class at
        0, no digits are lost where its probability is nearly 1.
        """
        shift = moved.gather(1, self.largest) * self.shifted
        moved -= shift
        moved -= (self.probabilities * moved).sum(dim=1, keepdim=True) - self.last * shift
        return moved.mul_(self.weighted)


def softmax_of_differences(logits: Tensor) -> Tensor:
    """Returns the probabilities (N, C - 1, P) of all classes but the last, whose logit is 0."""
    largest = logits.amax(dim=1, keepdim=True).clamp(min=0)
    exponentials = (logits - largest).clamp(min=MIN_LOGIT).exp()
    return exponentials / (exponentials.sum(dim=1, keepdim=True) + (-largest).clamp(min=MIN_LOGIT).exp())


def dot(first: Tensor, second: Tensor) -> Tensor:
    """Returns the inner products (P,) of solutions (D, C - 1, P)."""
    return (first * second).sum(dim=(0, 1))
