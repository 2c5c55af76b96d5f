"""Statistics of images: their values, their storage and their cache."""

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

from transfer_model.decode import decode
from transfer_model.errors import UnreadableImageError
from transfer_platform.data import scan
from transfer_platform.data.catalog import scan_folder
from transfer_platform.data.image_stats import (
    HEADER_DTYPE,
    STATS_BYTES,
    THUMBNAIL_SIDE,
    ImageStats,
    compute_stats,
    image_stats_cache,
)
from transfer_platform.disk_cache import FILE_NAME
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


def header_and_thumbnail(content: bytes) -> tuple[np.void, np.ndarray]:
    stats = ImageStats()
    stats.add("it", compute_stats(content, "it"))
    rows = stats.rows(["it"])
    return stats.headers(rows)[0], stats.thumbnails(rows)[0]


@pytest.mark.parametrize("sides", [(20, 12), (130, 70), (641, 479), (3001, 1999)])
def test_a_thumbnail_shows_the_whole_image_and_the_size_is_that_of_the_file(sides: tuple[int, int]) -> None:
    """Also if a JPEG is decoded at a reduced size."""
    header, thumbnail = header_and_thumbnail(photograph(*sides))
    assert (header["width"], header["height"], header["format"]) == (*sides, b"JPEG")
    middles = (np.arange(THUMBNAIL_SIDE) + 0.5) * 255 / THUMBNAIL_SIDE
    assert np.abs(thumbnail[:, :, 1].mean(0) - middles).max() < 12
    assert np.abs(thumbnail[:, :, 2].mean(1) - middles).max() < 12


def test_size_and_thumbnail_are_those_of_the_upright_image() -> None:
    header, thumbnail = header_and_thumbnail(photograph(640, 480, orientation=6))
    assert (header["width"], header["height"], header["orientation"]) == (480, 640, 6)
    assert thumbnail[0, :, 1].mean() < 20 < 230 < thumbnail[-1, :, 1].mean(), "the left side is now the top"


@pytest.mark.parametrize("share", [0.5, 0.9, 0.99])
def test_a_truncated_large_jpeg_is_rejected_even_if_decoded_at_a_reduced_size(share) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (900, 1200, 3), np.uint8)
    content = BytesIO()
    Image.fromarray(noise).save(content, "JPEG")
    with pytest.raises(UnreadableImageError, match="truncated or corrupt JPEG"):
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


def error_message(read: Callable[[bytes, str], object], content: bytes) -> str:
    try:
        read(content, "it")
    except UnreadableImageError as error:
        return str(error)
    return "fine"


@pytest.mark.parametrize(
    "kind", ["JPEG", "JPEG CMYK", "PNG", "PNG P", "PNG RGBA", "PNG deep", "GIF P", "WEBP", "WEBP RGBA", "TIFF", "BMP"]
)
def test_exactly_the_files_are_rejected_that_decoding_rejects(kind: str) -> None:
    generator, content = np.random.default_rng(2), encoded(kind)
    assert error_message(compute_stats, content) == error_message(decode, content) == "fine"
    broken = [damaged(content, generator) for _ in range(80)]
    expected = [error_message(decode, each) for each in broken]
    assert [error_message(compute_stats, each) for each in broken] == expected
    assert set(expected) != {"fine"}, "no damage was noticed"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_size_is_that_of_the_decoded_image_in_every_orientation(kind: str, orientation: int) -> None:
    exif, content = Image.Exif(), BytesIO()
    exif[0x0112] = orientation
    Image.new("RGB", (400, 240)).save(content, kind, exif=exif)
    header, _ = header_and_thumbnail(content.getvalue())
    assert (header["width"], header["height"]) == decode(content.getvalue(), "it").size
    assert header["orientation"] == orientation


def test_an_orientation_that_is_not_an_integer_is_applied() -> None:
    """6 as a rational number, which no standard allows and Pillow reads."""
    field = struct.pack("<HHII", 0x0112, 5, 1, 26)
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 1) + field + struct.pack("<III", 0, 6, 1)
    content = BytesIO()
    Image.new("RGB", (400, 240)).save(content, "JPEG", exif=exif)
    header, _ = header_and_thumbnail(content.getvalue())
    assert (header["width"], header["height"], header["orientation"]) == (240, 400, 6)


def test_statistics_are_found_by_digest() -> None:
    generator, stats = np.random.default_rng(0), ImageStats()
    packed = {f"{place}": generator.bytes(STATS_BYTES) for place in range(300)}
    for place, (digest, each) in enumerate(packed.items()):
        stats.add(digest, each)
        stats.add(digest, bytes(STATS_BYTES))
        if place == 100:
            stats.thumbnails(stats.rows(["50"]))
    digests = [f"{place}" for place in generator.permutation(300)]
    rows = stats.rows(digests)
    assert [each.tobytes() for each in stats.headers(rows)] == [
        packed[each][: HEADER_DTYPE.itemsize] for each in digests
    ]
    thumbnails = stats.thumbnails(rows)
    assert thumbnails.shape == (300, THUMBNAIL_SIDE, THUMBNAIL_SIDE, 3)
    assert [each.tobytes() for each in thumbnails] == [packed[each][HEADER_DTYPE.itemsize :] for each in digests]
    assert stats.thumbnails(rows[:0]).shape == (0, THUMBNAIL_SIDE, THUMBNAIL_SIDE, 3)
    assert ("7" in stats, "300" in stats) == (True, False)


def test_a_full_temporary_folder_is_an_error(isolated: Path) -> None:
    code = (
        "import resource, signal\n"
        "from transfer_platform.data.image_stats import STATS_BYTES, ImageStats\n"
        "from transfer_registry.errors import StorageError\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "stats = ImageStats()\n"
        "try:\n"
        "    for place in range(1000): stats.add(str(place), bytes(STATS_BYTES))\n"
        "except StorageError as error: print(error)\n"
    )
    command = [sys.executable, "-c", code]
    path = {"PYTHONPATH": ":".join(sys.path), "TMPDIR": str(isolated)}
    done = subprocess.run(command, capture_output=True, text=True, env=path, check=True)
    assert not done.stderr
    assert done.stdout.startswith(f"image statistics cannot be written to {isolated}: File too large")
    assert "TMPDIR" in done.stdout


class TestCache:
    """An image is decoded once, whatever its name."""

    @pytest.fixture
    def folder(self, isolated: Path, write_image) -> Path:
        for name in ("ant/1.png", "ant/2.png", "bee/1.png"):
            write_image(isolated / "set" / name, name)
        return isolated / "set"

    @pytest.fixture
    def decoded(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        """Grows by one with every decoded image."""
        count: list[str] = []
        monkeypatch.setattr(
            scan, "compute_stats", lambda content, name: count.append(name) or compute_stats(content, name)
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
    def test_a_damaged_cache_costs_only_time(self, folder: Path, decoded, damage: bytes) -> None:
        before = scan_folder(folder).images
        (cache_folder() / FILE_NAME).write_bytes(damage)
        for _ in range(2):
            assert scan_folder(folder).images == before
            assert len(decoded) == 6, "decoded once more, then cached again"

    def test_a_damaged_cache_that_cannot_be_removed_costs_only_time(self, isolated: Path, monkeypatch) -> None:
        def refuse(path: Path) -> None:
            raise PermissionError(path)

        file = cache_folder() / FILE_NAME
        file.parent.mkdir(parents=True)
        file.write_bytes(b"no database" * 100)
        monkeypatch.setattr(Path, "unlink", refuse)
        image_stats_cache().put({"a": bytes(STATS_BYTES)})

    def test_statistics_of_another_size_are_computed_again(self, folder: Path, decoded: list[str]) -> None:
        before = scan_folder(folder).images
        image_stats_cache().put({each.sha256: bytes(STATS_BYTES - 1) for each in before[1:]})
        assert scan_folder(folder).images == before
        assert len(decoded) == 5
