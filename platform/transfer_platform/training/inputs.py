"""What a network is given in an image's place: the image itself, or what a frozen prefix makes of it.

Both give a trial the same views in the same epochs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from transfer_model.network import Network
from transfer_platform.loading.images import ImageLoader
from transfer_platform.loading.sampler import ViewSchedule
from transfer_platform.partition.split import Partition
from transfer_platform.tensor_store.rows import Rows
from transfer_platform.training.features import from_row_order

EVALUATION_BYTES = 64 << 20
"""Features in a batch that is only evaluated."""


class ImageInputs:
    """The images themselves, through the whole network.

    Args:
        network: That learns.
        images: All of them.
        views: What an epoch sees of them.
        batch_size: Of the training.
    """

    def __init__(self, network: Network, images: ImageLoader, views: ViewSchedule, batch_size: int) -> None:
        self._network, self._images, self._views = network, images, views
        self.evaluation_batch = batch_size
        self.elements = 3 * images.preprocessing.image_size**2

    def load(self, positions: Sequence[int]) -> Tensor:
        """Images (B, 3, S, S), as they are served."""
        return self._images.load(positions).contiguous(memory_format=torch.channels_last)

    def load_training(self, positions: Sequence[int], epoch: int, turns: Sequence[int]) -> Tensor:
        """Images (B, 3, S, S), as the epoch sees them when each has come so many times before."""
        if not self._views.varies:
            return self.load(positions)
        digests = (self._images.records[position].sha256 for position in positions)
        seeds = [
            self._views.augmentation_seed(digest, epoch, turn)
            for digest, turn in zip(digests, turns, strict=True)
        ]
        return self._images.load_views(positions, seeds).contiguous(memory_format=torch.channels_last)

    def logits(self, inputs: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The whole network on a batch of images."""
        return self._network.forward_with_auxiliary(inputs)


class FeatureInputs:
    """What the frozen prefix makes of the images, through the rest of the network.

    Args:
        split: Of the network that learns.
        plain: Features of every image as it is, by position.
        varied: Features of the first images' views, those of one image after those of another; None where
            the views do not vary.
        views: What an epoch sees.
        digests: SHA-256 of every image.
        device: Where the network lives.
    """

    def __init__(
        self,
        split: Partition,
        plain: Rows,
        varied: Rows | None,
        views: ViewSchedule,
        digests: Sequence[str],
        device: torch.device,
    ) -> None:
        self._split, self._plain, self._views, self._varied = split, plain, views, varied
        self._digests, self._device = digests, device
        self.evaluation_batch = max(1, EVALUATION_BYTES // plain.spec.row_bytes)
        self.elements = math.prod(plain.spec.shape)

    def load(self, positions: Sequence[int]) -> Tensor:
        """Features (B, ...) of images as they are served."""
        return self._moved(self._plain.take(positions))

    def load_training(self, positions: Sequence[int], epoch: int, turns: Sequence[int]) -> Tensor:
        """Features (B, ...) of the views that the epoch sees when each has come so many times before."""
        if self._varied is None:
            return self.load(positions)
        rows = [
            position * self._views.stored_count + self._views.view_index(self._digests[position], epoch, turn)
            for position, turn in zip(positions, turns, strict=True)
        ]
        return self._moved(self._varied.take(rows))

    def logits(self, inputs: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The rest of the network on a batch of features."""
        return self._split.logits(inputs)

    def _moved(self, rows: Tensor) -> Tensor:
        return from_row_order(rows.to(self._device, non_blocking=True))
