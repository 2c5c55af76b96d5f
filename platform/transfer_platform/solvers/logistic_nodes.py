"""Solutions for selected values of C, from which all others are interpolated."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from transfer_platform.solvers.interpolation import interpolation_weights
from transfer_platform.solvers.logistic_problems import CenteredRows, Problems, softmax_of_differences
from transfer_platform.solvers.newton import Preconditioning, minimize

TOLERANCE = 3e-5
"""Tolerance for the solutions; see `newton.TOLERANCE`."""
SPACING = 0.7
"""Maximum distance in log C between two adjacent nodes of the initial grid."""
EXTRAPOLATED = 5
"""Maximum number of previously solved nodes used to extrapolate the starting point for the next node."""
ACCEPTED_ERROR = 5e-4
"""The halves of an interval are not divided further if the error of interpolation at its middle is smaller than this.

With this value, probabilities interpolated for 500 values of C had errors below 1e-4 on CIFAR-10 and photographs.
"""
CHUNK_ELEMENTS = 2_000_000
"""Maximum number of logits computed at the same time, counting all images, folds and values of C."""
MAX_CHUNK = 4
"""Maximum number of values of C solved at the same time; it is small because these values share a preconditioner."""


@dataclass(frozen=True)
class Nodes:
    """Values of C for which the problem was solved, and the solutions.

    Attributes:
        positions: Logarithms (A,) of the values, in ascending order.
        solutions: Solutions (A, C - 1, K, D) for K folds.
        logits: Logits (A, C - 1, H) of the held-out images, computed from the solutions for their folds, float32.
    """

    positions: Tensor
    solutions: Tensor
    logits: Tensor

    def merged(self, other: Nodes) -> Nodes:
        """Returns the nodes of both objects, in ascending order."""
        positions, order = torch.cat([self.positions, other.positions]).sort()
        solutions, logits = torch.cat([self.solutions, other.solutions]), torch.cat([self.logits, other.logits])
        return Nodes(positions, solutions[order], logits[order])


@dataclass(frozen=True)
class _Folds:
    """Arguments of `solve_nodes`, except for `positions`."""

    rows: CenteredRows
    targets: Tensor
    weights: Tensor
    folds: Tensor

    def solve(self, positions: Tensor, starts: Tensor, preconditioning: Preconditioning) -> Nodes:
        """Solves all folds for the values exp(positions) (A,) of C, starting from approximations (A, C - 1, K, D)."""
        count, folds = len(positions), len(self.weights)
        weights = (self.weights[:, None] * positions.exp()[:, None]).flatten(0, 1)  # problems (K, A)
        start = starts.permute(1, 2, 0, 3).flatten(1, 2)
        solution = minimize(Problems(self.rows, self.targets.T, weights), start, preconditioning, TOLERANCE)
        solutions = solution.view(len(solution), folds, count, -1).permute(2, 0, 1, 3)
        return Nodes(positions, solutions, self.held_out_logits(solutions))

    def preconditioning(self) -> Preconditioning:
        """Returns an empty preconditioner with one group per fold if there are two classes, and one group otherwise."""
        return Preconditioning(len(self.weights) if self.targets.shape[1] == 2 else 1)

    def held_out_logits(self, solutions: Tensor) -> Tensor:
        """Returns the logits (A, C - 1, H) of the held-out images."""
        logits = solutions.new_empty(*solutions.shape[:2], len(self.folds), dtype=torch.float32)
        for fold in range(len(self.weights)):
            inside = self.folds == fold
            logits[:, :, inside] = solutions[:, :, fold].float() @ self.rows.fast[inside].T
        return logits[:, :, self.folds >= 0]


def solve_nodes(rows: CenteredRows, targets: Tensor, weights: Tensor, positions: Tensor, folds: Tensor) -> Nodes:
    """Solves the problem for enough values of C to interpolate between them.

    The first nodes are equidistant in log C and are solved in ascending order. Next, the middle of each interval is
    solved, starting from interpolated coefficients. The interval is divided further if interpolated probabilities of
    held-out images are wrong by more than `ACCEPTED_ERROR` at its middle.

    Args:
        rows: Rows of all images.
        targets: Class probabilities (N, C).
        weights: Weights (K, N) of the images for each fold's training set.
        positions: Logarithms (V,) of the required values of C. If there are only a few, they are the nodes.
        folds: Fold (N,) of each image.
    """
    problem = _Folds(rows, targets, weights, folds)
    low, high = float(positions.min()), float(positions.max())
    count = max(2, int((high - low) / SPACING) + 2)
    if len(positions) <= count:
        return _solve_in_order(problem, torch.unique(positions))
    nodes = _solve_in_order(problem, torch.linspace(low, high, count, dtype=torch.float64))
    lefts = nodes.positions[:-1]
    width = float(nodes.positions[1] - nodes.positions[0])
    while len(lefts):
        width /= 2
        solved, wrong = _solve_middles(problem, nodes, lefts + width)
        nodes, divided = nodes.merged(solved), lefts[wrong]
        lefts = torch.cat([divided, divided + width]).sort().values
    return nodes


def _solve_in_order(problem: _Folds, positions: Tensor) -> Nodes:
    shape = (1, problem.targets.shape[1] - 1, len(problem.weights), problem.rows.exact.shape[1])
    preconditioning = problem.preconditioning()
    nodes = problem.solve(positions[:1], torch.zeros(shape, dtype=torch.float64), preconditioning)
    for index in range(1, len(positions)):
        used = slice(max(0, index - EXTRAPOLATED), index)
        weights = interpolation_weights(positions[used], positions[index : index + 1])
        start = torch.einsum("pa,ackd->pckd", weights, nodes.solutions[used])
        nodes = nodes.merged(problem.solve(positions[index : index + 1], start, preconditioning))
    return nodes


def _solve_middles(problem: _Folds, nodes: Nodes, middles: Tensor) -> tuple[Nodes, Tensor]:
    """Returns the nodes at the middles of intervals, and a mask of those where interpolation is too inaccurate."""
    weights = interpolation_weights(nodes.positions, middles)
    chunk, preconditioning = _chunk(problem), problem.preconditioning()
    solved = Nodes(middles[:0], nodes.solutions[:0], nodes.logits[:0])
    for some, row in zip(torch.split(middles, chunk), torch.split(weights, chunk), strict=True):
        start = torch.einsum("pa,ackd->pckd", row, nodes.solutions)
        solved = solved.merged(problem.solve(some, start, preconditioning))
    interpolated = (weights.float() @ nodes.logits.flatten(1)).view_as(solved.logits)
    difference = _probabilities(interpolated) - _probabilities(solved.logits)
    return solved, difference.abs().amax(dim=(0, 2)) > ACCEPTED_ERROR


def _probabilities(logits: Tensor) -> Tensor:
    return softmax_of_differences(logits.transpose(0, 1))


def _chunk(problem: _Folds) -> int:
    """Returns the number of values of C to solve at the same time."""
    size = len(problem.weights) * (problem.targets.shape[1] - 1) * len(problem.folds)
    return min(MAX_CHUNK, max(1, CHUNK_ELEMENTS // size))
