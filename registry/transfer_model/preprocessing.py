"""Preprocessing of decoded images, shared by training and serving.

    RGB image --crop_and_resize--> S x S image --normalize--> (3, S, S) tensor

Importing this module does not import torch, which `platform check` does not need.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Preprocessing:
    """Conversion of an image to the input of a network; stored with the model.

    Attributes:
        image_size: Side of the network's input, S, in pixels.
        crop: Side of the center crop as a fraction of the image's shorter side, above 0 and at most 1.
        interpolation: Pillow's name of the resampling filter, usually `bilinear`, `bicubic` or `lanczos`.
        mean: Mean per channel, on the scale of 0 to 1.
        std: Standard deviation per channel, on the scale of 0 to 1.
    """

    image_size: int
    crop: float
    interpolation: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __call__(self, image: Image.Image) -> Tensor:
        """Converts a decoded RGB image of any size to (3, S, S) float32."""
        return self.normalize(self.crop_and_resize(image))

    def crop_and_resize(self, image: Image.Image) -> Image.Image:
        """Crops the center square of an RGB image and resizes it to S x S, in one resampling step."""
        side = self.crop * min(image.size)
        left, top = (image.width - side) / 2, (image.height - side) / 2
        resample = Image.Resampling[self.interpolation.upper()]
        size = (self.image_size, self.image_size)
        return image.resize(size, resample, box=(left, top, left + side, top + side))

    def normalize(self, image: Image.Image) -> Tensor:
        """Normalizes an S x S RGB image by mean and standard deviation, to (3, S, S) float32."""
        import torch

        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).to(torch.float32)
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (self.mean, self.std))
        return ((pixels / 255 - mean) / std).contiguous()
