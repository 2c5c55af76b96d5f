"""Decodes image files to upright 8-bit RGB, for both training and serving."""

from __future__ import annotations

import re
import warnings
from io import BytesIO
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from .damage import DamagedDataError, load_complete
from .errors import UnreadableImageError, cause
from .formats import ACCEPTED, FORMATS, format_of, installed_formats
from .intensity import Intensity, is_deep, scale_to_8_bits

MAX_PIXELS = 64_000_000
"""Images with more pixels are rejected based on their header, before memory for the pixels is allocated."""

_ORIENTATION = 0x0112
_TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_EIGHT_BIT = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV")

_PILLOW = r"(PIL|pillow_heif)\."
_PILLOW_FILTER = ("ignore", None, Warning, re.compile(_PILLOW), 0)


def decode(
    source: bytes | Path, name: str = "the image", *, min_side: int | None = None, intensity: Intensity | None = None
) -> Image.Image:
    """Decodes an image to upright 8-bit RGB; a path and the file's content yield the same pixels.

    Applies the EXIF orientation, composites transparent images onto white, converts CMYK and palette images, scales
    high-bit-depth grayscale to 8 bits, and uses the first frame of an animation.

    Args:
        source: Content or path of a file in one of the formats in `formats.ACCEPTED`.
        name: Name used in error messages if `source` is not a path.
        min_side: If set, JPEGs are decoded faster, at the smallest scale (1, 1/2, 1/4 or 1/8) at which both sides still
            have at least this many pixels. None means full size.
        intensity: Range of gray values in images with more than 8 bits; None means the full scale of the file format.
            Has no effect on other images.

    Raises:
        UnreadableImageError: The image has an unsupported format or color space (such as LAB), is truncated or corrupt,
            or has more than `MAX_PIXELS` pixels. The message contains the path, if known, but no image data.
    """
    name = name if isinstance(source, bytes) else str(source)
    return to_rgb(open_image(source, name), name, min_side=min_side, intensity=intensity)


def open_image(source: bytes | Path, name: str = "the image") -> Image.Image:
    """Opens an image and reads only its header; raises the same error as `decode` if the header reveals a problem."""
    name = name if isinstance(source, bytes) else str(source)
    _hide_pillow_warnings()
    return _open(name, _content(source, name))


def to_rgb(
    image: Image.Image, name: str = "the image", *, min_side: int | None = None, intensity: Intensity | None = None
) -> Image.Image:
    """Decodes an image returned by `open_image`; arguments and errors are the same as for `decode`."""
    try:
        return _to_rgb(_turn_upright(_load(image, min_side)), intensity)
    except MemoryError:
        raise
    except Exception as error:  # corrupt data can raise almost anything: OSError, SyntaxError, struct.error, ...
        reason = f": {error}" if isinstance(error, DamagedDataError) else ""
        raise UnreadableImageError(
            f"{name} is a truncated or corrupt {image.format} image{reason}", "damaged"
        ) from error


def pixel_count(source: bytes | Path, name: str = "the image") -> int:
    """Returns width x height according to the header; raises the same errors as `open_image`."""
    image = open_image(source, name)
    return image.width * image.height


def original_mode(image: Image.Image) -> str:
    """Returns the mode before Pillow reduces the color depth, such as `RGB;16` for 16 bits per channel.

    Pillow reduces 16-bit color images to 8 bits per channel. The given image must not have been loaded yet.
    """
    drops_bits = any(";16" in str(tile[3]) for tile in getattr(image, "tile", ()))
    return image.mode if is_deep(image.mode) or not drops_bits else f"{image.mode};16"


def exif_orientation(image: Image.Image) -> int:
    """Returns the EXIF orientation (1 to 8), or 1 (upright) if it is missing or invalid.

    Load PNG images before calling this function: in a PNG file, the orientation may be stored after the pixels. The
    orientation of a loaded TIFF image is always 1, because Pillow has already rotated the image.
    """
    try:
        orientation = image.getexif().get(_ORIENTATION)
        return int(orientation) if orientation in _TRANSPOSITIONS else 1
    except Exception:  # noqa: BLE001 - corrupt EXIF data can raise any exception, but the image is usable
        return 1


def _content(source: bytes | Path, name: str) -> bytes:
    try:
        content = source if isinstance(source, bytes) else source.read_bytes()
    except OSError as error:
        raise UnreadableImageError(f"{name} cannot be read: {cause(error)}", "unreadable") from error
    if not content:
        raise UnreadableImageError(f"{name} is empty (0 bytes)", "empty")
    return content


def _open(name: str, content: bytes) -> Image.Image:
    """Reads the header and rejects images that must not be decoded."""
    try:
        image = Image.open(BytesIO(content), formats=installed_formats())
    except Image.DecompressionBombError as error:
        raise UnreadableImageError(
            f"{name} has more than the {MAX_PIXELS:,} pixels allowed", "too many pixels"
        ) from error
    except UnidentifiedImageError as error:
        raise _unidentified(name, content) from error
    except Exception as error:  # as in to_rgb(), any exception is possible
        raise UnreadableImageError(f"{name} has a truncated or corrupt image header", "damaged") from error
    if image.width * image.height > MAX_PIXELS:
        message = f"{name} has {image.width} x {image.height} pixels, more than the {MAX_PIXELS:,} allowed"
        raise UnreadableImageError(message, "too many pixels")
    if image.mode not in _EIGHT_BIT and not is_deep(image.mode):
        raise UnreadableImageError(f"{name} has an unsupported color space ({image.mode}); use RGB", "color space")
    return image


def _unidentified(name: str, content: bytes) -> UnreadableImageError:
    """Returns the error for a file that no installed decoder recognizes."""
    likely = format_of(content)
    if likely and not likely.is_installed:
        message = f"{name} is in the {likely.title} format; to read it, install {likely.install}"
    else:
        message = f"{name} is not an image in a supported format ({', '.join(each.title for each in ACCEPTED)})"
    return UnreadableImageError(message, "unsupported format")


def _load(image: Image.Image, min_side: int | None) -> Image.Image:
    draft = None
    if min_side is not None and FORMATS[image.format or ""].reducible:
        draft = image.draft(None, (min_side, min_side))
    load_complete(image)
    if draft is None:
        return image
    _, box = draft
    # libjpeg rounds scaled dimensions up, so the last row and column may be partial: resize only the exact box.
    size = (round(box[2]), round(box[3]))
    return image if box[2:] == image.size else image.resize(size, Image.Resampling.BICUBIC, box=box)


def _turn_upright(image: Image.Image) -> Image.Image:
    transposition = _TRANSPOSITIONS.get(exif_orientation(image))
    return image if transposition is None else image.transpose(transposition)


def _to_rgb(image: Image.Image, intensity: Intensity | None) -> Image.Image:
    if is_deep(image.mode):
        return scale_to_8_bits(image, intensity).convert("RGB")
    if not image.has_transparency_data:
        return image if image.mode == "RGB" else image.convert("RGB")
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")


def _hide_pillow_warnings() -> None:
    """Hides Pillow's warnings about corrupt EXIF data and decompression bombs; undecodable images still raise errors.

    The filter is never removed, because `warnings.catch_warnings` is not thread-safe. Each call moves it to the front.
    """
    if tuple(warnings.filters[:1]) != (_PILLOW_FILTER,):
        warnings.filterwarnings("ignore", category=Warning, module=_PILLOW)
