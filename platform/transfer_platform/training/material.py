"""What a trial learns from: the images themselves, or the features that stand for them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Protocol, TypedDict

import torch
from torch import Tensor

from transfer_model.network import Network
from transfer_model.preprocessing import Preprocessing
from transfer_platform.data.augmentation import augmentation
from transfer_platform.data.dataset import PictureDataset, batches, loader
from transfer_platform.data.splits import Splits
from transfer_platform.features import Features
from transfer_platform.recipe.schema import Recipe

Batch = tuple[Tensor, Tensor]
"""Inputs (B, ...) and class indices (B,)."""


class Feeding(TypedDict):
    """Arguments of a loader that depend on the device."""

    workers: int
    pin_memory: bool


class Material(Protocol):
    """Training and validation batches, and how a network reads them."""

    @property
    def steps_per_epoch(self) -> int:
        """Training batches in an epoch."""

    labels: Tensor
    """The class index of every training image (N,)."""

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
        device: Where the batches will go; feeding a GPU takes several processes.
    """

    def __init__(
        self, splits: Splits, recipe: Recipe, preprocessing: Preprocessing, device: torch.device
    ) -> None:
        varied = augmentation(recipe.dataset.augmentation, preprocessing)
        self._train = PictureDataset(splits.train, splits.classes, preprocessing, varied)
        self._validation = PictureDataset(splits.validation, splits.classes, preprocessing)
        self._batch_size, self._seed = recipe.training.batch_size, recipe.seed
        self._feeding = feeding(device)
        self.labels = torch.tensor(self._train.labels)

    @property
    def steps_per_epoch(self) -> int:
        """Training batches in an epoch."""
        return len(batches(len(self._train), self._batch_size, shuffle=True))

    def training(self, epoch: int) -> Iterable[Batch]:
        """Images (B, 3, S, S) and class indices (B,), in an order and augmentation of (seed, epoch)."""
        return loader(
            self._train, self._batch_size, shuffle=True, seed=self._seed, epoch=epoch, **self._feeding
        )

    def validation(self) -> Iterable[Batch]:
        """Images (B, 3, S, S) and class indices (B,), in order."""
        return loader(self._validation, self._batch_size, shuffle=False, **self._feeding)

    def logits(self, network: Network, inputs: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The whole network on a batch of images."""
        return network.forward_with_auxiliary(inputs)


class FeatureMaterial:
    """Features of a backbone that is wholly frozen; the same order of the same pictures.

    Args:
        train: Of the training pictures.
        validation: Of the validation pictures.
        recipe: Without ranges.
    """

    def __init__(self, train: Features, validation: Features, recipe: Recipe) -> None:
        self._train, self._validation = train, validation
        self._batch_size, self._seed = recipe.training.batch_size, recipe.seed
        self.labels = train.labels

    @property
    def steps_per_epoch(self) -> int:
        """Training batches in an epoch."""
        return len(batches(len(self.labels), self._batch_size, shuffle=True))

    def training(self, epoch: int) -> Iterable[Batch]:
        """Features (B, ...) and class indices (B,), in an order of (seed, epoch)."""
        order = batches(len(self.labels), self._batch_size, shuffle=True, seed=self._seed, epoch=epoch)
        return ((self._train.values[batch], self._train.labels[batch]) for batch in order)

    def validation(self) -> Iterable[Batch]:
        """All validation features in one batch."""
        return ((self._validation.values, self._validation.labels),)

    def logits(self, network: Network, inputs: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The head alone on a batch of features."""
        return network.classify(inputs), ()


def feeding(device: torch.device) -> Feeding:
    """How batches reach a device: a CPU decodes between its own steps, a GPU is fed by other processes."""
    if device.type == "cpu":
        return {"workers": 0, "pin_memory": False}
    return {"workers": min(8, os.cpu_count() or 1), "pin_memory": device.type == "cuda"}
