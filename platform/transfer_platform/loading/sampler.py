"""Reproducible selection of batches and augmented views.

Every random choice depends only on explicit seeds, not on earlier choices, so it is reproducible.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch


@dataclass(frozen=True)
class ViewSchedule:
    """Selects the augmented view of each image in each epoch.

    Attributes:
        policy: `none` or an augmentation policy.
        count: Number N of distinct views per image; each epoch uses one of them. 1 disables augmentation;
            `unlimited` means a new view in every epoch.
        seed: Seed for selecting one of the N views; the views depend on it only if `count` is `unlimited`.
    """

    policy: str
    count: int | Literal["unlimited"]
    seed: int

    @property
    def varies(self) -> bool:
        """True if training images are augmented."""
        return self.policy != "none" and self.count != 1

    @property
    def stored_count(self) -> int:
        """Number of distinct training inputs per image: 1 without augmentation, 0 if there is no limit."""
        if not self.varies:
            return 1
        return 0 if self.count == "unlimited" else self.count

    def view_index(self, sha256: str, epoch: int, repeat: int = 0) -> int:
        """Returns the index (0 to N - 1) of an image's view in an epoch; repeats of an image use consecutive views."""
        assert isinstance(self.count, int), "views have no index if their number is unlimited"
        return (derived_seed("drawn", self.seed, epoch, sha256) + repeat) % self.count

    def augmentation_seed(self, sha256: str, epoch: int, repeat: int = 0) -> int:
        """Returns the seed for an image's view in an epoch; `repeat` counts the image's earlier occurrences."""
        if self.count == "unlimited":
            return derived_seed("augmentation", self.seed, epoch, sha256, *([repeat] if repeat else []))
        return self.view_seed(sha256, self.view_index(sha256, epoch, repeat))

    @staticmethod
    def view_seed(sha256: str, index: int) -> int:
        """Returns the seed for one of an image's N views."""
        return derived_seed("view", index, sha256)


def batch_indices(
    count: int, batch_size: int, *, shuffle: bool, seed: int = 0, epoch: int = 0, classes: Sequence[int] | None = None
) -> list[list[int]]:
    """Returns the batches of an epoch, each as a list of indices from 0 to `count` - 1.

    With `shuffle` (for training), the order depends on `seed` and `epoch`. If `classes` (one per image) is given, each
    class is sampled equally often; otherwise, each index occurs once. If `batch_size` is not 1, a final training batch
    of one image is merged into the previous batch, because batch norm needs at least two images.

    >>> batch_indices(5, 2, shuffle=False)
    [[0, 1], [2, 3], [4]]
    >>> [len(batch) for batch in batch_indices(5, 2, shuffle=True)]
    [2, 3]
    """
    generator = torch.Generator().manual_seed(derived_seed("order", seed, epoch))
    if not shuffle:
        order = list(range(count))
    elif classes is None:
        order = torch.randperm(count, generator=generator).tolist()
    else:
        order = _balanced_order(classes, generator)
    batches = [order[start : start + batch_size] for start in range(0, count, batch_size)]
    if shuffle and batch_size > 1 and len(batches) > 1 and len(batches[-1]) == 1:
        batches[-2:] = [batches[-2] + batches[-1]]
    return batches


def repeat_counts(batches: Iterable[Sequence[int]]) -> Iterator[list[int]]:
    """Yields, for each batch, the number of times each index has already occurred in the epoch.

    >>> list(repeat_counts([[3, 1], [3, 3]]))
    [[0, 0], [1, 2]]
    """
    occurrences: Counter[int] = Counter()
    for batch in batches:
        repeats = []
        for index in batch:
            repeats.append(occurrences[index])
            occurrences[index] += 1
        yield repeats


def _balanced_order(classes: Sequence[int], generator: torch.Generator) -> list[int]:
    """Returns `len(classes)` shuffled indices, with class counts that differ by at most 1.

    Large classes are subsampled. Images of small classes are repeated as evenly as possible.
    """
    members: dict[int, list[int]] = {}
    for index, label in enumerate(classes):
        members.setdefault(label, []).append(index)
    ranks = torch.randperm(len(members), generator=generator).tolist()
    sampled: list[int] = []
    for rank, label in zip(ranks, sorted(members), strict=True):
        # The remainder is assigned to randomly selected classes.
        size = len(classes) // len(members) + (rank < len(classes) % len(members))
        indices: list[int] = []
        while len(indices) < size:
            permutation = torch.randperm(len(members[label]), generator=generator).tolist()
            indices += [members[label][place] for place in permutation]
        sampled += indices[:size]
    return [sampled[place] for place in torch.randperm(len(sampled), generator=generator).tolist()]


def derived_seed(*parts: str | int) -> int:
    """Returns a 63-bit seed derived from all parts."""
    digest = hashlib.sha256(":".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
