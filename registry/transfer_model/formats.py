"""Accepted image formats: the only list, for training, serving and export.

A format is accepted if its decoder gives the same pixels for the same file every time and rejects files that are too
large before it allocates memory for them. The list is fixed, so it does not depend on other installed Pillow plugins.
EPS is excluded because it would start Ghostscript, and TGA because a file of any content may pass for it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

from PIL import features

try:
    import pillow_heif
except ImportError:
    pillow_heif = None  # type: ignore[assignment] # the name of a module
else:
    pillow_heif.register_heif_opener()

_PILLOW = "Pillow 11.3 or newer, built with support for this format: pip install --upgrade pillow"


@dataclass(frozen=True)
class ImageFormat:
    """An accepted image format.

    Attributes:
        name: Pillow's name.
        title: Name in the documentation and in messages.
        extensions: File extensions in lowercase, the usual one first.
        signature: Regular expression that matches the first bytes of a file.
        variants: Names that Pillow gives to special files of this format: MPO files have several JPEG images.
        frames: Whether a file may contain several frames, of which the first is used.
        reducible: Whether the image can be decoded at a reduced size. For HEIC, Pillow would return another image, the
            embedded thumbnail.
        package: Name of the decoder in `PIL.features`, or `pillow_heif`; empty if every Pillow has the decoder.
        install: What to install to read the format; empty if every Pillow reads it.
    """

    name: str
    title: str
    extensions: tuple[str, ...]
    signature: bytes
    variants: tuple[str, ...] = ()
    frames: bool = False
    reducible: bool = False
    package: str = ""
    install: str = ""

    @property
    def is_installed(self) -> bool:
        """Whether this Python can decode the format."""
        if self.package == "pillow_heif":
            return pillow_heif is not None
        return not self.package or _has(self.package)

    def matches(self, content: bytes) -> bool:
        """Returns whether a file starts like a file of this format."""
        return re.match(self.signature, content, re.DOTALL) is not None


ACCEPTED = (
    ImageFormat(
        "JPEG", "JPEG", (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"), rb"\xff\xd8\xff", variants=("MPO",), reducible=True
    ),
    ImageFormat("PNG", "PNG", (".png", ".apng"), rb"\x89PNG", frames=True),
    ImageFormat("WEBP", "WebP", (".webp",), rb"RIFF....WEBP", frames=True),
    ImageFormat("BMP", "BMP", (".bmp", ".dib"), rb"BM"),
    ImageFormat("GIF", "GIF", (".gif",), rb"GIF8", frames=True),
    ImageFormat("TIFF", "TIFF", (".tif", ".tiff"), rb"II[*+]\0|MM\0[*+]", frames=True),
    ImageFormat("PPM", "PPM", (".ppm", ".pgm", ".pbm", ".pnm", ".pfm"), rb"P[1-6f]\s"),
    ImageFormat("AVIF", "AVIF", (".avif", ".avifs"), rb"....ftypavi[fs]", frames=True, package="avif", install=_PILLOW),
    ImageFormat(
        "JPEG2000",
        "JPEG 2000",
        (".jp2", ".j2k", ".jpc", ".jpf", ".jpx", ".j2c"),
        rb"\xff\x4f\xff\x51|\0\0\0\x0cjP  ",
        package="jpg_2000",
        install=_PILLOW,
    ),
    ImageFormat(
        "HEIF",
        "HEIC",
        (".heic", ".heif", ".hif"),
        rb"....ftyp(hei[cxms]|hev[cxms]|mif1|msf1)",
        frames=True,
        package="pillow_heif",
        install="pillow-heif: pip install 'transfer-platform[heif]'",
    ),
)
"""The accepted formats, in the order in which they are tried."""

FORMATS = {name: each for each in ACCEPTED for name in (each.name, *each.variants)}
"""The accepted formats, keyed by Pillow's name."""


@cache
def installed_formats() -> tuple[str, ...]:
    """Returns Pillow's names of the formats that this Python can decode."""
    return tuple(each.name for each in ACCEPTED if each.is_installed)


def format_of(content: bytes) -> ImageFormat | None:
    """Returns the accepted format that a file seems to have according to its first bytes, installed or not."""
    return next((each for each in ACCEPTED if each.matches(content)), None)


def decoder_versions() -> str:
    """Returns the versions of the libraries that decode images; with another version, the pixels may differ."""
    names = ("pil", "jpg", "libjpeg_turbo", "jpg_2000", "webp", "avif", "libtiff")
    versions = [f"{name} {features.version(name)}" for name in names if _has(name)]
    heif = [f"pillow_heif {pillow_heif.__version__}, libheif {pillow_heif.libheif_version()}"] if pillow_heif else []
    return ", ".join([*versions, *heif])


def _has(name: str) -> bool:
    """Returns whether Pillow was built with a library; False if this Pillow does not know its name."""
    known = {**features.modules, **features.codecs, **features.features}
    return name in known and bool(features.check(name))
