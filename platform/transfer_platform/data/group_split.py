"""Dividing images by whole groups, so that one patient or one animal never stands on two sides.

A group's side for test depends on its name and the split seed alone, so that it stays test when the data
set grows. Groups that share an image, byte for byte, count as one. Validation and folds are dealt greedily
and then mended, class by class: scikit-learn's StratifiedGroupKFold does the same for folds only, takes
seconds to import, and its answer depends on the order of the images.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from transfer_platform.data.catalog import ImageRecord, sort_by_content
from transfer_platform.data.hash_split import hash_to_int, require_fraction_bounds, select_test
from transfer_platform.errors import SplitError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_ALL = ""
"""Stands beside the classes for all images; no label is empty."""
_LACKING = 100.0
"""What a class that a side lacks costs; more than any imbalance."""
_LEAST = 1e-9
"""Gain below which nothing is moved any more."""
_ROUNDS = 100


@dataclass(frozen=True, slots=True)
class GroupCluster:
    """Groups that stay together because they share an image; mostly a single one.

    Attributes:
        names: Sorted.
        counts: Images by class, and of all classes under `_ALL`.
    """

    names: tuple[str, ...]
    counts: Mapping[str, int]


def split_by_group(
    images: Iterable[ImageRecord], fractions: Mapping[str, float], split_seed: int
) -> dict[str, tuple[ImageRecord, ...]]:
    """Divides images as `division.divide` does, by whole groups.

    A group is test where `sha256(split_seed:group:NAME)` is below the fraction, so that about so many of the
    groups are; validation then takes whole groups with about its fraction of every class.

    Args:
        images: All of them, each with a group.
        fractions: For `test` and `validation`, either, both or none of them; each above 0 and below 1.
        split_seed: Chooses another division.

    Returns:
        `train`, and what `fractions` names; each sorted by label and digest.

    Raises:
        SplitError: A fraction is out of bounds, or whole groups cannot give every class to every side.
    """
    require_fraction_bounds(fractions)
    images = sort_by_content(images)
    left, sides = merge_groups(images), dict[str, str]()
    if "test" in fractions:
        chosen = _drawn_test(left, fractions["test"], split_seed)
        sides = {name: "test" for cluster in left if cluster.names in chosen for name in cluster.names}
        left = [cluster for cluster in left if cluster.names not in chosen]
    if "validation" in fractions:
        fraction = fractions["validation"]
        dealt = _dealt(left, (1 - fraction, fraction), f"validation:{split_seed}")
        _refuse_lacking(left, dealt, 2, "train and validation", "take another fraction")
        for cluster, side in zip(left, dealt, strict=True):
            sides |= dict.fromkeys(cluster.names, "validation" if side else "train")
    return {
        role: tuple(image for image in images if sides.get(image.group, "train") == role)
        for role in ("train", *fractions)
    }


def assign_group_folds(images: Sequence[ImageRecord], folds: int, split_seed: int) -> tuple[int, ...]:
    """Deals the training images into folds by whole groups, each class as evenly as they allow.

    Args:
        images: Each with a group.
        folds: K, at least 2.
        split_seed: Chooses another division.

    Returns:
        For each image its fold, 0 to K - 1.

    Raises:
        SplitError: A fold would lack a class.
    """
    every = merge_groups(sort_by_content(images))
    dealt = _dealt(every, [1 / folds] * folds, f"folds:{split_seed}")
    _refuse_lacking(every, dealt, folds, f"each of {folds} folds", "ask for fewer folds")
    fold = {name: side for cluster, side in zip(every, dealt, strict=True) for name in cluster.names}
    return tuple(fold[image.group] for image in images)


def groups_in_several_splits(
    given: Mapping[str, Sequence[ImageRecord]],
) -> dict[str, dict[str, tuple[ImageRecord, ...]]]:
    """Groups that lie in more than one split, by name: their images by split."""
    held: dict[str, dict[str, list[ImageRecord]]] = defaultdict(lambda: defaultdict(list))
    for role, images in given.items():
        for image in images:
            if image.group:
                held[image.group][role].append(image)
    return {
        name: {role: tuple(images) for role, images in roles.items()}
        for name, roles in sorted(held.items())
        if len(roles) > 1
    }


def merge_groups(images: Sequence[ImageRecord]) -> list[GroupCluster]:
    """Groups, joined where they share an image, sorted by their names."""
    above: dict[str, str] = {}

    def top(name: str) -> str:
        while (parent := above.setdefault(name, name)) != name:
            above[name] = above[parent]
            name = parent
        return name

    first: dict[str, str] = {}
    for image in images:
        one, other = sorted((top(image.group), top(first.setdefault(image.sha256, image.group))))
        above[other] = one
    names: dict[str, set[str]] = defaultdict(set)
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for image in images:
        joined = top(image.group)
        names[joined].add(image.group)
        counts[joined].update((image.label, _ALL))
    return [
        GroupCluster(tuple(sorted(names[joined])), dict(sorted(counts[joined].items())))
        for joined in sorted(names)
    ]


def _drawn_test(every: Sequence[GroupCluster], fraction: float, split_seed: int) -> set[tuple[str, ...]]:
    """A cluster is test if one of its groups is: what was test stays so when groups are joined later."""
    draws = {
        cluster.names: min(hash_to_int(f"{split_seed}:group:{name}") for name in cluster.names)
        for cluster in every
    }
    of_class: dict[str, list[tuple[str, ...]]] = defaultdict(list)
    for cluster in every:
        for label in cluster.counts:
            if label != _ALL:
                of_class[label].append(cluster.names)
    return select_test(dict(sorted(of_class.items())), draws, fraction, "groups")


def _dealt(every: Sequence[GroupCluster], shares: Sequence[float], salt: str) -> list[int]:
    """A side for each cluster, so that every class is shared out as nearly as asked.

    Large clusters go first, each where its classes lack most; then single clusters are moved as long as the
    squared deviations of the classes' shares become less.
    """
    totals: Counter[str] = Counter()
    for cluster in every:
        totals.update(cluster.counts)
    deal = _Deal(totals, shares, [Counter() for _ in shares])
    order = sorted(
        range(len(every)),
        key=lambda place: (
            -every[place].counts[_ALL].bit_length(),
            hash_to_int(f"{salt}:{every[place].names[0]}"),
        ),
    )
    sides = [0] * len(every)
    for place in order:
        counts = every[place].counts
        sides[place] = min(range(len(shares)), key=lambda side: (deal.cost(side, counts, 1), side))
        deal.held[sides[place]].update(counts)
    for _ in range(_ROUNDS):
        if not sum(deal.moved(sides, place, every[place].counts) for place in order):
            break
    return sides


@dataclass(frozen=True)
class _Deal:
    """How far the sides are from what was asked.

    Attributes:
        totals: Images by class.
        shares: Of every class, that each side should have.
        held: Images by class that each side has.
    """

    totals: Mapping[str, int]
    shares: Sequence[float]
    held: Sequence[Counter[str]]

    def cost(self, side: int, counts: Mapping[str, int], sign: int) -> float:
        """By how much squared deviations grow when a cluster comes (1) or goes (-1)."""
        cost = 0.0
        for label, count in counts.items():
            total, held = self.totals[label], self.held[side][label]
            cost += count * (2 * sign * (held - self.shares[side] * total) + count) / total**2
            if sign > 0:
                cost -= _LACKING * (held == 0)
            else:
                cost += _LACKING * (held == count)
        return cost

    def moved(self, sides: list[int], place: int, counts: Mapping[str, int]) -> bool:
        """Moves a cluster to the side where it costs least; whether it was on another one."""
        now = sides[place]
        others = [side for side in range(len(self.shares)) if side != now]
        best = min(others, key=lambda side: (self.cost(side, counts, 1), side))
        if self.cost(best, counts, 1) + self.cost(now, counts, -1) > -_LEAST:
            return False
        self.held[now].subtract(counts)
        self.held[best].update(counts)
        sides[place] = best
        return True


def _refuse_lacking(
    every: Sequence[GroupCluster], dealt: Sequence[int], sides: int, needed: str, remedy: str
) -> None:
    found: dict[str, set[int]] = defaultdict(set)
    groups: Counter[str] = Counter()
    for cluster, side in zip(every, dealt, strict=True):
        for label in cluster.counts:
            found[label].add(side)
            groups[label] += 1
    lacking = [label for label in sorted(found) if label != _ALL and len(found[label]) < sides]
    if lacking:
        counts = ", ".join(f"{label!r} is in {groups[label]}" for label in lacking)
        raise SplitError(
            f"{needed} must have images of every class, by whole groups (dataset.group_by), but of the "
            f"groups that are left {counts}; add groups that have it, or {remedy} in "
            "dataset.splits.validation"
        )
