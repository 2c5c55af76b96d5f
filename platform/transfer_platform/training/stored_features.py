"""Features of a frozen network prefix, stored on disk or computed on every use."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import torch
from torch import Tensor
from torch.nn import functional

from transfer_platform.loading.image_loader import ImageLoader, preprocessing_digest
from transfer_platform.partition.split import Partition
from transfer_platform.progress import Progress, Say, Step, silent
from transfer_platform.tensor_store.rows import Rows
from transfer_platform.tensor_store.segment import RowSpec
from transfer_platform.tensor_store.store import Store
from transfer_platform.training.failures import SMALLER_IMAGES, trial_failures
from transfer_platform.training.hardware import describe_hardware
from transfer_platform.training.precision import autocast

PREFIX_BATCH = 8
"""Images per forward pass. The number is fixed because it affects the least significant bits of most features."""


@dataclass(frozen=True)
class FrozenPrefix:
    """Frozen part of a partitioned network; its inputs are square images with sides of S = `image_size` pixels."""

    partition: Partition
    precision: str
    device: torch.device
    image_size: int

    @cached_property
    def spec(self) -> RowSpec:
        """Shape and dtype of one image's features; runs the prefix once, on first use."""
        rows = to_row_order(self.run(torch.zeros(1, 3, self.image_size, self.image_size, device=self.device)))
        return RowSpec(tuple(rows.shape[1:]), str(rows.dtype).removeprefix("torch."))

    def run(self, images: Tensor) -> Tensor:
        """Returns the features (B, ...) of up to `PREFIX_BATCH` images (B, 3, S, S)."""
        padded = functional.pad(images, (0, 0, 0, 0, 0, 0, 0, PREFIX_BATCH - len(images)))
        padded = padded.contiguous(memory_format=torch.channels_last)
        with trial_failures("frozen layers", SMALLER_IMAGES), autocast(self.device, self.precision):
            return self.partition.features(padded)[: len(images)]

    def address(self, images: ImageLoader) -> str:
        """Returns a SHA-256 hash that identifies the prefix, its settings, the preprocessing and the hardware."""
        preprocessing = preprocessing_digest("features", images.preprocessing)
        hardware = json.dumps([self.device.type, describe_hardware(self.device)])
        parts = (self.partition.digest, self.precision, hardware, str(PREFIX_BATCH), preprocessing)
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def to_row_order(features: Tensor) -> Tensor:
    """Permutes feature maps (B, F, H, W) to their order in memory, (B, H, W, F); returns other tensors unchanged."""
    return features.permute(0, 2, 3, 1) if features.ndim == 4 else features


def from_row_order(rows: Tensor) -> Tensor:
    """Inverts `to_row_order` without copying; the returned feature maps have the memory format `channels_last`."""
    return rows.permute(0, 3, 1, 2) if rows.ndim == 4 else rows


class ComputedFeatures:
    """Features computed each time they are used, bitwise identical to those from `stored_features`.

    Args:
        prefix: Network prefix, always run with the number of PyTorch threads in effect when this object was created.
        positions: Image position of each row.
        view_seeds: Seed of each row's augmented view; None for unaugmented images.
    """

    def __init__(
        self, prefix: FrozenPrefix, images: ImageLoader, positions: Sequence[int], view_seeds: Sequence[int] | None
    ) -> None:
        self._prefix, self._images, self._positions, self._view_seeds = prefix, images, positions, view_seeds
        self._threads = torch.get_num_threads()

    @property
    def spec(self) -> RowSpec:
        """Shape and dtype of each row."""
        return self._prefix.spec

    def __len__(self) -> int:
        return len(self._positions)

    def take(self, indices: Sequence[int] | Tensor) -> Tensor:
        """Returns the selected rows (B, *shape) on the prefix's device."""
        rows = torch.as_tensor(indices).tolist()
        threads = torch.get_num_threads()  # may be 1 because the training step is small
        torch.set_num_threads(self._threads)
        try:
            return torch.cat([*feature_batches(self._prefix, self._images, self._positions, self._view_seeds, rows)])
        finally:
            torch.set_num_threads(threads)


def feature_batches(
    prefix: FrozenPrefix,
    images: ImageLoader,
    positions: Sequence[int],
    view_seeds: Sequence[int] | None,
    rows: Sequence[int],
) -> Iterator[Tensor]:
    """Yields the features of the given rows, `PREFIX_BATCH` at a time; see `ComputedFeatures` for the arguments."""
    for start in range(0, len(rows), PREFIX_BATCH):
        batch = rows[start : start + PREFIX_BATCH]
        batch_positions = [positions[row] for row in batch]
        if view_seeds is None:
            pixels = images.load(batch_positions)
        else:
            pixels = images.load_views(batch_positions, [view_seeds[row] for row in batch])
        yield to_row_order(prefix.run(pixels))


def stored_features(
    prefix: FrozenPrefix,
    images: ImageLoader,
    positions: Sequence[int],
    view_seeds: Sequence[int] | None,
    store: Store,
    progress: Progress = silent,
    say: Say = silent,
) -> Rows:
    """Returns features from the store, after computing and storing any that are missing.

    See `ComputedFeatures` for the first four arguments. `say` is called if this function waits for another process.

    Raises:
        StoreError: There is not enough space for the features, or the store is not writable.
    """
    task = "extracting features" if view_seeds is None else "extracting features of views"

    def compute(missing: Sequence[int]) -> Iterator[Tensor]:
        done = 0
        for features in feature_batches(prefix, images, positions, view_seeds, missing):
            yield features.cpu()
            done += len(features)
            progress(Step(task, done, len(missing), "images"))

    keys = [images.digests[position] for position in positions]
    if view_seeds is not None:
        keys = [f"{key}-{images.view_digest}-{seed:x}" for key, seed in zip(keys, view_seeds, strict=True)]
    waiting = partial(say, "waiting for another process that is computing features with the same network")
    return store.get_or_compute(prefix.address(images), prefix.spec, keys, compute, waiting)
