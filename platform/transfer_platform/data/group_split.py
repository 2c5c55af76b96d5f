"""Assigns whole groups, such as patients or animals, to splits and folds.

Groups that contain identical image files stay together. Scikit-learn's `StratifiedGroupKFold` is not used because it
does not support fractions, and its assignment may change between versions.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from transfer_platform.data.catalog import ImageRecord, in_several_splits, sort_by_content
from transfer_platform.data.hash_split import hash_to_int, require_fraction_bounds, select_test
from transfer_platform.errors import SplitError

_ALL = ""
"""Key for the total over all classes; differs from every label, because labels are never empty."""
_MISSING_CLASS_COST = 100.0
"""Cost of a class that is missing from a part; exceeds the cost of any imbalance."""
_MIN_GAIN = 1e-9
_MAX_ROUNDS = 100


@dataclass(frozen=True, slots=True)
class GroupCluster:
    """A single group, or several groups that must stay together because they share images.

    Attributes:
        names: Sorted names of the groups.
        counts: Number of images per class; the key `_ALL` holds the total over all classes.
    """

    names: tuple[str, ...]
    counts: Mapping[str, int]


def split_by_group(
    images: Iterable[ImageRecord], fractions: Mapping[str, float], split_seed: int
) -> dict[str, tuple[ImageRecord, ...]]:
    """Splits images into train, validation and test without breaking up groups.

    `fractions` may contain `test` and `validation`. A group is in test if `sha256(split_seed:group:NAME)`, scaled to
    the range 0 to 1, is below the test fraction. Groups in test therefore stay there when the dataset grows.
    Validation gets approximately the validation fraction of each class's remaining images.

    Returns:
        `train` and the splits in `fractions`, each sorted by label and digest.

    Raises:
        SplitError: A fraction is out of range, or a class has too few groups to be in every split.
    """
    require_fraction_bounds(fractions)
    images = sort_by_content(images)
    remaining, split_of = merge_groups(images), dict[str, str]()
    if "test" in fractions:
        test = _select_test_clusters(remaining, fractions["test"], split_seed)
        split_of = dict.fromkeys((name for names in test for name in names), "test")
        remaining = [cluster for cluster in remaining if cluster.names not in test]
    if "validation" in fractions:
        fraction = fractions["validation"]
        parts = _assign_parts(remaining, (1 - fraction, fraction), f"validation:{split_seed}")
        _require_classes(remaining, parts, 2, "train and validation", "set another fraction")
        for cluster, part in zip(remaining, parts, strict=True):
            split_of |= dict.fromkeys(cluster.names, "validation" if part else "train")
    return {
        split: tuple(image for image in images if split_of.get(image.group, "train") == split)
        for split in ("train", *fractions)
    }


def assign_group_folds(images: Sequence[ImageRecord], folds: int, split_seed: int) -> tuple[int, ...]:
    """Returns the fold index (0 to `folds` - 1) of each training image, keeping groups whole and balancing classes.

    Raises:
        SplitError: A class would be missing from a fold.
    """
    clusters = merge_groups(sort_by_content(images))
    parts = _assign_parts(clusters, [1 / folds] * folds, f"folds:{split_seed}")
    _require_classes(clusters, parts, folds, f"each of the {folds} folds", "reduce the number of folds")
    fold_of = {name: part for cluster, part in zip(clusters, parts, strict=True) for name in cluster.names}
    return tuple(fold_of[image.group] for image in images)


def groups_in_several_splits(
    images_by_split: Mapping[str, Sequence[ImageRecord]],
) -> dict[str, dict[str, tuple[ImageRecord, ...]]]:
    """Returns the images of groups found in more than one split, keyed by group, then by split."""
    return dict(sorted(in_several_splits(images_by_split, "group").items()))


def merge_groups(images: Sequence[ImageRecord]) -> list[GroupCluster]:
    """Merges groups that share an image into clusters, sorted by each cluster's first group name."""
    import numpy as np
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    names, group_of = np.unique([image.group for image in images], return_inverse=True)
    digests, digest_of = np.unique([image.sha256 for image in images], return_inverse=True)
    nodes = len(names) + len(digests)
    edges = coo_array((np.ones(len(images), bool), (group_of, len(names) + digest_of)), shape=(nodes, nodes))
    _, component = connected_components(edges, directed=False)
    names_of: dict[int, set[str]] = defaultdict(set)
    counts: dict[int, Counter[str]] = defaultdict(Counter)
    for image, group in zip(images, group_of.tolist(), strict=True):
        names_of[component[group]].add(image.group)
        counts[component[group]].update((image.label, _ALL))
    clusters = (GroupCluster(tuple(sorted(names_of[key])), dict(sorted(counts[key].items()))) for key in names_of)
    return sorted(clusters, key=lambda cluster: cluster.names)


def _select_test_clusters(clusters: Sequence[GroupCluster], fraction: float, split_seed: int) -> set[tuple[str, ...]]:
    """Returns the group names of each test cluster. A cluster is selected for the test split as a whole."""
    hashes = {
        cluster.names: min(hash_to_int(f"{split_seed}:group:{name}") for name in cluster.names) for cluster in clusters
    }
    by_class: dict[str, list[tuple[str, ...]]] = defaultdict(list)
    for cluster in clusters:
        for label in cluster.counts.keys() - {_ALL}:
            by_class[label].append(cluster.names)
    return select_test(dict(sorted(by_class.items())), hashes, fraction, "groups")


def _assign_parts(clusters: Sequence[GroupCluster], shares: Sequence[float], salt: str) -> list[int]:
    """Returns the part index of each cluster. Each part gets approximately its target share of each class.

    Assigns each cluster, largest first, to the part where it costs least, then moves clusters to lower the total cost.
    """
    totals: Counter[str] = Counter()
    for cluster in clusters:
        totals.update(cluster.counts)
    assignment = _Assignment(totals, shares, [Counter() for _ in shares])
    order = sorted(
        range(len(clusters)),
        key=lambda index: (
            -clusters[index].counts[_ALL].bit_length(),
            hash_to_int(f"{salt}:{clusters[index].names[0]}"),
        ),
    )
    parts = [0] * len(clusters)
    for index in order:
        counts = clusters[index].counts
        parts[index] = min(range(len(shares)), key=lambda part: (assignment.cost(part, counts, 1), part))
        assignment.counts[parts[index]].update(counts)
    for _ in range(_MAX_ROUNDS):
        if not sum(assignment.move(parts, index, clusters[index].counts) for index in order):
            break
    return parts


@dataclass(frozen=True)
class _Assignment:
    """Number of images of each class, in total and in each part, and the target share of each part."""

    totals: Mapping[str, int]
    shares: Sequence[float]
    counts: Sequence[Counter[str]]

    def cost(self, part: int, counts: Mapping[str, int], sign: int) -> float:
        """Returns the cost change from adding a cluster to a part (`sign` = 1) or removing it (`sign` = -1)."""
        cost = 0.0
        for label, count in counts.items():
            total, current = self.totals[label], self.counts[part][label]
            cost += count * (2 * sign * (current - self.shares[part] * total) + count) / total**2
            without_cluster = 0 if sign > 0 else count
            cost -= sign * _MISSING_CLASS_COST * (current == without_cluster)
        return cost

    def move(self, parts: list[int], index: int, counts: Mapping[str, int]) -> bool:
        """Moves a cluster to the cheapest other part if this lowers the cost; returns True if the cluster was moved."""
        current = parts[index]
        others = [part for part in range(len(self.shares)) if part != current]
        best = min(others, key=lambda part: (self.cost(part, counts, 1), part))
        if self.cost(best, counts, 1) + self.cost(current, counts, -1) > -_MIN_GAIN:
            return False
        self.counts[current].subtract(counts)
        self.counts[best].update(counts)
        parts[index] = best
        return True


def _require_classes(
    clusters: Sequence[GroupCluster], parts: Sequence[int], count: int, subject: str, remedy: str
) -> None:
    parts_of: dict[str, set[int]] = defaultdict(set)
    groups: Counter[str] = Counter()
    for cluster, part in zip(clusters, parts, strict=True):
        for label in cluster.counts:
            parts_of[label].add(part)
            groups[label] += 1
    missing = [label for label in sorted(parts_of) if label != _ALL and len(parts_of[label]) < count]
    if missing:
        available = ", ".join(f"{label!r} is in {groups[label]}" for label in missing)
        raise SplitError(
            f"{subject} must have images of every class, but some classes are in too few groups (dataset.group_by): "
            f"{available}; add groups with images of these classes, or {remedy} in dataset.splits.validation"
        )
