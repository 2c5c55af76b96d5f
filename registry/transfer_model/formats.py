"""Image formats that are accepted in training, serving and export.

A format is accepted if its decoder always returns the same pixels for the same file and rejects oversized images
before allocating memory for them. The list is fixed, so it does not depend on which Pillow plugins are installed.
EPS is excluded because reading it would start Ghostscript, and TGA because almost any file could pass for a TGA file.
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
        name: Name of the format in Pillow.
        title: Name used in the documentation and in messages.
        extensions: File extensions in lowercase, the most common one first.
        signature: Regular expression that matches the first bytes of a file.
        variants: Pillow's names for variants of the format, such as MPO (a file with several JPEG images).
        frames: Whether a file may contain several frames; only the first frame is used.
        reducible: Whether images can be decoded at a reduced size. False for HEIC, because Pillow would return the
            embedded thumbnail instead.
        package: Name of the decoder in `PIL.features`, or `pillow_heif`; empty if Pillow always includes the decoder.
        install: What to install to read the format; empty if Pillow always includes the decoder.
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
        """Whether the installed libraries can decode the format."""
        if self.package == "pillow_heif":
            return pillow_heif is not None
        return not self.package or _has(self.package)

    def matches(self, content: bytes) -> bool:
        """Returns whether the first bytes of a file match the signature of this format."""
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
"""The accepted formats, keyed by their names and variants in Pillow."""


@cache
def installed_formats() -> tuple[str, ...]:
    """Returns the Pillow names of all formats that can be decoded with the installed libraries."""
    return tuple(each.name for each in ACCEPTED if each.is_installed)


def format_of(content: bytes) -> ImageFormat | None:
    """Returns the accepted format that matches the first bytes of a file, even if its decoder is not installed."""
    return next((each for each in ACCEPTED if each.matches(content)), None)


def decoder_versions() -> str:
    """Returns the versions of the libraries that decode images; decoded pixels may differ between versions."""
    names = ("pil", "jpg", "libjpeg_turbo", "jpg_2000", "webp", "avif", "libtiff")
    versions = [f"{name} {features.version(name)}" for name in names if _has(name)]
    heif = [f"pillow_heif {pillow_heif.__version__}, libheif {pillow_heif.libheif_version()}"] if pillow_heif else []
    return ", ".join([*versions, *heif])


def _has(name: str) -> bool:
    """Returns True if Pillow knows the given library and was built with it."""
    known = {**features.modules, **features.codecs, **features.features}
    return name in known and bool(features.check(name))
