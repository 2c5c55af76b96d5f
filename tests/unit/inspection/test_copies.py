"""What counts as the same picture, on sketches that are made by hand."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from transfer_platform.data.catalog import Picture
from transfer_platform.data.looks import LOOK
from transfer_platform.inspection.copies import exact_copies, near_copies
from transfer_platform.inspection.sketches import study


def sketched(sketches: NDArray[np.integer]) -> NDArray[np.void]:
    """Looks of square pictures with these sketches (N, 16, 16, 3)."""
    looks = np.zeros(len(sketches), LOOK)
    looks["width"] = looks["height"] = 64
    looks["sketch"] = sketches
    return looks


def pictures(labels: str, first: int = 0) -> tuple[Picture, ...]:
    return tuple(
        Picture(Path(f"/{place}"), label, f"{place:064}") for place, label in enumerate(labels, first)
    )


def test_thousands_of_frames_of_one_camera_are_one_finding_in_little_memory() -> None:
    generator = np.random.default_rng(0)
    scene = generator.integers(40, 200, (16, 16, 3))
    frames = scene + generator.integers(-2, 3, (4000, 16, 16, 3))
    looks = sketched(frames)
    sketches = study(looks)
    tracemalloc.start()
    try:
        [found] = near_copies({"train": pictures("a" * 4000)}, looks, sketches)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (found.kind, len(found.files)) == ("near copy", 4000)
    assert peak < 120 << 20, "all pairs would take gigabytes"


def test_pictures_are_connected_by_others() -> None:
    scene = np.random.default_rng(1).integers(40, 200, (16, 16, 3))
    steps = [scene, scene + 4, scene + 8, np.flip(scene, 0)]
    looks = sketched(np.stack(steps))
    [found] = near_copies({"train": pictures("ab"), "test": pictures("ab", 2)}, looks, study(looks))
    assert found.kind == "near copy in another split"
    assert found.files == (Path("/0"), Path("/1"), Path("/2"))


def test_the_same_bytes_with_two_labels_are_a_conflict_in_whatever_splits() -> None:
    same = [Picture(Path(f"/{name}"), name, "0" * 64) for name in ("ant", "bee")]
    for allowed in (frozenset(), frozenset({Path("/bee")})):
        found = {each.kind: each for each in exact_copies({"train": same[:1], "test": same[1:]}, allowed)}
        assert found["copy with another label"].detail == "train/ant and test/bee"
        assert ("copy in another split" in found) == (not allowed)
    [found_within] = exact_copies({"train": same})
    assert found_within.kind == "copy with another label"
