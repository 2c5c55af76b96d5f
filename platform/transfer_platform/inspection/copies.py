"""Pictures that are there more than once: the same bytes, or the same to the eye."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from transfer_platform.data.looks import SKETCH
from transfer_platform.data.splits import shared_images
from transfer_platform.inspection.finding import Finding

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from transfer_platform.data.catalog import Picture

SAME_LIGHT = 6.0
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
        looks: Their `data.looks.LOOK`s, by digest.
    """
    unique: dict[str, tuple[str, Picture]] = {}
    for role, pictures in roles.items():
        for picture in pictures:
            unique.setdefault(picture.sha256, (role, picture))
    held = list(unique.values())
    if len(held) < 2:
        return
    pairs = alike(np.array([looks[picture.sha256] for _, picture in held]))
    for group in _groups(pairs, len(held)):
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


def alike(looks: NDArray[np.void]) -> NDArray[np.int64]:
    """Which pictures look the same.

    Two sketches that are about as bright are compared by their coarse forms, the lowest frequencies of a
    cosine transform (Zauner, 2010), and those of equal form by their colours.

    Args:
        looks: `data.looks.LOOK`s (N,).

    Returns:
        Pairs of places (P, 2), the smaller one first.
    """
    sketches = looks["sketch"].reshape(len(looks), -1).astype(np.float32)
    forms, formed = _forms(looks["sketch"])
    light = sketches.mean(axis=1)
    order = np.argsort(light, kind="stable")
    order = order[formed[order]]
    forms, light = forms[order], light[order]
    shape = np.log(looks["width"][order] / looks["height"][order])
    found = []
    for start in range(0, len(order), _ROWS):
        stop = min(start + _ROWS, len(order))
        end = int(np.searchsorted(light, light[stop - 1] + SAME_LIGHT, side="right"))
        close = forms[start:stop] @ forms[start:end].T >= SAME_FORM
        rows, columns = np.nonzero(np.triu(close, 1))
        one, other = rows + start, columns + start
        fitting = (light[other] - light[one] <= SAME_LIGHT) & (
            np.abs(shape[one] - shape[other]) <= SAME_SHAPE
        )
        one, other = order[one[fitting]], order[other[fitting]]
        differences = np.abs(sketches[one] - sketches[other]).mean(axis=1)
        same = differences <= SAME_COLOURS
        found.append(np.sort(np.stack([one[same], other[same]], axis=1), axis=1))
    return np.concatenate(found) if found else np.empty((0, 2), np.int64)


def _forms(sketches: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Unit vectors (N, 63) of the lowest frequencies, the mean left out, and which sketches have a form."""
    from scipy.fft import dctn

    grey = sketches.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
    formed = grey.reshape(len(grey), -1).std(axis=1) >= PLAIN
    waves = dctn(grey, axes=(1, 2), norm="ortho")[:, :_FREQUENCIES, :_FREQUENCIES].reshape(len(grey), -1)[
        :, 1:
    ]
    assert waves.shape[1] == _FREQUENCIES**2 - 1 < SKETCH**2
    length = np.linalg.norm(waves, axis=1, keepdims=True)
    return (waves / np.maximum(length, 1e-6)).astype(np.float32), formed


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
