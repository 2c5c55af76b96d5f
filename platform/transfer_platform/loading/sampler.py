"""What is drawn at random in training: the order of the images, and the view of each.

Every draw is a function of named seeds, not of what was drawn before it: it repeats to the bit.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch


@dataclass(frozen=True)
class ViewSchedule:
    """Which augmented view of an image an epoch sees.

    Attributes:
        policy: `none`, or a policy of `data.augmentation`.
        count: N different views of an image, of which each epoch draws one; 1: the image as it is.
            `unlimited`: a new view in every epoch.
        seed: Of the draws; the N views themselves do not depend on it.
    """

    policy: str
    count: int | Literal["unlimited"]
    seed: int

    @property
    def varies(self) -> bool:
        """Whether training images differ from the images as they are."""
        return self.policy != "none" and self.count != 1

    @property
    def stored_count(self) -> int:
        """How many different training inputs an image has, 0 for no end of them."""
        if not self.varies:
            return 1
        return 0 if self.count == "unlimited" else self.count

    def view_index(self, sha256: str, epoch: int, turn: int = 0) -> int:
        """Which of an image's N views an epoch sees, 0 to N - 1; the next one at each further turn."""
        assert isinstance(self.count, int), "views without end have no numbers"
        return (derived_seed("drawn", self.seed, epoch, sha256) + turn) % self.count

    def augmentation_seed(self, sha256: str, epoch: int, turn: int = 0) -> int:
        """The seed of the view that an epoch sees, another one at each further turn."""
        if self.count == "unlimited":
            return derived_seed("augmentation", self.seed, epoch, sha256, *([turn] if turn else []))
        return self.seed_of(sha256, self.view_index(sha256, epoch, turn))

    @staticmethod
    def seed_of(sha256: str, number: int) -> int:
        """The seed of one of an image's N views."""
        return derived_seed("view", number, sha256)


def batch_indices(
    count: int,
    batch_size: int,
    *,
    shuffle: bool,
    seed: int = 0,
    epoch: int = 0,
    classes: Sequence[int] | None = None,
) -> list[list[int]]:
    """The indices of each batch of an epoch; every index is in exactly one, unless classes are balanced.

    A last training batch of a single image joins the one before it, because batch norm cannot learn from one
    image; none is dropped. A `batch_size` of 1 is taken at its word.

    Args:
        count: How many images there are.
        batch_size: Images in a batch; the last one has fewer, or one more.
        shuffle: Whether this is training: in an order that (seed, epoch) chooses.
        seed: Of the order.
        epoch: Counted from 1.
        classes: The class of every image, to draw the same number of each; None: every image once.

    >>> batches(5, 2, shuffle=False)
    [[0, 1], [2, 3], [4]]
    >>> [len(batch) for batch in batches(5, 2, shuffle=True)]
    [2, 3]
    """
    generator = torch.Generator().manual_seed(derived_seed("order", seed, epoch))
    if not shuffle:
        order = list(range(count))
    elif classes is None:
        order = torch.randperm(count, generator=generator).tolist()
    else:
        order = _balanced(classes, generator)
    cut = [order[start : start + batch_size] for start in range(0, count, batch_size)]
    if shuffle and batch_size > 1 and len(cut) > 1 and len(cut[-1]) == 1:
        cut[-2:] = [cut[-2] + cut[-1]]
    return cut


def repeat_counts(cut: Iterable[Sequence[int]]) -> Iterator[list[int]]:
    """For each index of each batch of an epoch, how often it came before: 0, but where classes are balanced.

    >>> list(turns([[3, 1], [3, 3]]))
    [[0, 0], [1, 2]]
    """
    seen: Counter[int] = Counter()
    for batch in cut:
        turn = []
        for index in batch:
            turn.append(seen[index])
            seen[index] += 1
        yield turn


def _balanced(classes: Sequence[int], generator: torch.Generator) -> list[int]:
    """As many indices as there are images, of each class equally many, but for one.

    Of a class with too many images some are left out, others each time; those of a class with too few come
    again and again, none twice as often as another before all came.
    """
    members: dict[int, list[int]] = {}
    for index, label in enumerate(classes):
        members.setdefault(label, []).append(index)
    turns = torch.randperm(len(members), generator=generator).tolist()
    drawn: list[int] = []
    for turn, label in zip(turns, sorted(members), strict=True):
        wanted = len(classes) // len(members) + (turn < len(classes) % len(members))
        own: list[int] = []
        while len(own) < wanted:
            shuffled = torch.randperm(len(members[label]), generator=generator).tolist()
            own += [members[label][place] for place in shuffled]
        drawn += own[:wanted]
    return [drawn[place] for place in torch.randperm(len(drawn), generator=generator).tolist()]


def derived_seed(*parts: str | int) -> int:
    """A seed of 63 bits from what a draw depends on."""
    digest = hashlib.sha256(":".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
