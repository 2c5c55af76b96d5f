"""Near duplicates among synthetic thumbnails."""

from __future__ import annotations

import tracemalloc
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from transfer_platform.data.catalog import ImageRecord
from transfer_platform.data.image_stats import HEADER_DTYPE, ImageStats
from transfer_platform.inspection.near_duplicates import (
    MAX_BRIGHTNESS_DIFFERENCE,
    MAX_COLOR_DIFFERENCE,
    MIN_CORRELATION,
    group_similar,
    near_duplicates,
    similar_images,
)
from transfer_platform.inspection.perceptual_hash import PerceptualHashes, compute_hashes

HeadersAndHashes = tuple[NDArray[np.void], PerceptualHashes]


def make_stats(images: Sequence[ImageRecord], thumbnails: NDArray[np.integer]) -> ImageStats:
    """Statistics of images of 64 x 64 pixels with thumbnails (N, 16, 16, 3)."""
    header = np.zeros(1, HEADER_DTYPE)
    header["width"] = header["height"] = 64
    stats = ImageStats()
    for image, thumbnail in zip(images, thumbnails.astype(np.uint8), strict=True):
        stats.add(image.sha256, header.tobytes() + thumbnail.tobytes())
    return stats


def hashed(thumbnails: NDArray[np.integer], width: int | NDArray[np.integer] = 64) -> HeadersAndHashes:
    """Headers and hashes of images with thumbnails (N, 16, 16, 3) and widths, 64 pixels high."""
    headers = np.zeros(len(thumbnails), HEADER_DTYPE)
    headers["width"], headers["height"] = width, 64
    stats = ImageStats()
    for index, (header, thumbnail) in enumerate(zip(headers, thumbnails.astype(np.uint8), strict=True)):
        stats.add(str(index), header.tobytes() + thumbnail.tobytes())
    return headers, compute_hashes(stats, np.arange(len(headers)))


def images(labels: str, first: int = 0) -> tuple[ImageRecord, ...]:
    return tuple(ImageRecord(f"/{index}", label, f"{index:064}") for index, label in enumerate(labels, first))


def test_thousands_of_video_frames_are_one_finding_in_little_memory() -> None:
    generator = np.random.default_rng(0)
    scene = generator.integers(40, 200, (16, 16, 3))
    frames = scene + generator.integers(-2, 3, (4000, 16, 16, 3))
    records = images("a" * 4000)
    stats = make_stats(records, frames)
    tracemalloc.start()
    try:
        [found] = near_duplicates({"train": records}, similar_images(records, stats))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (found.kind, len(found.files)) == ("near duplicate", 4000)
    assert peak < 120 << 20, "all pairs would take gigabytes"


class Counted(np.ndarray):
    """Vectors that count how many pairs of them are multiplied."""

    pairs = 0

    def __matmul__(self, other: NDArray[np.float32]) -> NDArray[np.float32]:
        product = np.asarray(self) @ np.asarray(other)
        Counted.pairs += product.size
        return product


def pairs_compared(frames: NDArray[np.integer]) -> tuple[list[int], int]:
    """The sizes of the groups of near duplicates, and the number of hashes that were compared to find them."""
    headers, hashes = hashed(frames)
    Counted.pairs = 0
    counted = replace(hashes, hashes=hashes.hashes.view(Counted))
    found = group_similar(headers, counted, np.arange(len(frames)))
    return [len(group) for group in found], Counted.pairs


def test_frames_of_a_fixed_camera_are_one_group_after_few_comparisons() -> None:
    """Every frame differs from the others in one pixel."""
    count = 4000
    generator = np.random.default_rng(4)
    frames = np.repeat(generator.integers(40, 200, (1, 16, 16, 3)), count, axis=0)
    frames[np.arange(count), generator.integers(0, 16, count), generator.integers(0, 16, count)] ^= 1
    records = images("a" * count)
    [finding] = near_duplicates({"train": records}, similar_images(records, make_stats(records, frames)))
    assert len(finding.files) == count
    sizes, pairs = pairs_compared(frames)
    assert sizes == [count]
    assert pairs <= 300 * count, "all pairs would be 8 million"


def test_a_few_other_images_among_those_of_a_fixed_camera_add_few_comparisons() -> None:
    """The camera follows the light of the day; every hundredth image shows something else."""
    count = 4000
    generator = np.random.default_rng(5)
    scene = generator.integers(60, 180, (16, 16, 3))
    frames = scene + np.linspace(-20, 20, count).astype(int)[:, None, None, None]
    frames[::100] = generator.integers(60, 180, (40, 16, 16, 3))
    sizes, pairs = pairs_compared(frames)
    assert sizes == [count - 40]
    assert pairs <= 300 * count


CAMERAS = {
    "two cameras": (2, 0, 1),
    "day and night": (1, 60, 1),
    "two cameras, day and night": (2, 60, 1),
    "a noisy camera": (1, 0, 4),
    "six noisy cameras": (6, 0, 4),
}
"""Number of cameras, difference in brightness between day and night, and largest noise of a thumbnail's pixel."""


@pytest.mark.parametrize("kind", CAMERAS)
def test_frames_of_fixed_cameras_are_a_group_each_after_few_comparisons(kind: str) -> None:
    count = 6000
    cameras, night, noise = CAMERAS[kind]
    generator = np.random.default_rng(6)
    scenes = generator.integers(0, 120, (cameras, 16, 16, 3))
    scenes += 110 - scenes.mean(axis=(1, 2, 3), keepdims=True).astype(int)  # all cameras see equally bright scenes
    camera, is_night = generator.integers(0, cameras, count), generator.integers(0, 2, count)
    frames = scenes[camera] + generator.integers(-noise, noise + 1, (count, 16, 16, 3))
    frames -= (night * is_night)[:, None, None, None]
    records = images("a" * count)
    found = list(near_duplicates({"train": records}, similar_images(records, make_stats(records, frames.clip(0)))))
    groups = cameras * (2 if night else 1)
    assert len(found) == groups
    assert sum(len(each.files) for each in found) == count
    sizes, pairs = pairs_compared(frames.clip(0))
    assert len(sizes) == groups
    assert pairs <= 450 * count, "all pairs would be 3,000 for each image"


@pytest.mark.parametrize("interval", [(0.0, 1.0), (0.5, 1.0), (0.0, 0.5)], ids=["even", "bright", "dark"])
def test_many_images_of_any_brightness_are_compared_in_little_memory(interval) -> None:
    """A few images have few others of similar brightness, most have thousands."""
    count = 12_000
    generator = np.random.default_rng(2)
    light = 40 + 160 * np.sort(generator.uniform(*interval, count))
    light[:20], light[-20:] = np.linspace(20, 40, 20), np.linspace(200, 220, 20)
    noise = generator.integers(-20, 21, (count, 16, 16, 3))
    headers, hashes = hashed(light[:, None, None, None] + noise)
    tracemalloc.start()
    try:
        assert group_similar(headers, hashes, np.arange(count)) == []
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 60 << 20, "all pairs would take half a gigabyte"


def test_images_that_differ_in_tint_are_distinguished_by_their_mean_colors() -> None:
    """All pairs have the same hash, but no thumbnail is read."""
    scene = np.random.default_rng(3).integers(60, 120, (16, 16, 1))
    tints = [(red, -red, blue) for red in range(-40, 41, 8) for blue in range(-20, 21, 20)]
    frames = np.stack([scene + tint for tint in tints])
    headers, hashes = hashed(frames)
    read: list[int] = []
    counting = replace(hashes, thumbnails=lambda indices: read.append(len(indices)) or hashes.thumbnails(indices))
    group_similar(headers, counting, np.arange(len(frames)))
    assert sum(read) == 0


def test_images_are_grouped_transitively() -> None:
    scene = np.random.default_rng(1).integers(40, 200, (16, 16, 3))
    steps = [scene, scene + 3, scene + 6, np.flip(scene, 0)]
    records = images("abab")
    similar = similar_images(records, make_stats(records, np.stack(steps)))
    [found] = near_duplicates({"train": records[:2], "test": records[2:]}, similar)
    assert found.kind == "near duplicate across splits"
    assert found.files == (Path("/0"), Path("/1"), Path("/2"))


@pytest.mark.parametrize("seed", range(12))
def test_groups_are_those_of_comparing_all_pairs(seed) -> None:
    generator = np.random.default_rng(seed)
    scenes = generator.integers(60, 180, (6, 16, 16, 3))
    drift = generator.integers(0, 12, (60, 1, 1, 1)) + generator.integers(-1, 2, (60, 16, 16, 3))
    frames = scenes[generator.integers(0, 6, 60)] + drift
    headers, hashes = hashed(frames, generator.choice([64, 128], 60))
    every = np.array([(one, two) for one in range(60) for two in range(one + 1, 60)])
    one, two = every.T
    close = np.abs(hashes.brightness[one] - hashes.brightness[two]) <= MAX_BRIGHTNESS_DIFFERENCE
    close &= (hashes.hashes[one] * hashes.hashes[two]).sum(axis=1) >= MIN_CORRELATION
    close &= np.abs(frames[one] - frames[two]).mean((1, 2, 3)) <= MAX_COLOR_DIFFERENCE
    close &= headers["width"][one] == headers["width"][two]
    links = coo_array((np.ones(close.sum()), every[close].T), shape=(60, 60))
    group = connected_components(links, directed=False)[1]
    expected = [np.flatnonzero(group == each).tolist() for each in np.unique(group)]
    shuffled = generator.permutation(60)
    found = group_similar(headers, hashes, shuffled, block=(8, 20), pairs_at_once=7)
    assert found == [members for members in expected if len(members) > 1]
    assert len(found) > 3


def test_every_split_and_class_of_a_large_group_is_listed() -> None:
    records = images("a" * 20 + "z")
    [finding] = near_duplicates({"train": records}, [[image.sha256 for image in records]])
    assert finding.detail.startswith("train/a, train/z, train/a, ")
    assert [str(path) for path in finding.files[:2]] == ["/0", "/20"]
