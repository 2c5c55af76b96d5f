"""What one decoding of an image tells, how it is kept while it is needed, and how it is remembered."""

from __future__ import annotations

import struct
import subprocess
import sys
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from transfer_model.errors import UnreadableImageError
from transfer_model.preprocessing import decode
from transfer_platform.data import chunk
from transfer_platform.data.catalog import scan_folder
from transfer_platform.data.image_stats import (
    HEADER_DTYPE,
    STATS_BYTES,
    THUMBNAIL_SIDE,
    ImageStats,
    compute_stats,
)
from transfer_platform.data.look_memory import ImageStatsCache
from transfer_platform.paths import cache_folder


def photograph(width: int, height: int, orientation: int = 1) -> bytes:
    """A JPEG that is dark on the left and bright on the right, red at the top and blue at the bottom."""
    across = np.linspace(0, 255, width)[None, :].repeat(height, 0)
    down = np.linspace(255, 0, height)[:, None].repeat(width, 1)
    image = Image.fromarray(np.stack([down, across, 255 - down], axis=2).astype(np.uint8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = BytesIO()
    image.save(content, "JPEG", quality=95, exif=exif)
    return content.getvalue()


def seen(content: bytes) -> tuple[np.void, np.ndarray]:
    looks = ImageStats()
    looks.add("it", compute_stats(content, "it"))
    rows = looks.rows(["it"])
    return looks.headers(rows)[0], looks.thumbnails(rows)[0]


@pytest.mark.parametrize("sides", [(20, 12), (130, 70), (641, 479), (3001, 1999)])
def test_an_image_is_sketched_whole_and_its_sides_are_those_of_the_file(sides: tuple[int, int]) -> None:
    """However few pixels of a JPEG are computed for its sketch."""
    facts, sketch = seen(photograph(*sides))
    assert (facts["width"], facts["height"], facts["format"]) == (*sides, b"JPEG")
    middles = (np.arange(THUMBNAIL_SIDE) + 0.5) * 255 / THUMBNAIL_SIDE
    assert np.abs(sketch[:, :, 1].mean(0) - middles).max() < 12
    assert np.abs(sketch[:, :, 2].mean(1) - middles).max() < 12


def test_sides_and_sketch_are_those_of_the_upright_image() -> None:
    facts, sketch = seen(photograph(640, 480, orientation=6))
    assert (facts["width"], facts["height"], facts["orientation"]) == (480, 640, 6)
    assert sketch[0, :, 1].mean() < 20 < 230 < sketch[-1, :, 1].mean(), "what was left is now above"


@pytest.mark.parametrize("share", [0.5, 0.9, 0.99])
def test_a_large_jpeg_that_is_cut_off_is_no_image_though_few_of_its_pixels_are_computed(share) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (900, 1200, 3), np.uint8)
    content = BytesIO()
    Image.fromarray(noise).save(content, "JPEG")
    with pytest.raises(UnreadableImageError, match="truncated or damaged JPEG"):
        compute_stats(content.getvalue()[: int(share * len(content.getvalue()))], "it")


def encoded(kind: str) -> bytes:
    """An image of noise in a format, in a mode that Pillow treats apart where the name says one."""
    name, _, mode = kind.partition(" ")
    noise = np.random.default_rng(1).integers(0, 256, (60, 90, 3), np.uint8)
    image = Image.fromarray(noise)
    if mode == "deep":
        image = Image.fromarray(noise[:, :, 0].astype(np.uint16) * 257)
    elif mode:
        image = image.convert(mode)
    content = BytesIO()
    frames = [image.rotate(90), image.rotate(180)] if mode in ("RGBA", "P") else []
    image.save(content, name, save_all=bool(frames), append_images=frames)
    return content.getvalue()


def damaged(content: bytes, generator: np.random.Generator) -> bytes:
    """A bit changed, a piece zeroed, or the end cut off."""
    broken, place = bytearray(content), int(generator.integers(8, len(content)))
    match int(generator.integers(3)):
        case 0:
            broken[place] ^= 1 << int(generator.integers(8))
        case 1:
            broken[place : place + 200] = bytes(len(broken[place : place + 200]))
        case _:
            del broken[place:]
    return bytes(broken)


def verdict(read: Callable[[bytes, str], object], content: bytes) -> str:
    try:
        read(content, "it")
    except UnreadableImageError as error:
        return str(error)
    return "fine"


@pytest.mark.parametrize(
    "kind",
    [
        "JPEG",
        "JPEG CMYK",
        "PNG",
        "PNG P",
        "PNG RGBA",
        "PNG deep",
        "GIF P",
        "WEBP",
        "WEBP RGBA",
        "TIFF",
        "BMP",
    ],
)
def test_what_is_refused_is_what_decoding_refuses(kind: str) -> None:
    generator, content = np.random.default_rng(2), encoded(kind)
    assert verdict(compute_stats, content) == verdict(decode, content) == "fine"
    broken = [damaged(content, generator) for _ in range(80)]
    told = [verdict(decode, each) for each in broken]
    assert [verdict(compute_stats, each) for each in broken] == told
    assert set(told) != {"fine"}, "no damage was noticed"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_sides_are_those_of_the_decoded_image_however_it_lies(kind: str, orientation: int) -> None:
    exif, content = Image.Exif(), BytesIO()
    exif[0x0112] = orientation
    Image.new("RGB", (400, 240)).save(content, kind, exif=exif)
    facts, _ = seen(content.getvalue())
    assert (facts["width"], facts["height"]) == decode(content.getvalue(), "it").size
    assert facts["orientation"] == orientation


def test_an_orientation_that_is_no_integer_is_understood() -> None:
    """6 as a rational number, which no standard allows and Pillow reads."""
    field = struct.pack("<HHII", 0x0112, 5, 1, 26)
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 1) + field + struct.pack("<III", 0, 6, 1)
    content = BytesIO()
    Image.new("RGB", (400, 240)).save(content, "JPEG", exif=exif)
    facts, _ = seen(content.getvalue())
    assert (facts["width"], facts["height"], facts["orientation"]) == (240, 400, 6)


def test_looks_are_found_by_digest_whenever_they_came() -> None:
    generator, looks = np.random.default_rng(0), ImageStats()
    given = {f"{place}": generator.bytes(STATS_BYTES) for place in range(300)}
    for place, (digest, each) in enumerate(given.items()):
        looks.add(digest, each)
        looks.add(digest, bytes(STATS_BYTES))
        if place == 100:
            looks.thumbnails(looks.rows(["50"]))
    asked = [f"{place}" for place in generator.permutation(300)]
    rows = looks.rows(asked)
    assert [each.tobytes() for each in looks.headers(rows)] == [
        given[each][: HEADER_DTYPE.itemsize] for each in asked
    ]
    sketches = looks.thumbnails(rows)
    assert sketches.shape == (300, THUMBNAIL_SIDE, THUMBNAIL_SIDE, 3)
    assert [each.tobytes() for each in sketches] == [given[each][HEADER_DTYPE.itemsize :] for each in asked]
    assert looks.thumbnails(rows[:0]).shape == (0, THUMBNAIL_SIDE, THUMBNAIL_SIDE, 3)
    assert ("7" in looks, "300" in looks) == (True, False)


def test_too_little_room_for_temporary_files_is_said(isolated: Path) -> None:
    code = (
        "import resource, signal\n"
        "from transfer_platform.data.image_stats import STATS_BYTES, ImageStats\n"
        "from transfer_registry.errors import StorageError\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "looks = ImageStats()\n"
        "try:\n"
        "    for place in range(1000): looks.add(str(place), bytes(STATS_BYTES))\n"
        "except StorageError as error: print(error)\n"
    )
    command = [sys.executable, "-c", code]
    path = {"PYTHONPATH": ":".join(sys.path), "TMPDIR": str(isolated)}
    done = subprocess.run(command, capture_output=True, text=True, env=path, check=True)
    assert not done.stderr
    assert done.stdout.startswith(f"what is seen of the images cannot be kept in {isolated}: File too large")
    assert "TMPDIR" in done.stdout


class TestMemory:
    """What was decoded under whatever name is not decoded again."""

    @pytest.fixture
    def folder(self, isolated: Path, write_image) -> Path:
        for name in ("ant/1.png", "ant/2.png", "bee/1.png"):
            write_image(isolated / "set" / name, name)
        return isolated / "set"

    @pytest.fixture
    def decoded(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        """Grows by one for every image that is decoded."""
        count: list[str] = []
        monkeypatch.setattr(
            chunk, "compute_stats", lambda content, name: count.append(name) or compute_stats(content, name)
        )
        return count

    def test_an_image_is_known_under_another_name(self, folder: Path, decoded: list[str]) -> None:
        before = scan_folder(folder).images
        assert len(decoded) == 3
        folder = folder.rename(folder.with_name("moved"))
        (folder / "ant" / "2.png").rename(folder / "ant" / "3.png")
        assert [each.sha256 for each in scan_folder(folder).images] == [each.sha256 for each in before]
        assert len(decoded) == 3

    @pytest.mark.parametrize("damage", [b"", b"no database", b"SQLite format 3\x00" + bytes(4000)])
    def test_a_damaged_one_costs_time_and_nothing_else(self, folder: Path, decoded, damage: bytes) -> None:
        before = scan_folder(folder).images
        [file] = (cache_folder() / "looks").glob("*.db")
        file.write_bytes(damage)
        for _ in range(2):
            assert scan_folder(folder).images == before
            assert len(decoded) == 6, "once more, and then they are known again"

    def test_a_damaged_one_that_cannot_be_removed_costs_time_too(self, tmp_path: Path, monkeypatch) -> None:
        def refused(path: Path) -> None:
            raise PermissionError(path)

        (tmp_path / "looks.db").write_bytes(b"no database" * 100)
        monkeypatch.setattr(Path, "unlink", refused)
        ImageStatsCache(tmp_path / "looks.db").put({"a": bytes(STATS_BYTES)})

    def test_looks_of_another_size_are_not_taken(self, tmp_path: Path) -> None:
        memory = ImageStatsCache(tmp_path / "looks.db")
        assert memory.is_empty
        memory.put({"a": bytes(STATS_BYTES), "b": bytes(STATS_BYTES - 1)})
        assert not memory.is_empty
        assert dict(memory.get(["a", "b", "c"])) == {"a": bytes(STATS_BYTES)}
