"""Out-of-fold predictions of logistic regression as functions of the penalty."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from transfer_platform.solvers.interpolation import interpolation_weights
from transfer_platform.solvers.logistic_nodes import solve_nodes
from transfer_platform.solvers.logistic_problems import CenteredRows

CHUNK_ELEMENTS = 20_000_000
"""Maximum number of logits that `metrics` computes at the same time."""


@dataclass(frozen=True)
class OutOfFoldPath:
    """Logits of held-out images for V values of C.

    Attributes:
        values: Values (V,) of C, in the order in which they were passed.
        held_out: Indices (H,) of the images that are in a fold, in ascending order.
        nodes: Logarithms (A,) of the values of C for which the problem was solved, in ascending order.
        node_logits: Logits (A, C - 1, H) of the held-out images at the nodes, relative to the last class, float32.
    """

    values: Tensor
    held_out: Tensor
    nodes: Tensor
    node_logits: Tensor

    def logits(self, index: int) -> Tensor:
        """Returns the logits (H, C) of the held-out images for one value of C; the logit of the last class is 0."""
        logits = self._differences(slice(index, index + 1))[0].T
        return torch.cat([logits, torch.zeros_like(logits[:, :1])], dim=1)

    def metrics(self, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the mean cross-entropy (V,) and the accuracy (V,) of the held-out images for each value of C.

        Args:
            targets: Class probabilities (N, C); the accuracy uses the most probable class.
        """
        held_out = targets[self.held_out].float().T
        chunk = max(1, CHUNK_ELEMENTS // self.node_logits[0].numel())
        parts = [
            _metrics(self._differences(slice(start, start + chunk)), held_out)
            for start in range(0, len(self.values), chunk)
        ]
        losses, accuracies = zip(*parts, strict=True)
        return torch.cat(losses), torch.cat(accuracies)

    def _differences(self, chosen: slice) -> Tensor:
        weights = interpolation_weights(self.nodes, self.values[chosen].log()).float()
        return (weights @ self.node_logits.flatten(1)).view(-1, *self.node_logits.shape[1:])


def out_of_fold_path(
    features: Tensor, targets: Tensor, folds: Tensor, values: Sequence[float], weights: Tensor | None = None
) -> OutOfFoldPath:
    """Predicts each held-out image by a logistic regression fitted without the image's fold, for each value of C.

    The objective is that of `logistic_path`. Because solutions are smooth functions of log C, the problem is solved
    for only some values of C, and the logits for all others are interpolated; see `solve_nodes`. Probabilities differ
    from those of the exact solutions by less than 1e-4.

    Args:
        features: Features (N, F).
        targets: Class probabilities (N, C).
        folds: Fold (N,) of each image, counted from 0; -1 for images that are in all training sets.
        values: V positive values of C.
        weights: Weights (N,) of the images, or weights (K, N) for each fold's training set. All are 1 by default.

    Raises:
        ArithmeticError: The solver did not converge.
    """
    count = int(folds.max()) + 1
    given = torch.ones(len(features)) if weights is None else weights
    training = given.double().expand(count, -1) * (folds != torch.arange(count)[:, None])
    penalties = torch.as_tensor(values, dtype=torch.float64)
    held_out = torch.nonzero(folds >= 0)[:, 0]
    nodes = solve_nodes(
        CenteredRows.of(features, training.sum(dim=0)), targets.double(), training, penalties.log(), folds
    )
    return OutOfFoldPath(penalties, held_out, nodes.positions, nodes.logits)


def _metrics(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the losses (V,) and accuracies (V,) of logits (V, C - 1, H) and targets (C, H)."""
    largest, predicted = logits.max(dim=1)
    correct = torch.where(largest > 0, predicted, logits.shape[1]) == targets.argmax(dim=0)
    largest = largest.clamp(min=0)
    total = (logits - largest[:, None]).exp_().sum(dim=1) + (-largest).exp()
    losses = total.log() + largest - (logits * targets[:-1]).sum(dim=1)
    return losses.double().mean(dim=1), correct.double().mean(dim=1)
