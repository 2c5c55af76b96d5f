"""Newton's method with preconditioned conjugate gradients for many logistic regressions."""

from __future__ import annotations

import torch
from torch import Tensor

from transfer_platform.solvers.block_preconditioner import BlockPreconditioner
from transfer_platform.solvers.logistic_problems import Problems, dot, softmax_of_differences
from transfer_platform.solvers.step_length import step_lengths

TOLERANCE = 1e-5
"""A solution is accepted if its Newton decrement is at most `TOLERANCE * sqrt(max(1, C))`.

The Hessian is at least C * p * (1 - p) * x x^T for every training image x of weight 1, so the decrement divided by
2 * sqrt(C) bounds the error of the image's probability near the solution.
"""
MAX_STEPS = 100
MAX_PRODUCTS = 150
"""Largest number of Hessian products per step."""
REFRESH = 25
"""The preconditioner is computed again after a step that took this many Hessian products."""
LARGE_DECREMENT = 1e-2
"""The step length is searched if the decrement divided by the square root of max(1, C) is larger."""


def minimize(problems: Problems, start: Tensor, groups: int = 1) -> Tensor:
    """Returns the solutions (D, C - 1, P) of all problems, in float64.

    Gradients are computed in float64. Newton steps are computed by conjugate gradients in float32, which is an
    iterative refinement: the steps need only a few digits (Nocedal and Wright, algorithm 7.1).

    Args:
        problems: P problems.
        start: First approximation (D, C - 1, P), float64.
        groups: See `BlockPreconditioner.at`.

    Raises:
        ArithmeticError: A solution did not converge.
    """
    solution, preconditioner = start, None
    limit = TOLERANCE * problems.weights.amax(dim=0).clamp(min=1).sqrt()
    for _ in range(MAX_STEPS):
        logits = problems.logits(solution)
        probabilities = softmax_of_differences(logits)
        gradient = problems.gradient(solution, probabilities).float()
        fast = probabilities.float()
        if preconditioner is None:
            preconditioner = BlockPreconditioner.at(problems, fast, groups)
        decrement = dot(gradient, preconditioner(gradient)).clamp(min=0).sqrt()
        if (decrement <= limit).all():
            return solution
        step, products = _newton_step(problems, fast, gradient, preconditioner, limit)
        step *= decrement > limit
        if (decrement > limit / TOLERANCE * LARGE_DECREMENT).any():
            step *= _length(problems, solution.float(), logits.float(), step, gradient)
        solution = solution + step
        preconditioner = preconditioner if products < REFRESH else None
    raise ArithmeticError(f"logistic regression did not converge in {MAX_STEPS} steps")


def _newton_step(
    problems: Problems, probabilities: Tensor, gradient: Tensor, preconditioner: BlockPreconditioner, limit: Tensor
) -> tuple[Tensor, int]:
    """Solves `Hessian @ step = -gradient` approximately; returns the steps and the number of Hessian products."""
    weighted = probabilities * problems.weights.float()[:, None]
    step, residual = torch.zeros_like(gradient), -gradient
    direction = solved = preconditioner(residual)
    size = dot(residual, solved)
    enough = torch.maximum(_forcing(size, limit) ** 2 * size, (0.3 * limit) ** 2)
    for count in range(1, MAX_PRODUCTS + 1):
        product = problems.curvature_product(direction, probabilities, weighted)
        length = (size / dot(direction, product)).nan_to_num(0, 0, 0)
        step, residual = step + length * direction, residual - length * product
        solved = preconditioner(residual)
        previous, size = size, dot(residual, solved)
        if (size <= enough).all():
            break
        direction = solved + (size / previous).nan_to_num(0, 0, 0) * direction
    return step, count


def _forcing(size: Tensor, limit: Tensor) -> Tensor:
    """Returns the relative accuracy of a step: the closer the solution, the more exact is Newton's model."""
    relative = size.clamp(min=0).sqrt() / (limit / TOLERANCE)
    return relative.clamp(min=0.01, max=0.2)


def _length(problems: Problems, solution: Tensor, logits: Tensor, step: Tensor, gradient: Tensor) -> Tensor:
    """Returns the step length (P,) of each problem."""
    moved, weights = problems.logits(step), problems.weights.float()
    penalty = problems.penalty(step)
    quadratic = dot(step, penalty)
    targets = problems.targets[:, :-1, None].float()
    linear = dot(solution, penalty) - ((targets * moved).sum(dim=1) * weights).sum(dim=0)

    def slope_at(length: Tensor) -> Tensor:
        probabilities = softmax_of_differences(logits + moved * length)
        return linear + length * quadratic + ((probabilities * moved).sum(dim=1) * weights).sum(dim=0)

    return step_lengths(slope_at, dot(gradient, step))
