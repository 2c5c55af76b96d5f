"""Mini-batches of a trial, with images or precomputed features as inputs.

In any given epoch, both kinds of input are based on the same augmented views.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from transfer_model.network import Network
from transfer_platform.loading.image_loader import ImageLoader
from transfer_platform.loading.sampler import ViewSchedule, batch_indices, repeat_counts
from transfer_platform.partition.split import Partition
from transfer_platform.tensor_store.rows import Rows
from transfer_platform.training.stored_features import from_row_order

Batch = tuple[Tensor, Tensor, Tensor | None]
"""Inputs (B, ...) on the network's device; class indices (B,) and optional image weights (B,) on the CPU."""

EVALUATION_BYTES = 64 << 20
"""Maximum size of an evaluation batch of features, in bytes."""


class InputSource(Protocol):
    """Source of inputs for the trainable part of a network."""

    evaluation_batch: int
    elements: int
    """Number of input elements per image."""

    def load(self, positions: Sequence[int]) -> Tensor:
        """Returns unaugmented inputs (B, ...) for the given images."""

    def load_training(self, positions: Sequence[int], epoch: int, repeats: Sequence[int]) -> Tensor:
        """Returns training inputs (B, ...) for an epoch; epochs are counted from 1.

        `repeats` gives the number of earlier occurrences of each image in the epoch. Each occurrence gets a new view.
        """

    def logits(self, inputs: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Returns logits (B, C) and, in train mode, the logits of auxiliary heads."""


class ImageInputs:
    """Image inputs for a network that is trained as a whole. Evaluation uses the training batch size."""

    def __init__(self, network: Network, images: ImageLoader, views: ViewSchedule, batch_size: int) -> None:
        self._network, self._images, self._views = network, images, views
        self.evaluation_batch = batch_size
        self.elements = 3 * images.preprocessing.image_size**2

    def load(self, positions: Sequence[int]) -> Tensor:
        """Returns images (B, 3, S, S), preprocessed in the same way as for serving."""
        return self._images.load(positions).contiguous(memory_format=torch.channels_last)

    def load_training(self, positions: Sequence[int], epoch: int, repeats: Sequence[int]) -> Tensor:
        """Returns augmented views (B, 3, S, S) for an epoch; see `InputSource`."""
        if not self._views.varies:
            return self.load(positions)
        pairs = zip(positions, repeats, strict=True)
        seeds = [self._views.augmentation_seed(self._images.digests[image], epoch, repeat) for image, repeat in pairs]
        return self._images.load_views(positions, seeds).contiguous(memory_format=torch.channels_last)

    def logits(self, inputs: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Runs the whole network."""
        return self._network.forward_with_auxiliary(inputs)


class FeatureInputs:
    """Features computed by the frozen prefix of a network, used as inputs to its trainable suffix.

    Args:
        original: Features of every unaugmented image, indexed by position.
        augmented: Features of augmented training images, grouped by image; None if there is no augmentation.
        digests: SHA-256 of each image.
    """

    def __init__(
        self,
        partition: Partition,
        original: Rows,
        augmented: Rows | None,
        views: ViewSchedule,
        digests: Sequence[str],
        device: torch.device,
    ) -> None:
        self._partition, self._original, self._augmented = partition, original, augmented
        self._views, self._digests, self._device = views, digests, device
        self.evaluation_batch = max(1, EVALUATION_BYTES // original.spec.row_bytes)
        self.elements = math.prod(original.spec.shape)

    def load(self, positions: Sequence[int]) -> Tensor:
        """Returns unaugmented features (B, ...) for the given images."""
        return self._to_device(self._original.take(positions))

    def load_training(self, positions: Sequence[int], epoch: int, repeats: Sequence[int]) -> Tensor:
        """Returns features (B, ...) of the augmented views for an epoch; see `InputSource`."""
        if self._augmented is None:
            return self.load(positions)
        rows = [
            position * self._views.stored_count + self._views.view_index(self._digests[position], epoch, repeat)
            for position, repeat in zip(positions, repeats, strict=True)
        ]
        return self._to_device(self._augmented.take(rows))

    def logits(self, inputs: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Runs the trainable suffix."""
        return self._partition.logits(inputs)

    def _to_device(self, rows: Tensor) -> Tensor:
        return from_row_order(rows.to(self._device, non_blocking=True))


@dataclass(frozen=True)
class TrialData:
    """Training and validation batches of a trial.

    Attributes:
        labels: Class index of each image (N,).
        train: Positions of the training images.
        validation: Positions of the validation images; may be empty for a refit.
        seed: Seed for sampling and shuffling the training images.
        balanced: Whether to sample the same number of training images from every class in each epoch.
        weights: Weight of each image in the training loss (N,); None for equal weights.
    """

    inputs: InputSource
    labels: Tensor
    train: tuple[int, ...]
    validation: tuple[int, ...]
    batch_size: int
    seed: int
    balanced: bool = False
    weights: Tensor | None = None

    def by_fold(self, folds: Sequence[int]) -> list[TrialData]:
        """Returns trial data for each fold: the fold is used for validation, and all other folds for training.

        Args:
            folds: Fold of each image (N,), from 0.
        """
        return [
            replace(
                self,
                train=tuple(position for position, other in enumerate(folds) if other != fold),
                validation=tuple(position for position, other in enumerate(folds) if other == fold),
            )
            for fold in range(max(folds) + 1)
        ]

    @property
    def steps_per_epoch(self) -> int:
        """Number of training batches per epoch."""
        return len(batch_indices(len(self.train), self.batch_size, shuffle=True))

    def training_batches(self, epoch: int) -> Iterator[Batch]:
        """Yields the training batches of an epoch in order; epochs are counted from 1."""
        classes = self.labels[list(self.train)].tolist() if self.balanced else None
        batches = batch_indices(
            len(self.train), self.batch_size, shuffle=True, seed=self.seed, epoch=epoch, classes=classes
        )
        for indices, repeats in zip(batches, repeat_counts(batches), strict=True):
            positions = [self.train[index] for index in indices]
            weights = None if self.weights is None else self.weights[positions]
            yield self.inputs.load_training(positions, epoch, repeats), self.labels[positions], weights

    def validation_inputs(self) -> Iterator[Tensor]:
        """Yields the inputs (B, ...) for the validation images in a fixed order."""
        for indices in batch_indices(len(self.validation), self.inputs.evaluation_batch, shuffle=False):
            yield self.inputs.load([self.validation[index] for index in indices])
