"""Images reduced once to small squares, from which every augmented view is cut: decoding is paid once.

    file --canvas--> (3, C, C) uint8 and an aspect ratio --pack--> one row of bytes --unpack--> a batch

The whole image is squeezed into the square, so that a canvas has one shape whatever the image's; the
aspect ratio tells how to undo it, which `augmentation.BatchAugmentation` does as it cuts.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from PIL.Image import Resampling
from torch import Tensor

from transfer_model.preprocessing import FORMATS, decode

if TYPE_CHECKING:
    from pathlib import Path

SIDE_PER_PIXEL = 10 / 7
"""C / S. A crop keeps 0.7 or more of each side, as it does of the area: so a view is never enlarged.

Against crops of the full photographs (bicubic), 64 of ants/bees, S = 224: 10/7 keeps 95 % of the sharpness
(deviation of the Laplacian) and 1.2 keeps 80 %, for 308 and 217 KB an image.
"""

MAX_ASPECT = 2.0
"""Of an image that is longer than this many times its other side, the ends are left out.

No view reaches them: beyond 1.9 (4/3 of the shape, 0.7 of the area) all crops fall back to the middle.
"""

_ASPECT_BYTES = 4


def canvas_side(image_size: int, longest: int | None = None) -> int:
    """The side C of canvases, in pixels.

    Args:
        image_size: S, the side of the square that the network sees.
        longest: The longest side of any image of the data set, where it is known: a canvas of thumbnails
            needs to be no larger than they are.

    >>> canvas_side(224), canvas_side(224, longest=32)
    (320, 32)
    """
    side = math.ceil(SIDE_PER_PIXEL * image_size)
    return side if longest is None else min(side, longest)


def longest_side(path: Path) -> int:
    """The longer side of an image in pixels, by its header alone."""
    with Image.open(path, formats=FORMATS) as image:
        return max(image.size)


def row_bytes(side: int) -> int:
    """How long a packed canvas of side C is: 3 C C + 4.

    >>> row_bytes(320)
    307204
    """
    return 3 * side * side + _ASPECT_BYTES


def canvas(source: bytes | Path, side: int, name: str = "the image") -> tuple[Tensor, float]:
    """Reduces one image to a square that holds all of it.

    A large JPEG is decoded at a half, quarter or eighth of its size, as long as 2 C pixels are left on both
    sides. Against the canvas of the full image, 0.6 of 255 on average over ants/bees and 2.2 in its worst
    photograph (mean absolute difference; C from 23 to 320).

    Args:
        source: The file's content, or its path.
        side: C, in pixels.
        name: What errors call an image that has no path.

    Returns:
        The canvas (3, C, C), uint8, and width / height of the part of the image that it shows, which is all
        of it up to `MAX_ASPECT`.

    Raises:
        UnreadableImageError: As `decode`.
    """
    image = decode(source, name, min_side=2 * side)
    width = min(image.width, MAX_ASPECT * image.height)
    height = min(image.height, MAX_ASPECT * image.width)
    left, top = (image.width - width) / 2, (image.height - height) / 2
    small = image.resize((side, side), Resampling.LANCZOS, box=(left, top, left + width, top + height))
    return torch.from_numpy(np.array(small)).permute(2, 0, 1).contiguous(), width / height


def pack(canvas: Tensor, aspect: float) -> Tensor:
    """One canvas (3, C, C), uint8, and its aspect ratio as a flat row of 3 C C + 4 bytes."""
    tail = torch.tensor([aspect], dtype=torch.float32, device=canvas.device).view(torch.uint8)
    return torch.cat([canvas.flatten(), tail])


def unpack(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Takes packed canvases (B, 3 C C + 4), uint8, apart.

    Returns:
        Canvases (B, 3, C, C), uint8, a view of the rows, and aspect ratios (B,), float32.

    Raises:
        ValueError: Rows are not of that length.
    """
    side = math.isqrt((rows.shape[1] - _ASPECT_BYTES) // 3)
    if rows.shape[1] != row_bytes(side):
        raise ValueError(f"a packed canvas has 3 C C + {_ASPECT_BYTES} bytes, but got {rows.shape[1]}")
    # A clone starts at an address that floats may stand at; the end of a row need not be one.
    aspects = rows[:, -_ASPECT_BYTES:].clone(memory_format=torch.contiguous_format).view(torch.float32)
    return rows[:, :-_ASPECT_BYTES].view(-1, 3, side, side), aspects.flatten()
