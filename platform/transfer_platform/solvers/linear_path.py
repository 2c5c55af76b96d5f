"""Linear classifiers for all values of one hyperparameter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class LinearPath:
    """Linear classifiers for V values of a hyperparameter and K weightings of the images.

    Attributes:
        weight: Weights (V, K, C, F).
        bias: Biases (V, K, C).
    """

    weight: Tensor
    bias: Tensor

    @staticmethod
    def stacked(solutions: Sequence[tuple[Tensor, Tensor]]) -> LinearPath:
        """Combines the weights (V, C, F) and biases (V, C) of K weightings."""
        weights, biases = zip(*solutions, strict=True)
        return LinearPath(torch.stack(weights, dim=1), torch.stack(biases, dim=1))


def weighted_mean(rows: Tensor, weights: Tensor) -> Tensor:
    """Returns the mean (F,) of the rows (N, F), weighted by `weights` (N,)."""
    return (weights @ rows) / weights.sum()
