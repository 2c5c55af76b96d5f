"""From the bytes of an image to the tensor a network sees: one code for training and serving.

    bytes or path --decode--> RGB image --square--> S x S image --normalize--> (3, S, S) tensor

Importing this module does not import torch: `platform check` prints plans without it.
"""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, UnidentifiedImageError

from .errors import UnreadableImageError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

MAX_PIXELS = 64_000_000
"""Images with more pixels are refused by their header, before any memory is spent on them."""

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
"""Pillow's names of the formats that are read, JPEG with the MPO of phones and stereo cameras.

A fixed list: what is read does not depend on the plugins that somebody installed, and EPS, which would start
Ghostscript, is not in it.
"""

_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_EIGHT_BIT = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV")
_PIECE = 1 << 20
_PILLOW_NOISE = ("ignore", None, Warning, re.compile(r"PIL\."), 0)


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes the input of one network; recorded in the model and read back for serving.

    Attributes:
        image_size: Side of the square that the network sees, S, in pixels.
        crop: Share of the image's shorter side that the centre square keeps, above 0 and at most 1.
        interpolation: Pillow's name of the resampling filter, `bilinear`, `bicubic` or `lanczos` mostly.
        mean: Subtracted from each channel, on the scale of 0 to 1.
        std: What each channel is then divided by.
    """

    image_size: int
    crop: float
    interpolation: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __call__(self, image: Image.Image) -> Tensor:
        """Turns a decoded RGB image of any size into (3, S, S) float32."""
        return self.normalize(self.crop_and_resize(image))

    def crop_and_resize(self, image: Image.Image) -> Image.Image:
        """Cuts the centre square out of an RGB image and scales it to S x S, in a single resampling."""
        side = self.crop * min(image.size)
        left, top = (image.width - side) / 2, (image.height - side) / 2
        resample = Image.Resampling[self.interpolation.upper()]
        size = (self.image_size, self.image_size)
        return image.resize(size, resample, box=(left, top, left + side, top + side))

    def normalize(self, image: Image.Image) -> Tensor:
        """Scales an S x S RGB image by mean and standard deviation: (3, S, S) float32."""
        import torch

        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).to(torch.float32)
        mean = torch.tensor(self.mean).view(3, 1, 1)
        std = torch.tensor(self.std).view(3, 1, 1)
        return ((pixels / 255 - mean) / std).contiguous()


def decode(source: bytes | Path, name: str = "the image", *, at_least: int | None = None) -> Image.Image:
    """Decodes one image into upright 8-bit RGB; the same bytes give the same pixels, from disk or memory.

    EXIF orientation is applied, transparency is laid on white, CMYK and palettes are converted, deeper
    greyscale is scaled to 8 bits, and of an animation the first frame is taken.

    Args:
        source: The file's content, or its path. Only the formats in `FORMATS` are read.
        name: What errors call an image that has no path.
        at_least: Pixels that are enough on both sides. A larger JPEG is then decoded at a half, a quarter or
            an eighth of its size, the smallest that keeps so many, which is quicker. None: at full size.

    Raises:
        UnreadableImageError: Not an image in a supported format, cut off, damaged, in a colour space that
            has no defined RGB here (LAB), or of more than `MAX_PIXELS` pixels. The message is one sentence
            that names the path, if there is one, and never shows the content.
    """
    name = name if isinstance(source, bytes) else str(source)
    return to_rgb(open_image(source, name), name, at_least=at_least)


def open_image(source: bytes | Path, name: str = "the image") -> Image.Image:
    """An image whose header was read: format, mode, size; raises what `decode` does, as far as it shows."""
    name = name if isinstance(source, bytes) else str(source)
    _mute_pillow()
    return _open(name, _content(source, name))


def to_rgb(image: Image.Image, name: str = "the image", *, at_least: int | None = None) -> Image.Image:
    """What `decode` makes of an image that was opened; raises what it does."""
    try:
        return _to_rgb(_turn_upright(_loaded(image, at_least)))
    # Pillow's decoders answer damaged bytes with nearly any exception: OSError, SyntaxError, struct.error,
    # zlib.error, IndexError, ... Whatever it is, the image is what is wrong.
    except MemoryError:
        raise
    except Exception as error:
        message = f"{name} is a cut off or damaged {image.format} image"
        raise UnreadableImageError(message, "damaged") from error


def pixel_count(source: bytes | Path, name: str = "the image") -> int:
    """How many pixels an image has, by its header alone; raises what `decode` does where there is none."""
    image = open_image(source, name)
    return image.width * image.height


def exif_orientation(image: Image.Image) -> int:
    """How EXIF says that an image lies, 1 to 8; 1, upright, where it does not say or is damaged.

    Of a PNG it is asked once the image is loaded, or Pillow would load it here; a TIFF forgets it then.
    """
    try:
        said = image.getexif().get(_ORIENTATION)
        return int(said) if said in _UPRIGHT else 1
    except Exception:  # noqa: BLE001 - damaged EXIF raises anything, and the image is good without it
        return 1


def _content(source: bytes | Path, name: str) -> bytes:
    try:
        content = source if isinstance(source, bytes) else source.read_bytes()
    except OSError as error:
        raise UnreadableImageError(f"{name} cannot be read: {error.strerror}", "unreadable") from error
    if not content:
        raise UnreadableImageError(f"{name} is empty: it has 0 bytes", "empty")
    return content


def _open(name: str, content: bytes) -> Image.Image:
    """Reads the header alone and refuses what must not be decoded."""
    try:
        image = Image.open(BytesIO(content), formats=FORMATS)
    except Image.DecompressionBombError as error:
        message = f"{name} has more than the {MAX_PIXELS:,} pixels allowed"
        raise UnreadableImageError(message, "too many pixels") from error
    except UnidentifiedImageError as error:
        message = f"{name} is no image in a format that is read: {', '.join(FORMATS)}"
        raise UnreadableImageError(message, "unsupported format") from error
    except Exception as error:  # as in upright(): a damaged header raises anything, too
        message = f"{name} is an image whose header is cut off or damaged"
        raise UnreadableImageError(message, "damaged") from error
    if image.width * image.height > MAX_PIXELS:
        message = f"{name} has {image.width} x {image.height} pixels, more than the {MAX_PIXELS:,} allowed"
        raise UnreadableImageError(message, "too many pixels")
    if image.mode not in _EIGHT_BIT and not _is_deep(image):
        message = f"{name} is in the colour space {image.mode}: convert it to RGB"
        raise UnreadableImageError(message, "colour space")
    return image


def _loaded(image: Image.Image, at_least: int | None) -> Image.Image:
    drafted = None if at_least is None else image.draft(None, (at_least, at_least))
    image.load()
    if drafted is None:
        return image
    _, box = drafted
    size = (round(box[2]), round(box[3]))
    # libjpeg rounds a scaled side up; a last pixel that is only part of the image would stretch it.
    return image if box[2:] == image.size else image.resize(size, Image.Resampling.BICUBIC, box=box)


def _turn_upright(image: Image.Image) -> Image.Image:
    turn = _UPRIGHT.get(exif_orientation(image))
    return image if turn is None else image.transpose(turn)


def _to_rgb(image: Image.Image) -> Image.Image:
    if _is_deep(image):
        return _scaled_to_8_bits(image).convert("RGB")
    if not image.has_transparency_data:
        return image if image.mode == "RGB" else image.convert("RGB")
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")


def _is_deep(image: Image.Image) -> bool:
    return image.mode in ("I", "F") or image.mode.startswith("I;16")


def _scaled_to_8_bits(image: Image.Image) -> Image.Image:
    values = np.asarray(image).reshape(-1)
    # A piece at a time: as float64 a whole image would take sixteen times the room of its bytes.
    pieces = [slice(start, start + _PIECE) for start in range(0, len(values), _PIECE)]
    scale = _full_scale(image.mode, max(float(_finite(values[piece]).max()) for piece in pieces))
    grey = np.empty(len(values), np.uint8)
    for piece in pieces:
        grey[piece] = np.rint(np.clip(_finite(values[piece]) / scale, 0, 1) * 255)
    if "transparency" in image.info:
        grey[values == image.info["transparency"]] = 255
    return Image.fromarray(grey.reshape(image.height, image.width))


def _finite(values: NDArray[np.number]) -> NDArray[np.float64]:
    return np.nan_to_num(values.astype(np.float64), posinf=0.0, neginf=0.0)


def _full_scale(mode: str, brightest: float) -> float:
    """What white is: 16 bits for integers; floating point is 0..1, 0..255 or 0..65535, or its own maximum."""
    usual = (1.0, 255.0, 65535.0) if mode == "F" else (65535.0,)
    return next((scale for scale in usual if brightest <= scale), brightest)


def _mute_pillow() -> None:
    """Keeps Pillow's own warnings (corrupt EXIF, decompression bombs) from the user's terminal.

    What matters of them is raised as an error instead. `warnings.catch_warnings` is not thread-safe, so the
    filter stays; it is moved to the front again where somebody has put another before it.
    """
    if tuple(warnings.filters[:1]) != (_PILLOW_NOISE,):
        warnings.filterwarnings("ignore", category=Warning, module=r"PIL\.")
