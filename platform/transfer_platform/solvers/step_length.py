"""Line search for many convex functions at the same time."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

ACCEPTED_SLOPE = 0.4
"""A step length is accepted if the absolute slope there is at most this fraction of the absolute initial slope."""
MAX_EVALUATIONS = 30


def step_lengths(slope_at: Callable[[Tensor], Tensor], start: Tensor) -> Tensor:
    """Returns step lengths (K,) at which the derivatives of K convex functions are nearly zero.

    Combines bracketing with the secant method, and evaluates only derivatives.

    Args:
        slope_at: Maps step lengths (K,) to derivatives (K,).
        start: Derivatives (K,) at length 0; none of them is positive.
    """
    length = torch.ones_like(start)
    low, low_slope = torch.zeros_like(start), start
    high, high_slope = torch.full_like(start, math.inf), torch.zeros_like(start)
    for _ in range(MAX_EVALUATIONS):
        slope = slope_at(length)
        found = slope.abs() <= ACCEPTED_SLOPE * start.abs()
        if found.all():
            break
        below = slope < 0
        low, low_slope = torch.where(below, length, low), torch.where(below, slope, low_slope)
        high, high_slope = torch.where(below, high, length), torch.where(below, high_slope, slope)
        margin = 0.1 * (high - low)
        secant = low - low_slope * (high - low) / (high_slope - low_slope)
        inside = torch.minimum(torch.maximum(secant, low + margin), high - margin)
        length = torch.where(found, length, torch.where(high.isinf(), 2 * length, inside))
    return length
