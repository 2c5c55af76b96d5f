"""Augmentation policies, applied to batches of canvases on any device."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor
from torch.nn.functional import grid_sample
from torchvision.transforms import InterpolationMode, v2

from transfer_model.preprocessing import Preprocessing

POLICIES = ("light", "medium", "trivial", "rand")
_TRANSFORMS = MappingProxyType({"trivial": v2.TrivialAugmentWide, "rand": v2.RandAugment})

_AREA = (0.7, 1.0)
_RATIO = (3 / 4, 4 / 3)
_HUE = 0.02
_ATTEMPTS = 10
_NUMBERS = 2 * _ATTEMPTS + 7
"""Random numbers needed per image: 2 per attempt (area and aspect ratio), 2 for position, 1 for flip, 4 for colors."""

_LUMA = (0.299, 0.587, 0.114)
# RGB -> YIQ (NTSC): luma, and a color plane in which hue is the angle.
_YIQ = ((0.299, 0.587, 0.114), (0.596, -0.274, -0.322), (0.211, -0.523, 0.312))


@dataclass(frozen=True)
class BatchAugmentation:
    """Samples augmented views from a batch of canvases.

    A view depends only on the canvas, aspect ratio and seed of its image; on a CPU, it is bitwise identical
    regardless of the other images in the batch. Random numbers are drawn on the CPU, so crops are the same on every
    device. PyTorch's global generators are not modified.

    Attributes:
        policy: `light`: random crop (70% to 100% of the image area, aspect ratio 3:4 to 4:3) and random horizontal
            flip, performed as one bilinear resampling. `medium`: `light` plus jitter of brightness,
            contrast, saturation (see `color_jitter`) and hue (2% of the color circle). `trivial`: `light` plus
            TrivialAugment (https://arxiv.org/abs/2103.10158). `rand`: `light` plus RandAugment
            (https://arxiv.org/abs/1909.13719). `trivial` and `rand` process images one at a time.
        color_jitter: Maximum relative change of brightness, contrast and saturation.

    Raises:
        ValueError: The policy is unknown or `none`; use `normalize_images` for `none`.
    """

    policy: str
    preprocessing: Preprocessing
    color_jitter: float = 0.2

    def __post_init__(self) -> None:
        if self.policy not in POLICIES:
            raise ValueError(f"the augmentation policy must be one of {', '.join(POLICIES)}, but got {self.policy!r}")

    def __call__(self, canvases: Tensor, aspects: Tensor, seeds: Sequence[int]) -> Tensor:
        """Returns one view of each image.

        Args:
            canvases: (B, 3, C, C) uint8, on any device; C may differ between batches.
            aspects: (B,) float32, width / height of the images; preferably on the CPU.
            seeds: B non-negative seeds; only the lower 32 bits are used.

        Returns:
            (B, 3, S, S) float32, normalized, on the device of the canvases.

        Raises:
            ValueError: The arguments differ in length.
        """
        counts = (len(canvases), len(aspects), len(seeds))
        if len(set(counts)) > 1:
            raise ValueError(f"canvases, aspects and seeds must have the same length, but got {counts}")
        numbers = _random_numbers(seeds)
        affine = _affine_parameters(numbers, aspects.cpu())
        pixels = _sample_views(canvases, affine, self.preprocessing.image_size)
        if self.policy == "medium":
            pixels = _jitter_colors(pixels, numbers[:, -4:], self.color_jitter)
        elif self.policy in _TRANSFORMS:
            # Bilinear interpolation suffices for rotations and shears, regardless of the network's resizing filter.
            fill = [round(channel * 255) for channel in self.preprocessing.mean]  # zero after normalization
            transform = _TRANSFORMS[self.policy](interpolation=InterpolationMode.BILINEAR, fill=fill)
            pixels = _apply_transform(pixels, transform, seeds)
        return _normalize_(pixels, self.preprocessing)


def normalize_images(pixels: Tensor, preprocessing: Preprocessing) -> Tensor:
    """Normalizes uint8 pixels (B, 3, S, S) to float32; on a CPU, bitwise equal to `Preprocessing.normalize`."""
    return _normalize_(pixels.to(torch.float32), preprocessing)


def _random_numbers(seeds: Sequence[int]) -> Tensor:
    """Returns uniform random numbers (B, _NUMBERS) in [0, 1) on the CPU; each row depends only on its seed."""
    generator = torch.Generator()
    numbers = torch.empty((len(seeds), _NUMBERS), dtype=torch.float32, device="cpu")
    for row, seed in zip(numbers, seeds, strict=True):
        row.uniform_(generator=generator.manual_seed(seed))
    return numbers


def _affine_parameters(numbers: Tensor, aspects: Tensor) -> Tensor:
    """Returns the affine map (B, 4) from each view to its canvas, including flips: scale and shift in x, then in y.

    View and canvas coordinates range from -1 to 1.
    """
    left, width, top, height = _random_crops(numbers, aspects)
    flip = torch.where(numbers[:, -5] < 0.5, -1.0, 1.0)
    return torch.stack([flip * width, 2 * left + width - 1, height, 2 * top + height - 1], dim=1)


def _random_crops(numbers: Tensor, aspects: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Samples crops (left, width, top, height) like RandomResizedCrop, as fractions of the image's sides.

    Uses the first crop that fits in the image. If none fits, uses the largest center crop with an allowed aspect ratio.
    """
    area = _AREA[0] + (_AREA[1] - _AREA[0]) * numbers[:, :_ATTEMPTS]
    low, high = map(math.log, _RATIO)
    ratio = torch.exp(low + (high - low) * numbers[:, _ATTEMPTS : 2 * _ATTEMPTS])
    widths, heights = (area * ratio / aspects[:, None]).sqrt(), (area * aspects[:, None] / ratio).sqrt()
    fits = (widths <= 1) & (heights <= 1)
    first = fits.int().argmax(dim=1, keepdim=True)
    any_fits = fits.any(dim=1)
    width = torch.where(any_fits, widths.gather(1, first)[:, 0], (_RATIO[1] / aspects).clamp(max=1))
    height = torch.where(any_fits, heights.gather(1, first)[:, 0], (aspects / _RATIO[0]).clamp(max=1))
    offsets = torch.where(any_fits[:, None], numbers[:, -7:-5], 0.5)
    return offsets[:, 0] * (1 - width), width, offsets[:, 1] * (1 - height), height


def _sample_views(canvases: Tensor, affine: Tensor, size: int) -> Tensor:
    """Samples float32 views (B, 3, S, S) with values from 0 to 255; outside the canvas, border pixels are repeated."""
    # Without `affine_grid`, because its matrix product may round differently for a different batch size.
    steps = (2 * torch.arange(size, dtype=torch.float32, device=canvases.device) + 1) / size - 1
    scale_x, shift_x, scale_y, shift_y = affine.to(canvases.device)[:, :, None].unbind(1)
    x, y = scale_x * steps + shift_x, scale_y * steps + shift_y
    grid = torch.stack([x[:, None, :].expand(-1, size, -1), y[:, :, None].expand(-1, -1, size)], dim=-1)
    pixels = canvases.to(torch.float32)
    return grid_sample(pixels, grid, mode="bilinear", padding_mode="border", align_corners=False)


def _jitter_colors(pixels: Tensor, numbers: Tensor, jitter: float) -> Tensor:
    """Changes brightness, contrast, saturation and hue of pixels (B, 3, S, S) with one affine color map per image.

    In YIQ color space, saturation scales the IQ plane and hue rotates it. Contrast blends pixels with the mean gray
    level, and brightness scales them. Values are clamped once, at the end, so the order of changes does not matter.
    """
    matrices, contrasts = _color_matrices(numbers, jitter)
    # Not one mean over all pixels, because its order of summation would depend on the batch size.
    means = pixels.sum(dim=-1).sum(dim=-1) / pixels[0, 0].numel()
    matrices, contrasts, luma = (t.to(pixels.device) for t in (matrices, contrasts, torch.tensor(_LUMA)))
    gray = (means * luma).sum(dim=1) * contrasts
    jittered = gray[:, None, None, None] + pixels[:, 0:1] * matrices[:, :, 0, None, None]
    jittered += pixels[:, 1:2] * matrices[:, :, 1, None, None]
    jittered += pixels[:, 2:3] * matrices[:, :, 2, None, None]
    return jittered.clamp_(0, 255)


def _color_matrices(numbers: Tensor, jitter: float) -> tuple[Tensor, Tensor]:
    """Returns color matrices (B, 3, 3) and factors (B,); an image's mean gray level times its factor is added to it."""
    brightness, contrast, saturation = (1 + jitter * (2 * numbers[:, :3] - 1)).double().unbind(1)
    angle = (2 * numbers[:, 3].double() - 1) * _HUE * 2 * math.pi
    plane = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], dim=1) * saturation[:, None]
    rotation = torch.eye(3, dtype=torch.float64).repeat(len(numbers), 1, 1)
    rotation[:, 1:, 1:] = plane.view(-1, 2, 2)
    yiq = torch.tensor(_YIQ, dtype=torch.float64)
    matrices = yiq.inverse() @ rotation @ yiq * (brightness * contrast)[:, None, None]
    return matrices.float(), (brightness * (1 - contrast)).float()


def _apply_transform(pixels: Tensor, transform: v2.Transform, seeds: Sequence[int]) -> Tensor:
    """Applies a torchvision transform to each image (B, 3, S, S) after seeding the global generator for that image."""
    views = pixels.round_().to(torch.uint8)
    with torch.random.fork_rng(devices=[]):
        for index, seed in enumerate(seeds):
            torch.default_generator.manual_seed(seed)
            torch.rand(_NUMBERS, dtype=torch.float32, device="cpu")  # skips the numbers used for the crop
            views[index] = transform(views[index])
    return views.to(torch.float32)


def _normalize_(pixels: Tensor, preprocessing: Preprocessing) -> Tensor:
    """Applies the operations of `Preprocessing.normalize` in place to float32 pixels (B, 3, S, S)."""
    mean = torch.tensor(preprocessing.mean, device=pixels.device).view(3, 1, 1)
    std = torch.tensor(preprocessing.std, device=pixels.device).view(3, 1, 1)
    return pixels.div_(255).sub_(mean).div_(std)
