"""Preprocessing of images, shared by training and serving.

    file --decode--> RGB image --crop_and_resize--> S x S image --normalize--> (3, S, S) tensor

This module does not import torch, so that `platform check` starts quickly.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from .decode import decode
from .intensity import Intensity

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Preprocessing:
    """Settings for converting an image to network input; stored with the model.

    Attributes:
        image_size: Side length S of the network input, in pixels.
        crop: Side length of the center crop as a fraction of the image's shorter side, above 0 and at most 1.
        interpolation: Pillow's name for the resampling filter, usually `bilinear`, `bicubic` or `lanczos`.
        mean: Per-channel mean of pixel values scaled to [0, 1].
        std: Per-channel standard deviation of pixel values scaled to [0, 1].
        intensity: Range of gray values in images with more than 8 bits; see `decode`.
    """

    image_size: int
    crop: float
    interpolation: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    intensity: Intensity | None = field(default=None, kw_only=True)

    def __call__(self, image: Image.Image) -> Tensor:
        """Converts a decoded RGB image of any size to a float32 tensor (3, S, S)."""
        return self.normalize(self.crop_and_resize(image))

    def load(self, source: bytes | Path, name: str = "the image") -> Image.Image:
        """Converts a file or its content to an S x S RGB image; arguments and errors are the same as for `decode`."""
        return self.crop_and_resize(decode(source, name, intensity=self.intensity))

    def crop_and_resize(self, image: Image.Image) -> Image.Image:
        """Crops the center square of an RGB image and resizes it to S x S in a single resampling step."""
        side = self.crop * min(image.size)
        left, top = (image.width - side) / 2, (image.height - side) / 2
        resample = Image.Resampling[self.interpolation.upper()]
        size = (self.image_size, self.image_size)
        return image.resize(size, resample, box=(left, top, left + side, top + side))

    def normalize(self, image: Image.Image) -> Tensor:
        """Converts an S x S RGB image to a float32 tensor (3, S, S), normalized by `mean` and `std`."""
        import torch

        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).to(torch.float32)
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (self.mean, self.std))
        return ((pixels / 255 - mean) / std).contiguous()
