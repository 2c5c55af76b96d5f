"""Images that are there more than once: the same bytes, or the same to the eye."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from transfer_platform.data.splits import images_in_several_splits
from transfer_platform.inspection.findings import Finding

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from transfer_platform.data.catalog import ImageRecord
    from transfer_platform.inspection.perceptual_hash import PerceptualHashes

MAX_BRIGHTNESS_DIFFERENCE = 4.0
"""Levels (of 255) by which the mean brightness of near copies may differ."""
MIN_CORRELATION = 0.97
"""Smallest correlation of the coarse forms of near copies, 1 for equal ones."""
MAX_COLOR_DIFFERENCE = 5.0
"""Largest mean difference of their sketches, in levels (of 255)."""
MAX_ASPECT_DIFFERENCE = 0.05
"""Largest difference of their aspect ratios, relative."""
MIN_CONTRAST = 4.0
"""Levels (of 255) of deviation below which a sketch has no form to compare: skies, blank pages."""

_ROWS, _COLUMNS = 256, 4096
"""Forms that are compared at once with others, and how many others."""
_ROUNDING = 0.01
"""Levels that mean colours may be off."""
_LOOKED_AT = 1 << 13
"""Pairs whose colours are compared at once."""


def exact_duplicates(
    roles: Mapping[str, Sequence[ImageRecord]], allowed: Collection[Path] = frozenset()
) -> Iterator[Finding]:
    """Files of the same bytes.

    Args:
        roles: The images of each split.
        allowed: Files that may lie in two splits.
    """
    for shared in images_in_several_splits(roles, allowed):
        yield Finding("copy in another split", _paths(shared), " and ".join(_places(shared)))
    times = Counter(image.sha256 for images in roles.values() for image in images)
    same: dict[str, dict[str, list[ImageRecord]]] = defaultdict(lambda: defaultdict(list))
    for role, images in roles.items():
        for image in images:
            if times[image.sha256] > 1:
                same[image.sha256][role].append(image)
    for held in same.values():
        labels = {image.label for images in held.values() for image in images}
        if len(labels) > 1:
            yield Finding("copy with another label", _paths(held), " and ".join(_places(held)))
        else:
            yield from (
                Finding("copy", tuple(image.path for image in images), f"{role}/{images[0].label}")
                for role, images in held.items()
                if len(images) > 1
            )


def _paths(held: Mapping[str, Sequence[ImageRecord]]) -> tuple[Path, ...]:
    return tuple(image.path for images in held.values() for image in images)


def _places(held: Mapping[str, Sequence[ImageRecord]]) -> list[str]:
    """Which splits and classes some images are in, by split."""
    found = {f"{role}/{image.label}" for role, images in held.items() for image in images}
    return sorted(found, key=lambda each: (list(held).index(each.partition("/")[0]), each))


def near_duplicates(
    roles: Mapping[str, Sequence[ImageRecord]], facts: NDArray[np.void], sketches: PerceptualHashes
) -> Iterator[Finding]:
    """Images of different bytes that look the same: resized, compressed anew, or one frame later.

    Args:
        roles: The images of each split.
        facts: The `data.looks.FACTS` of all of them, split by split (N,).
        sketches: What `sketches.study` says of them.
    """
    names, held = list(roles), [image for images in roles.values() for image in images]
    role_of = np.repeat(np.arange(len(names)), [len(images) for images in roles.values()])
    for group in group_similar(facts, sketches, _different(roles)):
        members = [(names[role_of[index]], held[index]) for index in group]
        if len({image.sha256 for _, image in members}) == 1:
            continue
        found, labels = {role for role, _ in members}, {image.label for _, image in members}
        kind = "near copy"
        if len(found) > 1:
            kind = "near copy in another split"
        elif len(labels) > 1:
            kind = "near copy with another label"
        detail = ", ".join(f"{role}/{image.label}" for role, image in members[:8])
        more = f" and {len(members) - 8} more" if len(members) > 8 else ""
        yield Finding(kind, tuple(image.path for _, image in members), detail + more)


def _different(roles: Mapping[str, Sequence[ImageRecord]]) -> NDArray[np.int64]:
    """The places of all images, split by split, but those whose bytes came before in the same split."""
    places: list[int] = []
    start = 0
    for images in roles.values():
        seen: set[str] = set()
        for place, image in enumerate(images, start):
            if image.sha256 not in seen:
                seen.add(image.sha256)
                places.append(place)
        start += len(images)
    return np.array(places, np.int64)


def group_similar(
    facts: NDArray[np.void], sketches: PerceptualHashes, among: NDArray[np.int64]
) -> list[list[int]]:
    """Which images look the same.

    Two sketches that are about as bright are compared by their coarse forms, the lowest frequencies of a
    cosine transform (Zauner, 2010), and those of equal form by their colours. What is known to be connected
    by others is not compared, so that a thousand frames of one camera do not make a million pairs.

    Args:
        facts: `data.looks.FACTS` (N,).
        sketches: What `sketches.study` says of them.
        among: Places (M,) of those to compare.

    Returns:
        The places of each set of images that are connected by being alike, two at least; in the order of
        their first ones.
    """
    order = among[np.argsort(sketches.brightness[among], kind="stable")]
    order = order[sketches.deviation[order] >= MIN_CONTRAST]
    light, forms = sketches.brightness[order], sketches.hashes
    shapes = np.log(facts["width"] / facts["height"])
    ends = np.searchsorted(light, light + MAX_BRIGHTNESS_DIFFERENCE, side="right")
    group = np.arange(len(order))
    for rows, columns in _tiles(ends):
        close = np.flatnonzero(forms[order[rows]] @ forms[order[columns]].T >= MIN_CORRELATION)
        one, other = np.divmod(close, columns.stop - columns.start)
        pairs = np.stack((one + rows.start, other + columns.start), axis=1)
        pairs = pairs[(pairs[:, 0] < pairs[:, 1]) & (pairs[:, 1] < ends[pairs[:, 0]])]
        pairs = pairs[_perhaps(shapes, sketches.mean_color, order[pairs])]
        while len(pairs := pairs[group[pairs[:, 0]] != group[pairs[:, 1]]]):
            some, pairs = pairs[:_LOOKED_AT], pairs[_LOOKED_AT:]
            group = _joined(group, some[_same(sketches, order[some])])
    return _members(group, order)


def _tiles(ends: NDArray[np.int64]) -> Iterator[tuple[slice, slice]]:
    """Rows and columns that hold each pair of a place with a later one before its end (N,)."""
    for start in range(0, len(ends), _ROWS):
        stop = min(start + _ROWS, len(ends))
        last = int(ends[stop - 1])
        for left in range(start, last, _COLUMNS):
            yield slice(start, stop), slice(left, min(left + _COLUMNS, last))


def _perhaps(
    shapes: NDArray[np.float64], colour: NDArray[np.float32], pairs: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Which pairs (P, 2) have the same shape, and mean colours that do not rule the same colours out."""
    one, other = pairs.T
    colours = np.abs(colour[one] - colour[other]).mean(axis=1)
    perhaps: NDArray[np.bool_] = colours <= MAX_COLOR_DIFFERENCE + _ROUNDING
    perhaps &= np.abs(shapes[one] - shapes[other]) <= MAX_ASPECT_DIFFERENCE
    return perhaps


def _same(sketches: PerceptualHashes, pairs: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which pairs (P, 2) of equal form have the same colours."""
    places, where = np.unique(pairs, return_inverse=True)
    pixels = sketches.thumbnails(places).astype(np.int16)
    one, other = where.reshape(pairs.shape).T
    differences = np.abs(pixels[one] - pixels[other]).mean(axis=(1, 2, 3))
    same: NDArray[np.bool_] = differences <= MAX_COLOR_DIFFERENCE
    return same


def _joined(group: NDArray[np.int64], pairs: NDArray[np.int64]) -> NDArray[np.int64]:
    """The number of each place's group (N,), once the groups of pairs (P, 2) of places are one."""
    if not len(pairs):
        return group
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    count = len(group)
    links = coo_array((np.ones(len(pairs), np.int8), tuple(group[pairs].T)), shape=(count, count))
    joined: NDArray[np.int64] = connected_components(links, directed=False)[1].astype(np.int64)[group]
    return joined


def _members(group: NDArray[np.int64], order: NDArray[np.int64]) -> list[list[int]]:
    sizes = np.bincount(group)
    members: dict[int, list[int]] = defaultdict(list)
    for place in np.flatnonzero(sizes[group] > 1):
        members[int(group[place])].append(int(order[place]))
    return sorted(sorted(each) for each in members.values())
