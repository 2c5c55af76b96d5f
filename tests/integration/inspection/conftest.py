"""A dataset with every kind of problem that the preflight detects, and the expected findings."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

CLASSES = ("ant", "bee")


def image(seed: int, side: tuple[int, int] = (96, 80)) -> Image.Image:
    """Random colored rectangles."""
    draw = np.random.default_rng(seed)
    pixels = np.empty((side[1], side[0], 3), np.uint8)
    pixels[:] = draw.integers(60, 190, 3)
    for _ in range(12):
        left, top = draw.integers(0, side[0] - 12), draw.integers(0, side[1] - 12)
        wide, high = draw.integers(8, 40, 2)
        pixels[top : top + high, left : left + wide] = draw.integers(20, 235, 3)
    return Image.fromarray(pixels)


def encoded(image: Image.Image, kind: str = "JPEG", **options: Any) -> bytes:
    content = BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


def plain_set(root: Path) -> Path:
    """train/ and test/ with two valid classes: 20 and 6 JPEG files each."""
    for split, first, count in (("train", 0, 20), ("test", 1000, 6)):
        for place, label in enumerate(CLASSES):
            (root / split / label).mkdir(parents=True)
            for number in range(count):
                content = encoded(image(first + 100 * place + number), quality=92)
                (root / split / label / f"{number}.jpg").write_bytes(content)
    return root


def _bomb() -> bytes:
    """A PNG of 5 KB that says it has 400 million pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        chunk(*each) for each in ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(5_000_000))), (b"IEND", b""))
    )


def _turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(image(301), exif=exif)


def _palette() -> bytes:
    return encoded(image(302).convert("P", palette=Image.Palette.ADAPTIVE), "PNG", transparency=0)


def _deep() -> bytes:
    grey = np.asarray(image(303).convert("L")).astype(np.uint16) * 257
    return encoded(Image.fromarray(grey), "PNG")


def _lab() -> bytes:
    profile = ImageCms.createProfile("LAB")
    lab = ImageCms.applyTransform(
        image(304), ImageCms.buildTransform(ImageCms.createProfile("sRGB"), profile, "RGB", "LAB")
    )
    return encoded(lab, "TIFF")


def _animation(kind: str, seed: int) -> bytes:
    frames = [image(seed + number) for number in range(3)]
    return encoded(frames[0], kind, save_all=True, append_images=frames[1:])


def _shrunk(content: bytes) -> bytes:
    image = Image.open(BytesIO(content))
    return encoded(image.resize((60, 50), Image.Resampling.LANCZOS), quality=55)


BAD: dict[str, tuple[str, Callable[[], bytes]]] = {
    "train/ant/noise.jpg": ("unsupported format", lambda: bytes(range(256)) * 4),
    "train/ant/notes.txt": ("unsupported format", lambda: b"three ants on a leaf"),
    "train/ant/drawing.svg": ("unsupported format", lambda: b"<svg xmlns='http://www.w3.org/2000/svg'/>"),
    "train/ant/phone.heic": ("unsupported format", lambda: b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(64)),
    "train/ant/cut.jpg": ("damaged", lambda: encoded(image(320))[:700]),
    "train/bee/cut.png": ("damaged", lambda: encoded(image(321), "PNG")[:300]),
    "train/bee/header.png": ("damaged", lambda: encoded(image(322), "PNG")[:20]),
    "test/bee/zero.jpg": ("empty", lambda: b""),
    "train/bee/bomb.png": ("too many pixels", _bomb),
    "train/bee/lab.tiff": ("color space", _lab),
    "train/loose.jpg": ("outside the class folders", lambda: encoded(image(323))),
}
"""Invalid files: expected kind and content."""

ODD: dict[str, tuple[str, Callable[[], bytes]]] = {
    "train/ant/really_png.jpg": ("wrong extension", lambda: encoded(image(330), "PNG")),
    "train/ant/no_extension": ("wrong extension", lambda: encoded(image(331))),
    "train/ant/moving.gif": ("animated", lambda: _animation("GIF", 400)),
    "train/ant/moving.webp": ("animated", lambda: _animation("WEBP", 410)),
    "train/ant/moving.png": ("animated", lambda: _animation("PNG", 420)),
    "train/bee/pages.tiff": ("animated", lambda: _animation("TIFF", 430)),
    "train/bee/turned.jpg": ("EXIF rotation", _turned),
    "train/bee/print.jpg": ("CMYK", lambda: encoded(image(332).convert("CMYK"))),
    "train/bee/deep.png": ("more than 8 bits", _deep),
    "train/bee/palette.png": ("transparency", _palette),
    "train/bee/grey.png": ("blank", lambda: encoded(Image.new("RGB", (96, 80), (128, 120, 110)), "PNG")),
    "train/bee/night.png": ("very dark or bright", lambda: encoded(image(333).point(lambda v: v // 40), "PNG")),
    "train/bee/stamp.png": ("tiny", lambda: encoded(image(334).resize((10, 9)), "PNG")),
    "train/bee/panorama.jpg": ("elongated", lambda: encoded(image(335, (600, 90)))),
}
"""Unusual images: expected kind and content."""

FINE: dict[str, Callable[[], bytes]] = {
    "train/ant/photo.webp": lambda: encoded(image(340), "WEBP"),
    "train/ant/scan.tif": lambda: encoded(image(341), "TIFF"),
    "train/ant/LOUD.JPG": lambda: encoded(image(342)),
    "train/ant/with some spaces.jpg": lambda: encoded(image(343)),
    "train/ant/\u00e4meise \u8681 \U0001f41c.jpg": lambda: encoded(image(344)),
    "train/bee/" + "long" * 62 + ".jpg": lambda: encoded(image(345)),
    "train/bee/deep/er/still.bmp": lambda: encoded(image(346), "BMP"),
}
"""Images without findings."""

NOT_UTF8 = b"train/bee/m\xfcller.jpg"


def invalid_set(root: Path) -> Path:
    """All files above, links, duplicates and unreadable files."""
    plain_set(root)
    for name, (_, content) in (BAD | ODD).items():
        (root / name).write_bytes(content())
    for name, content in FINE.items():
        (root / name).parent.mkdir(exist_ok=True, parents=True)
        (root / name).write_bytes(content())
    Path(os.fsdecode(os.fsencode(root) + b"/" + NOT_UTF8)).write_bytes(encoded(image(350)))
    with (root / "train/ant/endless.png").open("wb") as file:
        file.truncate((1 << 30) + 1)
    (root / "train/ant/secret.jpg").write_bytes(encoded(image(351)))
    (root / "train/ant/secret.jpg").chmod(0)
    (root / "train/ant/locked").mkdir(mode=0)
    (root / "train/ant/listed").mkdir()
    (root / "train/ant/listed/photo.jpg").write_bytes(encoded(image(352)))
    (root / "train/ant/listed").chmod(0o444)
    (root / "train/ant/out.jpg").symlink_to("/etc/hostname")
    (root / "train/ant/round").symlink_to(".")
    (root / "train/ant/itself.jpg").symlink_to("itself.jpg")
    (root / "train/ant/gone.jpg").symlink_to("nothing.jpg")
    os.mkfifo(root / "train/ant/pipe.jpg")
    (root / "train/.DS_Store").write_bytes(b"clutter")
    first = (root / "train/ant/0.jpg").read_bytes()
    (root / "train/ant/copy.jpg").write_bytes(first)
    (root / "train/bee/wrong.jpg").write_bytes((root / "train/ant/1.jpg").read_bytes())
    (root / "test/ant/leak.jpg").write_bytes((root / "train/ant/2.jpg").read_bytes())
    (root / "train/ant/smaller.jpg").write_bytes(_shrunk((root / "train/ant/3.jpg").read_bytes()))
    (root / "train/bee/wrong smaller.jpg").write_bytes(_shrunk((root / "train/ant/4.jpg").read_bytes()))
    (root / "test/ant/similar.jpg").write_bytes(_shrunk((root / "train/ant/5.jpg").read_bytes()))
    return root


_EXPECTED: dict[str, list[str]] = {
    "unreadable": ["train/ant/listed/photo.jpg", "train/ant/secret.jpg"],
    "unreadable folder": ["train/ant/locked"],
    "too many bytes": ["train/ant/endless.png"],
    "link leading out": ["train/ant/out.jpg"],
    "link in circles": ["train/ant/itself.jpg", "train/ant/round"],
    "link to nothing": ["train/ant/gone.jpg"],
    "special file": ["train/ant/pipe.jpg"],
    "hidden": ["train/.DS_Store"],
    "exact duplicate": ["train/ant/0.jpg", "train/ant/copy.jpg"],
    "duplicate with another label": ["train/ant/1.jpg", "train/bee/wrong.jpg"],
    "duplicate across splits": ["train/ant/2.jpg", "test/ant/leak.jpg"],
    "near duplicate": ["train/ant/3.jpg", "train/ant/smaller.jpg"],
    "near duplicate with another label": ["train/ant/4.jpg", "train/bee/wrong smaller.jpg"],
    "near duplicate across splits": ["train/ant/5.jpg", "test/ant/similar.jpg"],
    "name not UTF-8": ["train/bee/m\\xfcller.jpg"],
}


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    """A valid dataset."""
    return plain_set(tmp_path / "set")


@pytest.fixture
def invalid(tmp_path: Path) -> Path:
    """A dataset with every kind of problem of single files."""
    return invalid_set(tmp_path / "set")


@pytest.fixture(scope="session")
def expected() -> dict[str, list[str]]:
    """Expected findings: sorted file names by kind."""
    found = {kind: list(names) for kind, names in _EXPECTED.items()}
    for name, (kind, _) in (BAD | ODD).items():
        found.setdefault(kind, []).append(name)
    found["intensity"] = []  # concerns the whole dataset
    return {kind: sorted(names) for kind, names in found.items()}


@pytest.fixture(scope="session")
def bad_kinds() -> frozenset[str]:
    """Kinds of files that are left out with `on_bad_image: skip`."""
    links = ("link leading out", "link in circles", "link to nothing", "special file")
    return frozenset({kind for kind, _ in BAD.values()} | {"unreadable", "too many bytes", *links})
