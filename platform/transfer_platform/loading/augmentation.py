"""How training images vary from epoch to epoch: a few named policies.

Views are cut out of canvases (see `canvas`), a batch at a time, on whatever device the canvases are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import grid_sample
from torchvision.transforms import InterpolationMode, v2

if TYPE_CHECKING:
    from transfer_model.preprocessing import Preprocessing

POLICIES = ("light", "medium", "trivial", "rand")
_TRANSFORMS = MappingProxyType({"trivial": v2.TrivialAugmentWide, "rand": v2.RandAugment})

_AREA = (0.7, 1.0)
_RATIO = (3 / 4, 4 / 3)
_JITTER = 0.2
_HUE = 0.02
_ATTEMPTS = 10
_NUMBERS = 2 * _ATTEMPTS + 7
"""Drawn for an image: area and ratio of each attempt, the place's two, the flip's, the colours' four."""

_LUMA = (0.299, 0.587, 0.114)
# RGB -> YIQ (NTSC): luma, and colour as a plane in which hue is the angle.
_YIQ = ((0.299, 0.587, 0.114), (0.596, -0.274, -0.322), (0.211, -0.523, 0.312))


@dataclass(frozen=True)
class BatchAugmentation:
    """Augmented views of a batch, cut out of canvases.

    An image's view depends on its canvas, its aspect ratio and its seed, not on its batch: on a CPU, to the
    bit. Random numbers are drawn on the CPU, so that every device sees the same crops; torch's generators are
    left as they were.

    Attributes:
        policy: `light`: a random crop of 70 to 100 % of the area, 3:4 to 4:3 as the image was taken, and a
            random flip, sampled bilinearly in one step. `medium`: light, and brightness, contrast and
            saturation varied by 20 %, hue by 2 % of the circle. `trivial`: light, and TrivialAugment
            (https://arxiv.org/abs/2103.10158). `rand`: light, and RandAugment
            (https://arxiv.org/abs/1909.13719). The last two go image by image.
        preprocessing: Of the network; gives S, the normalization and the colour that fills corners.

    Raises:
        ValueError: There is no such policy, or it is `none`, which cuts no views: see `normalize_images`.
    """

    policy: str
    preprocessing: Preprocessing

    def __post_init__(self) -> None:
        if self.policy not in POLICIES:
            raise ValueError(f"views are of one of {', '.join(POLICIES)}, but got {self.policy!r}")

    def __call__(self, canvases: Tensor, aspects: Tensor, seeds: Sequence[int]) -> Tensor:
        """Cuts one view of each image.

        Args:
            canvases: (B, 3, C, C) uint8, on any device; C need not be the same for every batch.
            aspects: (B,) float32, width / height of the images; best left on the CPU.
            seeds: B of them, 0 or above; only the lower 32 bits count.

        Returns:
            (B, 3, S, S) float32, normalized, on the device of the canvases.

        Raises:
            ValueError: There are not as many of each.
        """
        counts = (len(canvases), len(aspects), len(seeds))
        if len(set(counts)) > 1:
            raise ValueError(f"canvases, aspects and seeds must be as many, but got {counts}")
        numbers = _drawn(seeds)
        pixels = _cropped(canvases, _affine(numbers, aspects.cpu()), self.preprocessing.image_size)
        if self.policy == "medium":
            pixels = _jittered(pixels, numbers[:, -4:])
        elif self.policy in _TRANSFORMS:
            # Bilinear, whatever the network's own filter: rotations and shears need no more.
            transform = _TRANSFORMS[self.policy](
                interpolation=InterpolationMode.BILINEAR, fill=_mean_colour(self.preprocessing)
            )
            pixels = _transformed(pixels, transform, seeds)
        return _normalized_(pixels, self.preprocessing)


def normalize_images(pixels: Tensor, preprocessing: Preprocessing) -> Tensor:
    """Normalizes S x S images; on a CPU the bits are those of `Preprocessing.normalize`.

    Args:
        pixels: (B, 3, S, S) uint8, on any device.
        preprocessing: Of the network.

    Returns:
        (B, 3, S, S) float32, on the same device.
    """
    return _normalized_(pixels.to(torch.float32), preprocessing)


def _drawn(seeds: Sequence[int]) -> Tensor:
    """Uniform numbers (B, _NUMBERS), 0 up to 1, on the CPU; a row depends on its seed alone."""
    generator = torch.Generator()
    numbers = torch.empty((len(seeds), _NUMBERS), dtype=torch.float32, device="cpu")
    for row, seed in zip(numbers, seeds, strict=True):
        row.uniform_(generator=generator.manual_seed(seed))
    return numbers


def _affine(numbers: Tensor, aspects: Tensor) -> Tensor:
    """Where each view lies on its canvas, flips included.

    Returns:
        (B, 4): scale and shift in x, then in y, from the view's square to the canvas's, both -1 to 1.
    """
    left, width, top, height = _crop(numbers, aspects)
    flip = torch.where(numbers[:, -5] < 0.5, -1.0, 1.0)
    return torch.stack([flip * width, 2 * left + width - 1, height, 2 * top + height - 1], dim=1)


def _crop(numbers: Tensor, aspects: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Random crops, drawn as torchvision's RandomResizedCrop does.

    The first attempt that fits into the image counts; without one, the largest permitted shape, centred.

    Returns:
        Left and width, top and height, each (B,), in shares of the image's width and height.
    """
    area = _AREA[0] + (_AREA[1] - _AREA[0]) * numbers[:, :_ATTEMPTS]
    least, most = map(math.log, _RATIO)
    ratio = torch.exp(least + (most - least) * numbers[:, _ATTEMPTS : 2 * _ATTEMPTS])
    widths, heights = (area * ratio / aspects[:, None]).sqrt(), (area * aspects[:, None] / ratio).sqrt()
    fits = (widths <= 1) & (heights <= 1)
    first = fits.int().argmax(dim=1, keepdim=True)
    some = fits.any(dim=1)
    width = torch.where(some, widths.gather(1, first)[:, 0], (_RATIO[1] / aspects).clamp(max=1))
    height = torch.where(some, heights.gather(1, first)[:, 0], (aspects / _RATIO[0]).clamp(max=1))
    places = torch.where(some[:, None], numbers[:, -7:-5], 0.5)
    return places[:, 0] * (1 - width), width, places[:, 1] * (1 - height), height


def _cropped(canvases: Tensor, affine: Tensor, size: int) -> Tensor:
    """Samples the views (B, 3, S, S), float32, 0 to 255; beyond the border the border goes on."""
    # Not affine_grid: it multiplies matrices, whose bits may change with the size of the batch.
    steps = (2 * torch.arange(size, dtype=torch.float32, device=canvases.device) + 1) / size - 1
    scale_x, shift_x, scale_y, shift_y = affine.to(canvases.device)[:, :, None].unbind(1)
    x, y = scale_x * steps + shift_x, scale_y * steps + shift_y
    grid = torch.stack([x[:, None, :].expand(-1, size, -1), y[:, :, None].expand(-1, -1, size)], dim=-1)
    pixels = canvases.to(torch.float32)
    return grid_sample(pixels, grid, mode="bilinear", padding_mode="border", align_corners=False)


def _jittered(pixels: Tensor, numbers: Tensor) -> Tensor:
    """Varies brightness, contrast, saturation and hue of (B, 3, S, S) by an affine map of colours each.

    Saturation and hue stretch and turn the IQ plane of YIQ and leave luma alone; brightness and contrast go
    by luma. Values are clamped once, at the end. So the four commute, and there is no order to draw.
    """
    matrices, contrasts = _colour_matrices(numbers)
    # A mean over all pixels at once would be summed in another order for a batch of one.
    means = pixels.sum(dim=-1).sum(dim=-1) / pixels[0, 0].numel()
    matrices, contrasts, luma = (t.to(pixels.device) for t in (matrices, contrasts, torch.tensor(_LUMA)))
    grey = (means * luma).sum(dim=1) * contrasts
    turned = grey[:, None, None, None] + pixels[:, 0:1] * matrices[:, :, 0, None, None]
    turned += pixels[:, 1:2] * matrices[:, :, 1, None, None]
    turned += pixels[:, 2:3] * matrices[:, :, 2, None, None]
    return turned.clamp_(0, 255)


def _colour_matrices(numbers: Tensor) -> tuple[Tensor, Tensor]:
    """Matrices (B, 3, 3) to multiply colours with, and the share (B,) of an image's mean grey to be added."""
    brightness, contrast, saturation = (1 + _JITTER * (2 * numbers[:, :3] - 1)).double().unbind(1)
    angle = (2 * numbers[:, 3].double() - 1) * _HUE * 2 * math.pi
    plane = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], dim=1) * saturation[:, None]
    turn = torch.eye(3, dtype=torch.float64).repeat(len(numbers), 1, 1)
    turn[:, 1:, 1:] = plane.view(-1, 2, 2)
    yiq = torch.tensor(_YIQ, dtype=torch.float64)
    colours = yiq.inverse() @ turn @ yiq * (brightness * contrast)[:, None, None]
    return colours.float(), (brightness * (1 - contrast)).float()


def _transformed(pixels: Tensor, transform: v2.Transform, seeds: Sequence[int]) -> Tensor:
    """Runs a transform of torchvision's, which draws from the global generator, over each of (B, 3, S, S)."""
    views = pixels.round_().to(torch.uint8)
    with torch.random.fork_rng(devices=[]):
        for index, seed in enumerate(seeds):
            torch.default_generator.manual_seed(seed)
            torch.rand(_NUMBERS, dtype=torch.float32, device="cpu")  # gone by: the crop was made of these
            views[index] = transform(views[index])
    return views.to(torch.float32)


def _normalized_(pixels: Tensor, preprocessing: Preprocessing) -> Tensor:
    """The steps of `Preprocessing.normalize` on a batch (B, 3, S, S), float32, in place."""
    mean = torch.tensor(preprocessing.mean, device=pixels.device).view(3, 1, 1)
    std = torch.tensor(preprocessing.std, device=pixels.device).view(3, 1, 1)
    return pixels.div_(255).sub_(mean).div_(std)


def _mean_colour(preprocessing: Preprocessing) -> list[int]:
    """Grey to the network: zero after normalization."""
    return [round(channel * 255) for channel in preprocessing.mean]
