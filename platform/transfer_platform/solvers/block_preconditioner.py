"""Preconditioner for logistic regression: one Cholesky factor per class."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from transfer_platform.solvers.logistic_problems import Problems

COLUMN_BLOCKS = 4
"""Number of column blocks of a Gram matrix; each is computed from the diagonal downward."""
NEGLIGIBLE = 0.2
"""Images with a curvature below this fraction of the mean may be left out of a block, as they contribute little."""


@dataclass(frozen=True)
class BlockPreconditioner:
    """Inverses of the diagonal blocks of the Hessian, one block per class, shared by the problems of a group.

    With more than two classes, the blocks `sum(weights * p * (1 - p) * x x^T) + I` are those of the Hessian for the
    coefficients W of all C classes, not for the C - 1 differences V = R W. They are averaged over a group, and
    `R blocks^-1 R^T` approximates the inverse Hessian of V (an additive Schwarz method). With two classes, the only
    block is the Hessian itself, and a group should contain only problems with nearly the same solution.

    Attributes:
        inverses: Inverses (B, G, D, D) of the B blocks of G groups, float32; B is 1 for two classes, otherwise C.
    """

    inverses: Tensor

    @staticmethod
    def at(problems: Problems, probabilities: Tensor, groups: int) -> BlockPreconditioner:
        """Computes the inverses at a solution.

        Args:
            problems: P problems; the problems of a group are adjacent.
            probabilities: Probabilities (C - 1, P, N) at the solution, float64.
            groups: Number of groups, G; all groups contain the same number of problems.
        """
        if problems.classes > 2:
            probabilities = torch.cat([probabilities, 1 - probabilities.sum(dim=0, keepdim=True)])
        curvature = probabilities * (1 - probabilities) * problems.weights
        curvature = curvature.clamp_(min=0).float()
        curvature = curvature.view(len(curvature), groups, -1, curvature.shape[2]).mean(dim=2)
        inverses: list[Tensor] = []
        for weights, previous in zip(curvature.flatten(0, 1), [None, *curvature.flatten(0, 1)], strict=False):
            equal = previous is not None and torch.allclose(weights, previous, rtol=1e-3)  # if the solver starts at 0
            inverses.append(inverses[-1] if equal else _inverse(problems.rows.fast, weights))
        return BlockPreconditioner(torch.stack(inverses).view(*curvature.shape[:2], *inverses[0].shape))

    def __call__(self, gradient: Tensor) -> Tensor:
        """Returns the approximate product (C - 1, P, D) of the inverse Hessians and a gradient."""
        blocks, groups = self.inverses.shape[:2]
        if blocks > 1:
            gradient = torch.cat([gradient, -gradient.sum(dim=0, keepdim=True)])
        product = gradient.reshape(blocks, groups, -1, gradient.shape[2]) @ self.inverses
        product = product.flatten(1, 2)
        return product[:-1] - product[-1] if blocks > 1 else product


def _inverse(rows: Tensor, curvature: Tensor) -> Tensor:
    """Returns the inverse (D, D) of `sum(curvature * x x^T) + I`, except that the bias is not penalized."""
    used = curvature > NEGLIGIBLE * curvature.mean()
    if used.float().mean() < 0.8:
        rows, curvature = rows[used], curvature[used]
    hessian = _gram(rows * curvature.sqrt()[:, None])
    diagonal = hessian.diagonal()
    diagonal[:-1] += 1
    diagonal += 1e-6 * diagonal.max()
    return torch.cholesky_inverse(torch.linalg.cholesky(hessian))


def _gram(rows: Tensor) -> Tensor:
    """Returns a matrix (D, D) with the lower triangle of `rows.T @ rows`; elements above the diagonal are undefined."""
    size = rows.shape[1]
    if size < 256:
        return rows.T @ rows
    gram, width = rows.new_zeros(size, size), -(-size // COLUMN_BLOCKS)
    for start in range(0, size, width):
        torch.mm(rows[:, start:].T, rows[:, start : start + width], out=gram[start:, start : start + width])
    return gram
