"""Newton's method with conjugate gradients for many logistic regressions."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from transfer_platform.solvers.block_preconditioner import BlockPreconditioner
from transfer_platform.solvers.logistic_problems import Curvature, Problems, dot, softmax_of_differences
from transfer_platform.solvers.step_length import step_lengths

TOLERANCE = 1e-5
"""A solution is accepted if the approximate error of its probabilities is at most this value; see `_scale`."""
MAX_STEPS = 100
MAX_PRODUCTS = 150
"""Maximum number of Hessian products per step."""
SLOWER = 2.0
"""The preconditioner is recomputed if a step needs more than this many times the Hessian products per digit of its
first step. For many images and classes, computing it takes about as long as fifty products for five folds."""
FEW_PRODUCTS = 15
"""A step with at most this many Hessian products never causes the preconditioner to be recomputed."""
LARGE_DECREMENT = 1e-2
"""If the Newton decrement divided by max(1, sqrt(C)) is larger than this, a line search sets the step length."""


@dataclass
class Preconditioning:
    """Preconditioner shared by related problems; it is recomputed once conjugate gradients become slow.

    Attributes:
        groups: See `BlockPreconditioner.at`.
        current: The preconditioner; None if it has to be computed.
        rate: Hessian products per digit in the first step with the preconditioner; None before that step.
        underestimation: Largest ratio of a Newton decrement to its estimate by the preconditioner, at least 1. The
            blocks ignore that classes are coupled, so the estimate is too small if there are more than two classes.
    """

    groups: int
    current: BlockPreconditioner | None = None
    rate: float | None = None
    underestimation: float = 1.0

    def at(self, problems: Problems, probabilities: Tensor) -> BlockPreconditioner:
        """Returns the preconditioner, after computing it at the probabilities (C - 1, P, N) if necessary."""
        if self.current is None:
            self.current, self.rate = BlockPreconditioner.at(problems, probabilities, self.groups), None
        return self.current

    def record(self, products: int, rate: float, ratio: float) -> None:
        """Updates `underestimation` with a ratio of decrements; discards the preconditioner if it has become slow."""
        self.underestimation = max(self.underestimation, ratio)
        if self.rate is None:
            self.rate = rate
        elif products > FEW_PRODUCTS and rate > SLOWER * self.rate:
            self.current = None


def minimize(
    problems: Problems, start: Tensor, preconditioning: Preconditioning, tolerance: float = TOLERANCE
) -> Tensor:
    """Returns the solutions (C - 1, P, D) of all problems, in float64.

    Gradients are computed in float64. Newton steps are computed by conjugate gradients in float32
    (Nocedal and Wright, algorithm 7.1). As in iterative refinement, the steps need only a few correct digits.

    Args:
        problems: P problems.
        start: Initial approximation (C - 1, P, D), float64.
        preconditioning: Changed in place.
        tolerance: See `TOLERANCE`.

    Raises:
        ArithmeticError: The solver did not converge.
    """
    solution, scale = start, _scale(problems)
    for _ in range(MAX_STEPS):
        logits = problems.logits(solution)
        probabilities = softmax_of_differences(logits)
        gradient = problems.gradient(solution, probabilities).float()
        preconditioner = preconditioning.at(problems, probabilities)
        decrement = dot(gradient, preconditioner(gradient)).clamp(min=0).sqrt() / scale
        accepted = tolerance / preconditioning.underestimation
        active = decrement > accepted
        if not active.any():
            return solution
        limit = (accepted * scale).float()
        step, products, rate = _newton_step(problems, probabilities, gradient, preconditioner, limit)
        exact = (-dot(gradient, step)).clamp(min=0).sqrt() / scale
        ratio = float((exact / decrement)[active].max())
        step *= active[:, None]
        if (decrement > LARGE_DECREMENT / scale * problems.weights.amax(dim=1).clamp(min=1).sqrt()).any():
            step *= _length(problems, solution, logits, step, gradient)[:, None]
        solution = solution + step
        preconditioning.record(products, rate, ratio)
    raise ArithmeticError(f"logistic regression did not converge in {MAX_STEPS} steps")


def _newton_step(
    problems: Problems, probabilities: Tensor, gradient: Tensor, preconditioner: BlockPreconditioner, limit: Tensor
) -> tuple[Tensor, int, float]:
    """Solves `Hessian @ step = -gradient` by preconditioned conjugate gradients.

    Returns:
        The steps, the number of Hessian products, and the number of products per digit.
    """
    curvature = Curvature.at(probabilities, problems.weights)
    step, residual = torch.zeros_like(gradient), -gradient
    direction = solved = preconditioner(residual)
    size = first = dot(residual, solved)
    enough = torch.maximum(_forcing(size, problems) ** 2 * size, (0.3 * limit) ** 2)
    count = 0
    while count < MAX_PRODUCTS:
        count += 1
        product = problems.curvature_product(direction, curvature)
        length = (size / dot(direction, product)).nan_to_num(0, 0, 0)
        step, residual = step + length[:, None] * direction, residual - length[:, None] * product
        solved = preconditioner(residual)
        previous, size = size, dot(residual, solved)
        if (size <= enough).all():
            break
        direction = solved + (size / previous).nan_to_num(0, 0, 0)[:, None] * direction
    slowest = int((size / enough).argmax())
    digits = float((first[slowest] / size[slowest].clamp(min=1e-30)).log10()) / 2
    return step, count, count / max(digits, 0.1)


def _scale(problems: Problems) -> Tensor:
    """Returns the approximate ratios (P,) of the Newton decrement to the error of the probabilities.

    The Hessian of the weights is at least I, and at least C * p * (1 - p) * x x^T for a training image x of weight 1;
    that of the bias is C * sum(p * (1 - p)). An error of the coefficients with the decrement d therefore changes the
    probability of x by at most about d * min(|x| / 4, 1 / sqrt(4 C)) + d / sqrt(4 C N). The second bound does not hold
    for held-out images, so it is not used for C > 1.
    """
    norm = problems.rows.fast[:, :-1].square().sum(dim=1).mean().item()
    largest, total = problems.weights.amax(dim=1), problems.weights.sum(dim=1)
    return torch.minimum(largest.clamp(min=4 / max(norm, 4), max=1), total).sqrt()


def _forcing(size: Tensor, problems: Problems) -> Tensor:
    """Returns the relative error allowed in a step; it is smaller near the solution, where Newton's model is better."""
    relative = (size.clamp(min=0) / problems.weights.amax(dim=1).clamp(min=1)).sqrt().float()
    return relative.clamp(min=0.01, max=0.2)


def _length(problems: Problems, solution: Tensor, logits: Tensor, step: Tensor, gradient: Tensor) -> Tensor:
    """Returns the step length (P,) of each problem."""
    moved, penalty = problems.logits(step), problems.penalty(step).double()
    linear, quadratic = dot(solution, penalty), dot(step, penalty)
    targets = problems.targets[:-1, None]

    def slope_at(length: Tensor) -> Tensor:
        residuals = softmax_of_differences(logits + moved * length[:, None]) - targets
        return linear + length * quadratic + ((residuals * moved).sum(dim=0) * problems.weights).sum(dim=1)

    return step_lengths(slope_at, dot(gradient, step).double())
