"""Canvases: whole images resized to small squares, used to sample augmented views.

    file --make_canvas--> (3, C, C) uint8 and aspect ratio --pack--> one row of bytes --unpack--> batch

Each image is stretched to a square regardless of its aspect ratio, so all canvases have the same shape;
`augmentation.BatchAugmentation` undoes the distortion when it crops a view.
"""

import math
from pathlib import Path

import numpy as np
import torch
from PIL.Image import Resampling
from torch import Tensor

from transfer_model.decode import decode, open_image
from transfer_model.intensity import Intensity

SIDE_PER_PIXEL = 10 / 7
"""Ratio of canvas side C to network input side S. Crops cover at least 70% of each side, so views are never upscaled.

For 64 ants/bees images (S = 224), views have 95% of the sharpness (standard deviation of the Laplacian) of bicubic
crops of the originals, and a canvas takes 308 KB. With a ratio of 1.2, the values would be 80% and 217 KB.
"""

MAX_ASPECT = 2.0
"""Maximum ratio of the longer to the shorter side; more elongated images are center-cropped to this ratio.

A crop covers at least 70% of an image and has a ratio of at most 4/3, so none fits if the image's ratio is above 1.9.
"""

_ASPECT_BYTES = 4


def canvas_side(image_size: int, longest: int | None = None) -> int:
    """Returns the side length C of the canvas for inputs of side length S. C is at most the longest image side.

    >>> canvas_side(224), canvas_side(224, longest=32)
    (320, 32)
    """
    side = math.ceil(SIDE_PER_PIXEL * image_size)
    return side if longest is None else min(side, longest)


def longest_side(path: Path) -> int:
    """Returns the longer side of an image in pixels, read from its header."""
    return max(open_image(path).size)


def row_bytes(side: int) -> int:
    """Returns the length of a packed canvas in bytes, 3*C*C + 4.

    >>> row_bytes(320)
    307204
    """
    return 3 * side * side + _ASPECT_BYTES


def make_canvas(
    source: bytes | Path, side: int, name: str = "the image", intensity: Intensity | None = None
) -> tuple[Tensor, float]:
    """Decodes an image from bytes or a path and resizes it to a square with a side of C = `side` pixels.

    Large JPEG files are decoded at 1/2, 1/4 or 1/8 of their size if both sides still have at least 2*C pixels. For
    the ants/bees images (C = 23 to 320), this changes the pixel values of a canvas (0 to 255) by 0.6 on average
    over all images, and by 2.2 on average in the most affected image.

    Returns:
        uint8 canvas (3, C, C), and the aspect ratio (width / height) of its content, limited to `MAX_ASPECT`.

    Raises:
        UnreadableImageError: See `decode`; if `source` is bytes, the message refers to the image as `name`.
    """
    image = decode(source, name, min_side=2 * side, intensity=intensity)
    width = min(image.width, MAX_ASPECT * image.height)
    height = min(image.height, MAX_ASPECT * image.width)
    left, top = (image.width - width) / 2, (image.height - height) / 2
    small = image.resize((side, side), Resampling.LANCZOS, box=(left, top, left + width, top + height))
    return torch.from_numpy(np.array(small)).permute(2, 0, 1).contiguous(), width / height


def pack(canvas: Tensor, aspect: float) -> Tensor:
    """Packs a uint8 canvas (3, C, C) and its aspect ratio into one row of 3*C*C + 4 bytes."""
    tail = torch.tensor([aspect], dtype=torch.float32, device=canvas.device).view(torch.uint8)
    return torch.cat([canvas.flatten(), tail])


def unpack(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Inverts `pack` for a batch of uint8 rows (B, 3*C*C + 4).

    Returns:
        uint8 canvases (B, 3, C, C), which share memory with the rows, and float32 aspect ratios (B,).

    Raises:
        ValueError: The row length is not 3*C*C + 4 for any C.
    """
    side = math.isqrt((rows.shape[1] - _ASPECT_BYTES) // 3)
    if rows.shape[1] != row_bytes(side):
        raise ValueError(f"a packed canvas must have 3*C*C + {_ASPECT_BYTES} bytes, but got {rows.shape[1]}")
    # Viewing bytes as floats requires an aligned address; the end of a row may be unaligned, but a clone is aligned.
    aspects = rows[:, -_ASPECT_BYTES:].clone(memory_format=torch.contiguous_format).view(torch.float32)
    return rows[:, :-_ASPECT_BYTES].view(-1, 3, side, side), aspects.flatten()
