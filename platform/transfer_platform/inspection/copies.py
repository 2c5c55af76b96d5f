"""Pictures that are there more than once: the same bytes, or the same to the eye."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from transfer_platform.data.splits import shared_images
from transfer_platform.inspection.finding import Finding

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from transfer_platform.data.catalog import Picture
    from transfer_platform.inspection.sketches import Sketches

SAME_LIGHT = 4.0
"""Levels (of 255) by which the mean brightness of near copies may differ."""
SAME_FORM = 0.97
"""Smallest correlation of the coarse forms of near copies, 1 for equal ones."""
SAME_COLOURS = 5.0
"""Largest mean difference of their sketches, in levels (of 255)."""
SAME_SHAPE = 0.05
"""Largest difference of their aspect ratios, relative."""
PLAIN = 4.0
"""Levels (of 255) of deviation below which a sketch has no form to compare: skies, blank pages."""

_ROWS = 512


def exact_copies(
    roles: Mapping[str, Sequence[Picture]], allowed: Collection[Path] = frozenset()
) -> Iterator[Finding]:
    """Files of the same bytes.

    Args:
        roles: The pictures of each split.
        allowed: Files that may lie in two splits.
    """
    for shared in shared_images(roles, allowed):
        files = tuple(picture.path for pictures in shared.values() for picture in pictures)
        yield Finding("copy in another split", files, " and ".join(shared))
    for pictures in roles.values():
        if len({picture.sha256 for picture in pictures}) == len(pictures):
            continue
        same: dict[str, list[Picture]] = defaultdict(list)
        for picture in pictures:
            same[picture.sha256].append(picture)
        for group in same.values():
            if len(group) > 1:
                labels = sorted({picture.label for picture in group})
                kind = "copy" if len(labels) == 1 else "copy with another label"
                yield Finding(kind, tuple(picture.path for picture in group), " and ".join(labels))


def near_copies(
    roles: Mapping[str, Sequence[Picture]], looks: NDArray[np.void], sketches: Sketches
) -> Iterator[Finding]:
    """Pictures of different bytes that look the same: resized, compressed anew, or one frame later.

    Args:
        roles: The pictures of each split.
        looks: The `data.looks.LOOK`s of all of them, split by split (N,).
        sketches: What `sketches.study` says of them.
    """
    places: dict[str, int] = {}
    held = [(role, picture) for role, pictures in roles.items() for picture in pictures]
    for place, (_, picture) in enumerate(held):
        places.setdefault(picture.sha256, place)
    pairs = alike(looks, sketches)
    first = np.zeros(len(held), bool)  # of the pictures of the same bytes
    first[list(places.values())] = True
    for group in _groups(pairs[first[pairs].all(axis=1)], len(held)):
        members = [held[index] for index in group]
        found, labels = {role for role, _ in members}, {picture.label for _, picture in members}
        kind = "near copy"
        if len(found) > 1:
            kind = "near copy in another split"
        elif len(labels) > 1:
            kind = "near copy with another label"
        detail = ", ".join(f"{role}/{picture.label}" for role, picture in members[:8])
        more = f" and {len(members) - 8} more" if len(members) > 8 else ""
        yield Finding(kind, tuple(picture.path for _, picture in members), detail + more)


def alike(looks: NDArray[np.void], sketches: Sketches) -> NDArray[np.int64]:
    """Which pictures look the same.

    Two sketches that are about as bright are compared by their coarse forms, the lowest frequencies of a
    cosine transform (Zauner, 2010), and those of equal form by their colours.

    Args:
        looks: `data.looks.LOOK`s (N,).
        sketches: What `sketches.study` says of them.

    Returns:
        Pairs of places (P, 2), the smaller one first.
    """
    order = np.argsort(sketches.light, kind="stable")
    order = order[sketches.deviation[order] >= PLAIN]
    light, forms = sketches.light[order], sketches.forms[order]
    found = [np.empty((0, 2), np.int64)]
    for start in range(0, len(order), _ROWS):
        stop = min(start + _ROWS, len(order))
        end = int(np.searchsorted(light, light[stop - 1] + SAME_LIGHT, side="right"))
        close = forms[start:stop] @ forms[start:end].T >= SAME_FORM
        some = np.flatnonzero(np.count_nonzero(close, axis=1) > 1)  # each is like itself
        rows, columns = np.nonzero(close[some])
        pairs = np.stack([some[rows], columns], axis=1)
        pairs = order[pairs[pairs[:, 0] < pairs[:, 1]] + start]
        found.append(pairs[_same(looks, pairs)])
    return np.sort(np.concatenate(found), axis=1)


def _same(looks: NDArray[np.void], pairs: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which pairs of equal form have the same colours and the same shape."""
    one, other = looks[pairs[:, 0]], looks[pairs[:, 1]]
    differences = np.abs(one["sketch"].astype(np.int16) - other["sketch"]).mean(axis=(1, 2, 3))
    shapes = np.log(one["width"] / one["height"]) - np.log(other["width"] / other["height"])
    same: NDArray[np.bool_] = (differences <= SAME_COLOURS) & (np.abs(shapes) <= SAME_SHAPE)
    return same


def _groups(pairs: NDArray[np.int64], count: int) -> Iterator[list[int]]:
    """The sets of places that pairs connect, in the order of their first members."""
    if not len(pairs):
        return
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    links = coo_array((np.ones(len(pairs), np.int8), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    _, group = connected_components(links, directed=False)
    members: dict[int, list[int]] = defaultdict(list)
    for place in np.unique(pairs):
        members[int(group[place])].append(int(place))
    yield from members.values()
