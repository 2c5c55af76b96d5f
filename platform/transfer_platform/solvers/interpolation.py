"""Local polynomial interpolation of functions of one variable."""

import torch
from torch import Tensor

POINTS = 8
"""Number of nearest nodes used to interpolate a value; the degree of the polynomials is one less than this."""


def interpolation_weights(nodes: Tensor, points: Tensor) -> Tensor:
    """Returns the matrix (P, A) that maps values at A nodes to values at P points.

    The value at a point is that of the polynomial through the nearest nodes, in Lagrange form. Outside the range of the
    nodes, values are extrapolated.

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
