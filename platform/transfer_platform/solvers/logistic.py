"""Logistic regression for a whole path of penalties and all folds."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from transfer_platform.solvers.linear_path import LinearPath, weighted_mean
from transfer_platform.solvers.step_length import step_lengths

TOLERANCE = 1e-5
"""A solution is accepted if its Newton decrement is at most `TOLERANCE * sqrt(max(1, C))`.

The Hessian is at least C * p * (1 - p) * x x^T for every training image x of weight 1, so the decrement divided by
2 * sqrt(C) bounds the error of the image's probability near the solution.
"""
MAX_ITERATIONS = 500
MEMORY = 12
"""Number of past steps that L-BFGS uses."""
MIN_LOGIT = -60.0
"""Smallest logit relative to the largest; smaller ones would give denormal probabilities, which are slow."""


def logistic_path(features: Tensor, targets: Tensor, weights: Tensor, values: Sequence[float]) -> LinearPath:
    """Returns logistic regressions for each C and each weighting, computed in float64.

    Minimizes `|W|^2 / 2 + C * sum(weights * cross_entropy)` with unpenalized biases, like scikit-learn's
    `LogisticRegression`. With two classes, W is a single vector there; the two rows returned here are -W / 2 and W / 2.
    Each value starts from the solution of the next smaller value. All weightings are solved at the same time, by L-BFGS
    with the Cholesky factor of their mean Hessian as preconditioner.

    Args:
        features: Features (N, F).
        targets: Class probabilities (N, C).
        weights: Weights of the images (K, N); one row for each fold.
        values: V positive values of C.

    Raises:
        ArithmeticError: A solution did not converge.
    """
    classes, (rows, mean, rotation) = targets.shape[1], _reduced_rows(features.double(), weights.double())
    # scikit-learn penalizes the single vector of a binary problem, whose squared norm is twice that of two rows.
    penalties = torch.as_tensor(values, dtype=torch.float64) / (2 if classes == 2 else 1)
    basis = _sum_zero_basis(classes).to(rows)
    reduced = rows.new_zeros(rows.shape[1], classes - 1, len(weights))
    solutions: dict[int, Tensor] = {}
    for index in penalties.argsort().tolist():
        reduced = _minimize(_Problems(rows, targets.double(), weights.double().T * penalties[index], basis), reduced)
        solutions[index] = torch.einsum("cd,fdk->kcf", basis, reduced)
    coefficients = torch.stack([solutions[index] for index in range(len(values))])
    weight = coefficients[..., :-1] @ rotation.T
    return LinearPath(weight, coefficients[..., -1] - weight @ mean)


def _reduced_rows(features: Tensor, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Returns centered features with a column of ones (N, R + 1), the mean (F,) and a rotation (F, R); R = min(N, F).

    The solution lies in the span of the images, so fewer images than features need no more columns than images.
    """
    mean = weighted_mean(features, weights.sum(dim=0))
    rows, rotation = features - mean, torch.eye(features.shape[1]).to(features)
    if len(rows) < rows.shape[1]:
        rotation, triangle = torch.linalg.qr(rows.T)
        rows = triangle.T
    return torch.cat([rows, rows.new_ones(len(rows), 1)], dim=1), mean, rotation


def _sum_zero_basis(classes: int) -> Tensor:
    """Returns an orthonormal basis (C, C - 1) of the vectors whose entries sum to zero; other logits are redundant."""
    basis = torch.zeros(classes, classes - 1, dtype=torch.float64)
    for column in range(classes - 1):
        basis[: column + 1, column] = -1
        basis[column + 1, column] = column + 1
    normalized: Tensor = basis / basis.norm(dim=0)
    return normalized


@dataclass(frozen=True)
class _Problems:
    """K problems with the same images; solutions have the shape (F + 1, C - 1, K).

    Attributes:
        rows: Features and a column of ones (N, F + 1).
        targets: Class probabilities (N, C).
        weights: Weights of the images (N, K), multiplied by the penalty C.
        basis: See `_sum_zero_basis`.
    """

    rows: Tensor
    targets: Tensor
    weights: Tensor
    basis: Tensor

    def logits(self, solution: Tensor) -> Tensor:
        """Returns the logits (N, C, K) of all problems."""
        features, directions, problems = solution.shape
        return self.basis @ (self.rows @ solution.reshape(features, -1)).view(-1, directions, problems)

    def gradient(self, solution: Tensor, probabilities: Tensor) -> Tensor:
        """Returns the gradient of all objectives, with the shape of a solution."""
        residuals = self.basis.T @ ((probabilities - self.targets[:, :, None]) * self.weights[:, None])
        gradient = (self.rows.T @ residuals.flatten(1)).view_as(solution)
        gradient[:-1] += solution[:-1]
        return gradient

    def preconditioner(self, probabilities: Tensor) -> Tensor:
        """Returns the Cholesky factor (F + 1, F + 1) of the Hessian, averaged over problems and directions of logits.

        For one problem with two classes, this is the exact Hessian.
        """
        curvature = (1 - probabilities.square().sum(dim=1)) / self.basis.shape[1]
        scaled = self.rows * (curvature * self.weights).mean(dim=1).sqrt()[:, None]
        hessian = scaled.T @ scaled
        hessian.diagonal()[:-1] += 1
        hessian.diagonal()[-1] += 1e-6
        factor: Tensor = torch.linalg.cholesky(hessian)
        return factor


def _minimize(problems: _Problems, solution: Tensor) -> Tensor:
    logits = problems.logits(solution)
    probabilities = _softmax(logits)
    gradient, factor = problems.gradient(solution, probabilities), problems.preconditioner(probabilities)
    limit = TOLERANCE**2 * problems.weights.amax(dim=0).clamp(min=1)
    history: list[tuple[Tensor, Tensor]] = []
    for _ in range(MAX_ITERATIONS):
        direction = _direction(factor, gradient, history)
        slope = _dot(gradient, direction)
        active = -slope > limit
        if not active.any():
            return solution
        direction = direction * active
        moved = problems.logits(direction)
        square = _dot(direction[:-1], direction[:-1])
        constant = slope - _slope_of_loss(problems, probabilities, moved)

        def slope_at(
            length: Tensor,
            logits: Tensor = logits,
            moved: Tensor = moved,
            constant: Tensor = constant,
            square: Tensor = square,
        ) -> Tensor:
            return constant + length * square + _slope_of_loss(problems, _softmax(logits + moved * length), moved)

        length = step_lengths(slope_at, slope * active)
        solution, logits = solution + direction * length, logits + moved * length
        probabilities, previous = _softmax(logits), gradient
        gradient = problems.gradient(solution, probabilities)
        history = [*history, (direction * length, gradient - previous)][-MEMORY:]
    raise ArithmeticError(f"logistic regression did not converge in {MAX_ITERATIONS} iterations")


def _slope_of_loss(problems: _Problems, probabilities: Tensor, moved: Tensor) -> Tensor:
    """Returns the derivative (K,) of the weighted log partition function when the logits change by `moved`."""
    return ((probabilities * moved).sum(dim=1) * problems.weights).sum(dim=0)


def _direction(factor: Tensor, gradient: Tensor, history: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """Returns the L-BFGS direction of each problem (two-loop recursion; Nocedal and Wright, algorithm 7.4)."""
    direction, used = -gradient, []
    for step, change in reversed(history):
        curvature = _dot(step, change)
        scale = torch.where(curvature > 0, 1 / curvature, 0)
        share = scale * _dot(step, direction)
        direction = direction - share * change
        used.append((step, change, scale, share))
    direction = torch.cholesky_solve(direction.flatten(1), factor).view_as(direction)
    for step, change, scale, share in reversed(used):
        direction = direction + step * (share - scale * _dot(change, direction))
    return direction


def _dot(first: Tensor, second: Tensor) -> Tensor:
    return (first * second).sum(dim=(0, 1))


def _softmax(logits: Tensor) -> Tensor:
    exponentials = (logits - logits.amax(dim=1, keepdim=True)).clamp(min=MIN_LOGIT).exp()
    return exponentials / exponentials.sum(dim=1, keepdim=True)
