"""What a trial learns from: which images teach, which choose, and in what batches a network reads them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from transfer_platform.loading.sampler import batch_indices, repeat_counts

Batch = tuple[Tensor, Tensor, Tensor | None]
"""Inputs (B, ...) on the network's device; class indices (B,) and weights (B,), if any, on the CPU."""


class InputSource(Protocol):
    """What a network is given in an image's place: the image, or what a frozen prefix made of it."""

    evaluation_batch: int
    """Images in a batch that is only evaluated."""
    elements: int
    """Numbers that stand for one image."""

    def load(self, positions: Sequence[int]) -> Tensor:
        """Images as they are served, by their positions: (B, ...)."""

    def load_training(self, positions: Sequence[int], epoch: int, turns: Sequence[int]) -> Tensor:
        """Training images as an epoch sees them, counted from 1: (B, ...).

        Args:
            positions: Of B images.
            epoch: Counted from 1.
            turns: How often each came before in the epoch; it is another view each time.
        """

    def logits(self, inputs: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """(B, C) from a batch of inputs, and what auxiliary heads add in training."""


@dataclass(frozen=True)
class TrialData:
    """Training and validation batches over the same inputs.

    Attributes:
        inputs: Of all images.
        labels: The class index of every image (N,).
        train: Positions of those that teach.
        validation: Positions of those that choose; empty for a fit that nothing chooses in.
        batch_size: Images in a training batch.
        seed: Of their order.
        balanced: Whether an epoch draws of every class the same number of training images.
        weights: How much each image counts in the training loss (N,); None: all of them the same.
    """

    inputs: InputSource
    labels: Tensor
    train: tuple[int, ...]
    validation: tuple[int, ...]
    batch_size: int
    seed: int
    balanced: bool = False
    weights: Tensor | None = None

    @property
    def steps_per_epoch(self) -> int:
        """Training batches in an epoch."""
        return len(batch_indices(len(self.train), self.batch_size, shuffle=True))

    def training_batches(self, epoch: int) -> Iterator[Batch]:
        """The training batches of an epoch, counted from 1, in that epoch's order."""
        classes = self.labels[list(self.train)].tolist() if self.balanced else None
        cut = batch_indices(
            len(self.train), self.batch_size, shuffle=True, seed=self.seed, epoch=epoch, classes=classes
        )
        for order, turn in zip(cut, repeat_counts(cut), strict=True):
            positions = [self.train[index] for index in order]
            weights = None if self.weights is None else self.weights[positions]
            yield self.inputs.load_training(positions, epoch, turn), self.labels[positions], weights

    def validation_inputs(self) -> Iterator[Tensor]:
        """The inputs (B, ...) of the validation images, always in the same batches."""
        for order in batch_indices(len(self.validation), self.inputs.evaluation_batch, shuffle=False):
            yield self.inputs.load([self.validation[index] for index in order])
