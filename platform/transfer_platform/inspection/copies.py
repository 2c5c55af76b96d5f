"""Pictures that are there more than once: the same bytes, or the same to the eye."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from transfer_platform.data.looks import LUMA, SKETCH
from transfer_platform.data.splits import shared_images
from transfer_platform.inspection.finding import Finding

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from transfer_platform.data.catalog import Picture

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

_FREQUENCIES = 8
_ROWS = 2048


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
    roles: Mapping[str, Sequence[Picture]], looks: Mapping[str, NDArray[np.void]]
) -> Iterator[Finding]:
    """Pictures of different bytes that look the same: resized, compressed anew, or one frame later.

    Args:
        roles: The pictures of each split.
        looks: Of each split, the `data.looks.LOOK`s of its pictures.
    """
    places: dict[str, int] = {}
    held = [(role, picture) for role, pictures in roles.items() for picture in pictures]
    for place, (_, picture) in enumerate(held):
        places.setdefault(picture.sha256, place)
    unique = list(places.values())
    pairs = alike(np.concatenate([looks[role] for role in roles])[unique])
    for group in _groups(pairs, len(unique)):
        members = [held[unique[index]] for index in group]
        found, labels = {role for role, _ in members}, {picture.label for _, picture in members}
        kind = "near copy"
        if len(found) > 1:
            kind = "near copy in another split"
        elif len(labels) > 1:
            kind = "near copy with another label"
        detail = ", ".join(f"{role}/{picture.label}" for role, picture in members[:8])
        more = f" and {len(members) - 8} more" if len(members) > 8 else ""
        yield Finding(kind, tuple(picture.path for _, picture in members), detail + more)


def alike(looks: NDArray[np.void]) -> NDArray[np.int64]:
    """Which pictures look the same.

    Two sketches that are about as bright are compared by their coarse forms, the lowest frequencies of a
    cosine transform (Zauner, 2010), and those of equal form by their colours.

    Args:
        looks: `data.looks.LOOK`s (N,).

    Returns:
        Pairs of places (P, 2), the smaller one first.
    """
    light, forms, formed = _forms(looks["sketch"])
    order = np.argsort(light, kind="stable")
    order = order[formed[order]]
    light, forms = light[order], forms[order]
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


def _forms(
    sketches: NDArray[np.uint8],
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_]]:
    """The coarse form of each sketch.

    Returns:
        Mean brightness (N,), unit vectors of the lowest other frequencies (N, 63), and which sketches have
        enough of them to be told by.
    """
    basis = _basis()
    blocks = range(0, len(sketches), _ROWS)
    flat = sketches.reshape(len(sketches), -1)
    waves = np.concatenate([flat[start : start + _ROWS].astype(np.float32) @ basis for start in blocks])
    forms = waves[:, 1:]
    length = np.maximum(np.linalg.norm(forms, axis=1), np.float32(1e-6))
    return waves[:, 0] / np.float32(SKETCH), forms / length[:, None], length >= PLAIN * SKETCH


def _basis() -> NDArray[np.float32]:
    """RGB pixels of a sketch -> luma -> its 8 x 8 lowest frequencies, orthonormal: (768, 64)."""
    place = np.arange(SKETCH)
    waves = np.cos(np.pi * np.outer(2 * place + 1, np.arange(_FREQUENCIES)) / (2 * SKETCH))
    waves *= np.sqrt(np.where(np.arange(_FREQUENCIES) == 0, 1, 2) / SKETCH)
    both = np.einsum("yu,xv,c->yxcuv", waves, waves, np.array(LUMA))
    basis: NDArray[np.float32] = both.reshape(3 * SKETCH**2, _FREQUENCIES**2).astype(np.float32)
    return basis


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
