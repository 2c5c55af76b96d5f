"""What counts as the same image, on sketches that are made by hand."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from transfer_platform.data.catalog import ImageRecord
from transfer_platform.data.image_stats import HEADER_DTYPE, ImageStats
from transfer_platform.inspection import duplicates
from transfer_platform.inspection.duplicates import (
    MAX_BRIGHTNESS_DIFFERENCE,
    MAX_COLOR_DIFFERENCE,
    MIN_CORRELATION,
    exact_duplicates,
    group_similar,
    near_duplicates,
)
from transfer_platform.inspection.perceptual_hash import PerceptualHashes, compute_hashes

Studied = tuple[NDArray[np.void], PerceptualHashes]


def studied(sketches: NDArray[np.integer], width: int | NDArray[np.integer] = 64) -> Studied:
    """Facts and `PerceptualHashes` of images with these sketches (N, 16, 16, 3) and widths, 64 pixels high."""
    facts = np.zeros(len(sketches), HEADER_DTYPE)
    facts["width"], facts["height"] = width, 64
    looks = ImageStats()
    for place, (fact, sketch) in enumerate(zip(facts, sketches.astype(np.uint8), strict=True)):
        looks.add(str(place), fact.tobytes() + sketch.tobytes())
    return facts, compute_hashes(looks, np.arange(len(facts)))


def images(labels: str, first: int = 0) -> tuple[ImageRecord, ...]:
    return tuple(ImageRecord(f"/{place}", label, f"{place:064}") for place, label in enumerate(labels, first))


def test_thousands_of_frames_of_one_camera_are_one_finding_in_little_memory() -> None:
    generator = np.random.default_rng(0)
    scene = generator.integers(40, 200, (16, 16, 3))
    frames = scene + generator.integers(-2, 3, (4000, 16, 16, 3))
    facts, sketches = studied(frames)
    tracemalloc.start()
    try:
        [found] = near_duplicates({"train": images("a" * 4000)}, facts, sketches)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (found.kind, len(found.files)) == ("near copy", 4000)
    assert peak < 120 << 20, "all pairs would take gigabytes"


@pytest.mark.parametrize("crowded", [(0.0, 1.0), (0.5, 1.0), (0.0, 0.5)], ids=["even", "bright", "dark"])
def test_many_images_of_any_brightness_are_compared_in_little_memory(crowded) -> None:
    """Some are nearly alone with theirs, so that what they are compared with cannot tell how many follow."""
    count = 12_000
    generator = np.random.default_rng(2)
    light = 40 + 160 * np.sort(generator.uniform(*crowded, count))
    light[:20], light[-20:] = np.linspace(20, 40, 20), np.linspace(200, 220, 20)
    noise = generator.integers(-20, 21, (count, 16, 16, 3))
    facts, sketches = studied(light[:, None, None, None] + noise)
    tracemalloc.start()
    try:
        assert group_similar(facts, sketches, np.arange(count)) == []
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 60 << 20, "all pairs would take half a gigabyte"


def test_images_of_one_form_and_many_tints_are_told_apart_by_their_mean_colours() -> None:
    """A fixed camera over coloured parts: all pairs have the same form, and no sketch is read."""
    scene = np.random.default_rng(3).integers(60, 120, (16, 16, 1))
    tints = [(red, -red, blue) for red in range(-40, 41, 8) for blue in range(-20, 21, 20)]
    frames = np.stack([scene + tint for tint in tints])
    facts, sketches = studied(frames)
    read: list[int] = []
    counting = replace(
        sketches, thumbnails=lambda places: read.append(len(places)) or sketches.thumbnails(places)
    )
    group_similar(facts, counting, np.arange(len(frames)))
    assert sum(read) == 0


def test_images_are_connected_by_others() -> None:
    scene = np.random.default_rng(1).integers(40, 200, (16, 16, 3))
    steps = [scene, scene + 3, scene + 6, np.flip(scene, 0)]
    [found] = near_duplicates({"train": images("ab"), "test": images("ab", 2)}, *studied(np.stack(steps)))
    assert found.kind == "near copy in another split"
    assert found.files == (Path("/0"), Path("/1"), Path("/2"))


@pytest.mark.parametrize("seed", range(12))
def test_what_is_connected_is_what_comparing_all_with_all_connects(seed, monkeypatch) -> None:
    """In blocks of a few images, and pairs a few at a time."""
    monkeypatch.setattr(duplicates, "_ROWS", 8)
    monkeypatch.setattr(duplicates, "_COLUMNS", 20)
    monkeypatch.setattr(duplicates, "_LOOKED_AT", 7)
    generator = np.random.default_rng(seed)
    scenes = generator.integers(60, 180, (6, 16, 16, 3))
    drift = generator.integers(0, 12, (60, 1, 1, 1)) + generator.integers(-1, 2, (60, 16, 16, 3))
    frames = scenes[generator.integers(0, 6, 60)] + drift
    facts, sketches = studied(frames, generator.choice([64, 128], 60))
    every = np.array([(one, two) for one in range(60) for two in range(one + 1, 60)])
    one, two = every.T
    close = np.abs(sketches.brightness[one] - sketches.brightness[two]) <= MAX_BRIGHTNESS_DIFFERENCE
    close &= (sketches.hashes[one] * sketches.hashes[two]).sum(axis=1) >= MIN_CORRELATION
    close &= np.abs(frames[one] - frames[two]).mean((1, 2, 3)) <= MAX_COLOR_DIFFERENCE
    close &= facts["width"][one] == facts["width"][two]
    links = coo_array((np.ones(close.sum()), every[close].T), shape=(60, 60))
    group = connected_components(links, directed=False)[1]
    expected = [np.flatnonzero(group == each).tolist() for each in np.unique(group)]
    shuffled = generator.permutation(60)
    found = group_similar(facts, sketches, shuffled)
    assert found == [members for members in expected if len(members) > 1]
    assert len(found) > 3


def test_the_same_bytes_with_two_labels_are_a_conflict_in_whatever_splits() -> None:
    same = [ImageRecord(f"/{name}", name, "0" * 64) for name in ("ant", "bee")]
    for allowed in (frozenset(), frozenset({Path("/bee")})):
        found = {each.kind: each for each in exact_duplicates({"train": same[:1], "test": same[1:]}, allowed)}
        assert found["copy with another label"].detail == "train/ant and test/bee"
        assert ("copy in another split" in found) == (not allowed)
    [found_within] = exact_duplicates({"train": same})
    assert found_within.kind == "copy with another label"
