"""Pictures as tensors, in batches whose order and augmentation repeat to the bit.

The order depends on (seed, epoch), an image's augmentation on (seed, epoch, index): not on how many workers
there are, nor on anything that was drawn before.
"""

from __future__ import annotations

import hashlib
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from transfer_model.preprocessing import Preprocessing, decode

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from transfer_platform.data.augmentation import Augmentation
    from transfer_platform.data.catalog import Picture


@dataclass(frozen=True)
class PictureDataset(Dataset[tuple[Tensor, int]]):
    """Labelled pictures, decoded when they are asked for.

    Item `index` is the picture's tensor (3, S, S), float32, and its class, 0 to C - 1.

    Attributes:
        pictures: The images.
        classes: All C class names; a label's place is its class.
        preprocessing: Of the network.
        augmentation: Picture -> S x S picture, see `augmentation.augmentation`; `None`: the centre square.
        seed: Of the augmentation.
        epoch: Of the augmentation.
    """

    pictures: Sequence[Picture]
    classes: Sequence[str]
    preprocessing: Preprocessing
    augmentation: Augmentation | None = None
    seed: int = 0
    epoch: int = 0

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        picture = self.pictures[index]
        image = decode(picture.path)
        with _seeded(_derived_seed("augmentation", self.seed, self.epoch, index)):
            square = (self.augmentation or self.preprocessing.square)(image)
        return self.preprocessing.normalize(square), self.classes.index(picture.label)

    @property
    def labels(self) -> list[int]:
        """The class of every picture, without decoding any."""
        return [self.classes.index(picture.label) for picture in self.pictures]


def loader(
    dataset: PictureDataset,
    batch_size: int,
    *,
    shuffle: bool,
    seed: int = 0,
    epoch: int = 0,
    workers: int = 0,
    pin_memory: bool = False,
) -> DataLoader[tuple[Tensor, int]]:
    """Batches of one epoch: images (B, 3, S, S) float32, classes (B,) int64.

    Args:
        dataset: Its own `seed` and `epoch` are replaced.
        batch_size: B, see `batches`.
        shuffle: Whether this is training.
        seed: Of order and augmentation.
        epoch: Counted from 0; each has its own order and augmentation.
        workers: Processes that decode; 0: this one.
        pin_memory: Whether batches are put where a CUDA device copies them from quickly.
    """
    return DataLoader(
        replace(dataset, seed=seed, epoch=epoch),
        batch_sampler=batches(len(dataset), batch_size, shuffle=shuffle, seed=seed, epoch=epoch),
        num_workers=workers,
        pin_memory=pin_memory,
        # Of its own, so that starting an epoch draws nothing from the generator that dropout uses.
        generator=torch.Generator().manual_seed(_derived_seed("workers", seed, epoch)),
        worker_init_fn=_one_thread,
    )


def batches(count: int, batch_size: int, *, shuffle: bool, seed: int = 0, epoch: int = 0) -> list[list[int]]:
    """The indices of each batch of an epoch; every index is in exactly one.

    A last training batch of a single image joins the one before it, because batch norm cannot learn from one
    image; none is dropped. A `batch_size` of 1 is taken at its word.

    Args:
        count: How many images there are.
        batch_size: Images in a batch; the last one has fewer, or one more.
        shuffle: Whether this is training: in an order that (seed, epoch) chooses.
        seed: Of the order.
        epoch: Counted from 0.

    >>> batches(5, 2, shuffle=False)
    [[0, 1], [2, 3], [4]]
    >>> [len(batch) for batch in batches(5, 2, shuffle=True)]
    [2, 3]
    """
    generator = torch.Generator().manual_seed(_derived_seed("order", seed, epoch))
    order = torch.randperm(count, generator=generator).tolist() if shuffle else list(range(count))
    cut = [order[start : start + batch_size] for start in range(0, count, batch_size)]
    if shuffle and batch_size > 1 and len(cut) > 1 and len(cut[-1]) == 1:
        cut[-2:] = [cut[-2] + cut[-1]]
    return cut


def class_weights(labels: Sequence[int], classes: int) -> Tensor:
    """Weights (C,) that make all classes count the same in a loss: n / (C n_c), as scikit-learn's `balanced`.

    Args:
        labels: The class of every training image, each class at least once.
        classes: C.
    """
    counts = torch.bincount(torch.tensor(labels), minlength=classes)
    return len(labels) / (classes * counts.to(torch.float32))


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seeds torch's CPU generator for a moment; `torch.manual_seed` would reseed a GPU's dropout as well."""
    before = torch.default_generator.get_state()
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        torch.default_generator.set_state(before)


def _derived_seed(*parts: str | int) -> int:
    digest = hashlib.sha256(":".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def _one_thread(_: int) -> None:
    """Workers share the processor with the network; several threads in each only get in each other's way."""
    torch.set_num_threads(1)
