"""What a trial learns from: the images themselves, or the features that stand for them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Protocol

import torch
from torch import Tensor

from transfer_model.network import Network
from transfer_model.preprocessing import Preprocessing
from transfer_platform.data.dataset import PictureDataset, batch_count, loader
from transfer_platform.data.splits import Splits
from transfer_platform.features import Features
from transfer_platform.recipe.schema import Recipe

Batch = tuple[Tensor, Tensor]
"""Inputs (B, ...) and class indices (B,)."""


class Material(Protocol):
    """Training and validation batches, and how a network reads them."""

    @property
    def steps_per_epoch(self) -> int:
        """Training batches in an epoch."""

    @property
    def class_counts(self) -> tuple[int, ...]:
        """Training images per class, in class order."""

    def training(self, epoch: int) -> Iterable[Batch]:
        """The training batches of an epoch, counted from 1, in that epoch's order."""

    def validation(self) -> Iterable[Batch]:
        """The validation batches, always the same."""

    def logits(self, network: Network, inputs: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """(B, C) from a batch's inputs, and what auxiliary heads add in training."""


class PictureMaterial:
    """Images, decoded and augmented anew in every epoch.

    Args:
        splits: The pictures.
        recipe: Without ranges.
        preprocessing: Of the backbone.
    """

    def __init__(self, splits: Splits, recipe: Recipe, preprocessing: Preprocessing) -> None:
        augmentation = recipe.dataset.augmentation
        self._train = PictureDataset(splits.train, splits.classes, preprocessing, augmentation)
        self._validation = PictureDataset(splits.validation, splits.classes, preprocessing)
        self._batch_size, self._seed = recipe.training.batch_size, recipe.seed
        self.class_counts = _counts(splits)

    @property
    def steps_per_epoch(self) -> int:
        """Training batches in an epoch."""
        return batch_count(len(self._train), self._batch_size)

    def training(self, epoch: int) -> Iterable[Batch]:
        """Images (B, 3, S, S) and class indices (B,), shuffled by (seed, epoch)."""
        return loader(self._train, self._batch_size, shuffle=True, seed=self._seed, epoch=epoch)

    def validation(self) -> Iterable[Batch]:
        """Images (B, 3, S, S) and class indices (B,), in order."""
        return loader(self._validation, self._batch_size)

    def logits(self, network: Network, inputs: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The whole network on a batch of images."""
        return network.forward_with_auxiliary(inputs)
