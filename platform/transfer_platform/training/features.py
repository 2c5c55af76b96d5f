"""What the frozen prefix of a network makes of the images: computed once, and learnt from again and again.

images or views of them --prefix, in batches of one size--> features --store--> rows, by position
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from transfer_platform.loading.images import ImageLoader, preprocessing_digest
from transfer_platform.progress import Progress, Say, Step, silent
from transfer_platform.tensor_store.rows import Rows
from transfer_platform.tensor_store.segment import RowSpec
from transfer_platform.tensor_store.store import Store

PREFIX_BATCH = 8
"""Images in a forward pass. One size for all: on most networks the last bits depend on it."""


class Split(Protocol):
    """What is needed of a `network.splitting.Split`."""

    @property
    def digest(self) -> str:
        """SHA-256 of the prefix: its operations and its weights."""

    def features(self, images: Tensor) -> Tensor:
        """Images (B, 3, S, S) -> features (B, ...)."""


@dataclass(frozen=True)
class FrozenPrefix:
    """A frozen prefix in the arithmetic that it runs in.

    Attributes:
        split: Of the network.
        precision: `float32`, `bfloat16` or `float16`.
        device: Where the network lives.
        image_size: S, in pixels.
    """

    split: Split
    precision: str
    device: torch.device
    image_size: int

    @cached_property
    def layout(self) -> RowSpec:
        """Of one image's features as they are stored; found by running the prefix once."""
        rows = to_row_order(self.run(torch.zeros(1, 3, self.image_size, self.image_size, device=self.device)))
        return RowSpec(tuple(rows.shape[1:]), str(rows.dtype).removeprefix("torch."))

    def run(self, images: Tensor) -> Tensor:
        """Features (B, ...) of at most `PREFIX_BATCH` images (B, 3, S, S)."""
        padded = functional.pad(images, (0, 0, 0, 0, 0, 0, 0, PREFIX_BATCH - len(images)))
        padded = padded.contiguous(memory_format=torch.channels_last)
        lower = self.precision != "float32"
        with torch.autocast(self.device.type, getattr(torch, self.precision), enabled=lower):
            return self.split.features(padded)[: len(images)]

    def address(self, images: ImageLoader) -> str:
        """SHA-256 of all that features depend on besides the images and their views."""
        depends = (
            self.split.digest,
            self.precision,
            self.device.type,
            str(PREFIX_BATCH),
            preprocessing_digest("features", images.preprocessing),
        )
        return hashlib.sha256("\0".join(depends).encode()).hexdigest()


def to_row_order(features: Tensor) -> Tensor:
    """Maps (B, F, H, W) as (B, H, W, F), the order in which they lie in memory; all else as it is."""
    return features.permute(0, 2, 3, 1) if features.ndim == 4 else features


def from_row_order(rows: Tensor) -> Tensor:
    """The inverse of `stored`; nothing is copied, and maps are `channels_last`."""
    return rows.permute(0, 3, 1, 2) if rows.ndim == 4 else rows


class ComputedFeatures:
    """Features that are computed each time they are asked for: to the bit what `obtain` would have stored.

    Args:
        prefix: Runs with as many threads as torch has now.
        images: The images.
        positions: Whose features, one row each.
        views: As of `obtain`.
    """

    def __init__(
        self, prefix: FrozenPrefix, images: ImageLoader, positions: Sequence[int], views: Sequence[int] | None
    ) -> None:
        self._prefix, self._images, self._positions, self._views = prefix, images, positions, views
        self._threads = torch.get_num_threads()

    @property
    def spec(self) -> RowSpec:
        """Shape and type of each row."""
        return self._prefix.layout

    def __len__(self) -> int:
        return len(self._positions)

    def take(self, indices: Sequence[int] | Tensor) -> Tensor:
        """Some rows (B, *shape), on the prefix's device."""
        rows = torch.as_tensor(indices).tolist()
        threads = torch.get_num_threads()  # few, where what follows is a small step
        torch.set_num_threads(self._threads)
        try:
            return torch.cat(
                [*feature_batches(self._prefix, self._images, self._positions, self._views, rows)]
            )
        finally:
            torch.set_num_threads(threads)


def feature_batches(
    prefix: FrozenPrefix,
    images: ImageLoader,
    positions: Sequence[int],
    views: Sequence[int] | None,
    rows: Sequence[int],
) -> Iterator[Tensor]:
    """The features of some rows, computed `PREFIX_BATCH` at a time; arguments as of `obtain`."""
    for start in range(0, len(rows), PREFIX_BATCH):
        batch = rows[start : start + PREFIX_BATCH]
        chosen = [positions[row] for row in batch]
        seen = (
            images.load(chosen) if views is None else images.load_views(chosen, [views[row] for row in batch])
        )
        yield to_row_order(prefix.run(seen))


def stored_features(
    prefix: FrozenPrefix,
    images: ImageLoader,
    positions: Sequence[int],
    views: Sequence[int] | None,
    store: Store,
    progress: Progress = silent,
    say: Say = silent,
) -> Rows:
    """The features of images or of views of them, from the store or computed into it.

    Args:
        prefix: Runs where features are missing.
        images: The images.
        positions: Whose features, one row each.
        views: For each row the seed of its view; None: all of the images as they are.
        store: Where they are kept.
        progress: Told while features are computed.
        say: Told where another process is computing them just now.

    Raises:
        StoreError: There is no room for them, or the store cannot be written to.
    """
    task = "the frozen part, once" if views is None else "the frozen part on augmented views, once"

    def compute(missing: Sequence[int]) -> Iterator[Tensor]:
        done = 0
        for features in feature_batches(prefix, images, positions, views, missing):
            yield features.cpu()
            done += len(features)
            progress(Step(task, done, len(missing), "images"))

    def waiting() -> None:
        say("another process computes the same features just now; waiting for it")

    keys = [images.digests[position] for position in positions]
    if views is not None:
        keys = [f"{key}-{images.view_digest}-{seed:x}" for key, seed in zip(keys, views, strict=True)]
    return store.get_or_compute(prefix.address(images), prefix.layout, keys, compute, waiting)
