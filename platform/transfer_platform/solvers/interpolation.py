"""Local polynomial interpolation of functions of one variable."""

import torch
from torch import Tensor

POINTS = 8
"""Number of nearest nodes that an interpolated value uses; the polynomials have one degree less."""


def interpolation_weights(nodes: Tensor, points: Tensor) -> Tensor:
    """Returns the matrix (P, A) that maps values at A nodes to values at P points.

    Each point uses the polynomial through its nearest nodes, in Lagrange's form. Points outside of the nodes are
    extrapolated.

    Args:
        nodes: Distinct positions (A,), float64.
        points: Positions (P,), float64.
    """
    count = min(POINTS, len(nodes))
    nearest = (points[:, None] - nodes).abs().topk(count, largest=False).indices
    used = nodes[nearest]
    same = torch.eye(count, dtype=torch.bool)
    factors = (points[:, None, None] - used[:, None, :]).masked_fill(same, 1)
    differences = (used[:, :, None] - used[:, None, :]).masked_fill(same, 1)
    weights = nodes.new_zeros(len(points), len(nodes))
    return weights.scatter_(1, nearest, (factors / differences).prod(dim=2))
