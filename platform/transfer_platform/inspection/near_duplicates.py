"""Finds near duplicates: sets of images that are almost identical."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from transfer_platform.inspection.findings import Finding
from transfer_platform.inspection.perceptual_hash import compute_hashes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from transfer_platform.data.catalog import ImageRecord
    from transfer_platform.data.image_stats import ImageStats
    from transfer_platform.inspection.perceptual_hash import PerceptualHashes

MAX_BRIGHTNESS_DIFFERENCE = 4.0
"""Maximum difference in mean brightness (0 to 255) between near duplicates."""
MIN_CORRELATION = 0.97
"""Minimum correlation between the perceptual hashes of near duplicates."""
MAX_COLOR_DIFFERENCE = 5.0
"""Maximum mean absolute difference in pixel values (0 to 255) between the thumbnails of near duplicates."""
MAX_ASPECT_DIFFERENCE = 0.05
"""Maximum difference in log aspect ratio between near duplicates."""
_LARGE = 4
"""A group is large if at least this many of its images are in the rows of a single tile."""
MIN_CONTRAST = 4.0
"""Images (for example, blank pages) whose brightness (0 to 255) has a lower standard deviation are not compared."""


def similar_images(images: Sequence[ImageRecord], stats: ImageStats) -> list[tuple[str, ...]]:
    """Returns the digests of each set of almost identical images, such as resized copies or consecutive video frames.

    The result depends only on the content of the images, not on their order. `stats` must contain all images.
    """
    digests = sorted({image.sha256 for image in images})
    rows = stats.rows(digests)
    groups = group_similar(stats.headers(rows), compute_hashes(stats, rows), np.arange(len(rows)))
    return [tuple(digests[index] for index in group) for group in groups]


def near_duplicates(splits: Mapping[str, Sequence[ImageRecord]], similar: Sequence[Sequence[str]]) -> Iterator[Finding]:
    """Yields a finding for each set of almost identical images in `similar`, as returned by `similar_images`."""
    set_of = {digest: number for number, digests in enumerate(similar) for digest in digests}
    members_of: dict[int, dict[tuple[str, str], ImageRecord]] = defaultdict(dict)
    for split, images in splits.items():
        for image in images:
            if image.sha256 in set_of:  # copies of the same content within a split are listed once
                members_of[set_of[image.sha256]].setdefault((split, image.sha256), image)
    for found in members_of.values():
        members = _each_place_first([(split, image) for (split, _), image in found.items()])
        kind = "near duplicate"
        if len({split for split, _ in members}) > 1:
            kind = "near duplicate across splits"
        elif len({image.label for _, image in members}) > 1:
            kind = "near duplicate with another label"
        locations = ", ".join(f"{split}/{image.label}" for split, image in members[:8])
        more = f" and {len(members) - 8} more" if len(members) > 8 else ""
        yield Finding(kind, tuple(image.path for _, image in members), locations + more)


def _each_place_first(members: Sequence[tuple[str, ImageRecord]]) -> list[tuple[str, ImageRecord]]:
    """Moves one image of each split and class to the front, so that a shortened list shows all splits and classes."""
    first = {(split, image.label): index for index, (split, image) in reversed([*enumerate(members)])}
    leading = sorted(first.values())
    return [members[index] for index in leading] + [
        member for index, member in enumerate(members) if index not in set(leading)
    ]


def group_similar(
    headers: NDArray[np.void],
    hashes: PerceptualHashes,
    indices: NDArray[np.int64],
    *,
    block: tuple[int, int] = (256, 4096),
    pairs_at_once: int = 1 << 13,
) -> list[list[int]]:
    """Groups almost identical images.

    Images of similar brightness are compared by perceptual hash, which consists of the lowest frequencies of a cosine
    transform (Zauner, 2010). If two hashes are similar, the thumbnail colors are compared too, unless both images are
    already in the same group. Skipping such pairs saves time: 1000 video frames form hundreds of thousands of pairs.

    Args:
        headers: `HEADER_DTYPE` records (N,) of all images.
        hashes: Perceptual hashes of all images.
        indices: Indices (M,) of the images to compare.
        block: Number of rows and columns in each tile of the hash comparison.
        pairs_at_once: Number of pairs whose thumbnails are compared at once.

    Returns:
        Sorted indices of each connected group of at least two images; groups are ordered by their first index.
    """
    order = indices[np.argsort(hashes.brightness[indices], kind="stable")]
    order = order[hashes.deviation[order] >= MIN_CONTRAST]
    brightness, vectors = hashes.brightness[order], hashes.hashes
    aspects = np.log(headers["width"] / headers["height"])
    ends = np.searchsorted(brightness, brightness + MAX_BRIGHTNESS_DIFFERENCE, side="right")
    group = np.arange(len(order))
    for tile in _tiles(ends, *block):
        for rows, columns in _unmerged(group, vectors, order, *tile):
            similar = vectors[order[rows]] @ vectors[order[columns]].T >= MIN_CORRELATION
            similar &= group[rows, None] != group[columns]
            first, second = np.divmod(np.flatnonzero(similar), len(columns))
            pairs = np.stack((rows[first], columns[second]), axis=1)
            pairs = pairs[(pairs[:, 0] < pairs[:, 1]) & (pairs[:, 1] < ends[pairs[:, 0]])]
            pairs = pairs[_may_match(aspects, hashes.mean_color, order[pairs])]
            while len(pairs := pairs[group[pairs[:, 0]] != group[pairs[:, 1]]]):
                batch, pairs = pairs[:pairs_at_once], pairs[pairs_at_once:]
                group = _merge_groups(group, batch[_have_same_colors(hashes, order[batch])])
    return _members(group, order)


def _unmerged(
    group: NDArray[np.int64],
    vectors: NDArray[np.float32],
    order: NDArray[np.int64],
    rows: NDArray[np.int64],
    columns: NDArray[np.int64],
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Yields parts (rows, columns) of a tile that cover every pair of similar hashes from different groups.

    `group` (N,) contains each image's group number. After the first tiles, frames from a fixed camera form one large
    group; comparing all pairs of these frames, or of frames from two such cameras, would take quadratic time.
    """
    groups, position, counts = np.unique(group[rows], return_inverse=True, return_counts=True)
    is_large = counts >= _LARGE
    for number in np.flatnonzero(is_large):
        members, others = rows[position == number], columns[group[columns] != groups[number]]
        others = others[_may_be_similar(vectors, order[members], order[others])]
        if len(others):
            yield members, others
    if not is_large.all():
        yield rows[~is_large[position]], columns


def _may_be_similar(
    vectors: NDArray[np.float32], members: NDArray[np.int64], others: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Returns a mask (M,) that is True for each image of `others` (M,) whose hash may be similar to one of `members`.

    By the triangle inequality, a hash that is too far from the middle member is not similar to any member.
    """
    center = vectors[members[len(members) // 2]]
    radius = np.arccos(np.clip((vectors[members] @ center).min(), -1, 1))
    limit = radius + np.arccos(MIN_CORRELATION) + 0.001  # tolerance for rounding errors
    return np.asarray(vectors[others] @ center >= np.cos(min(limit, np.pi)))


def _tiles(ends: NDArray[np.int64], height: int, width: int) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Yields tiles (rows, columns) that cover all pairs (i, j) with i < j < ends[i]; `ends` (N,) must be sorted."""
    for start in range(0, len(ends), height):
        stop = min(start + height, len(ends))
        last = int(ends[stop - 1])
        for left in range(start, last, width):
            yield np.arange(start, stop), np.arange(left, min(left + width, last))


def _may_match(
    aspects: NDArray[np.float64], mean_color: NDArray[np.float32], pairs: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Returns a mask (P,) that is True for pairs (P, 2) with aspect ratios and mean colors similar enough to match."""
    first, second = pairs.T
    differences = np.abs(mean_color[first] - mean_color[second]).mean(axis=1)
    is_similar = differences <= MAX_COLOR_DIFFERENCE + 0.01  # tolerance for rounding errors
    return np.asarray(is_similar & (np.abs(aspects[first] - aspects[second]) <= MAX_ASPECT_DIFFERENCE))


def _have_same_colors(hashes: PerceptualHashes, pairs: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Returns a mask (P,) that is True for pairs (P, 2) with similar thumbnails."""
    indices, inverse = np.unique(pairs, return_inverse=True)
    pixels = hashes.thumbnails(indices).astype(np.int16)
    first, second = inverse.reshape(pairs.shape).T
    return np.asarray(np.abs(pixels[first] - pixels[second]).mean(axis=(1, 2, 3)) <= MAX_COLOR_DIFFERENCE)


def _merge_groups(group: NDArray[np.int64], pairs: NDArray[np.int64]) -> NDArray[np.int64]:
    """Merges the groups of the two images in each pair (P, 2); returns the new group number of each image (N,)."""
    if not len(pairs):
        return group
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    count = len(group)
    links = coo_array((np.ones(len(pairs), np.int8), tuple(group[pairs].T)), shape=(count, count))
    return np.asarray(connected_components(links, directed=False)[1][group], np.int64)


def _members(group: NDArray[np.int64], order: NDArray[np.int64]) -> list[list[int]]:
    sizes = np.bincount(group)
    members: dict[int, list[int]] = defaultdict(list)
    for position in np.flatnonzero(sizes[group] > 1):
        members[int(group[position])].append(int(order[position]))
    return sorted(sorted(indices) for indices in members.values())
