"""How training images vary from epoch to epoch: a few named policies, of torchvision's transforms.

Each turns a decoded RGB picture of any size into an S x S one; normalization comes after. They draw from
torch's global generator, which `dataset` seeds for each image.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from PIL.Image import Image
from torchvision.transforms import InterpolationMode, v2

if TYPE_CHECKING:
    from transfer_model.preprocessing import Preprocessing

Augmentation = Callable[[Image], Image]
"""RGB picture of any size -> RGB picture of S x S."""


def augmentation(policy: str, preprocessing: Preprocessing) -> Augmentation:
    """The augmentation of a recipe.

    Args:
        policy: `none`: the centre square, as when serving. `light`: a random crop of 70 to 100 % of the area
            and a random flip. `medium`: light, and colours jittered by 20 %. `trivial`: light, and
            TrivialAugment (https://arxiv.org/abs/2103.10158). `rand`: light, and RandAugment
            (https://arxiv.org/abs/1909.13719).
        preprocessing: Of the network; gives S, the interpolation and the colour that fills corners.

    Raises:
        ValueError: There is no such policy; a recipe cannot ask for one.
    """
    if policy == "none":
        return preprocessing.square
    if policy not in _COLOURS:
        raise ValueError(f"the augmentation is one of none, {', '.join(_COLOURS)}, but got {policy!r}")
    compose: Augmentation = v2.Compose([*_light(preprocessing), *_COLOURS[policy](preprocessing)])
    return compose


def _light(preprocessing: Preprocessing) -> list[v2.Transform]:
    interpolation = InterpolationMode(preprocessing.interpolation.lower())
    crop = v2.RandomResizedCrop(preprocessing.image_size, scale=(0.7, 1.0), interpolation=interpolation)
    return [crop, v2.RandomHorizontalFlip()]


def _medium(_: Preprocessing) -> list[v2.Transform]:
    return [v2.ColorJitter(brightness=0.2, contrast=0.2, saturation=0.2, hue=0.02)]


# Bilinear, whatever the network's own filter: Pillow cannot rotate and shear with lanczos.
def _trivial(preprocessing: Preprocessing) -> list[v2.Transform]:
    return [v2.TrivialAugmentWide(interpolation=InterpolationMode.BILINEAR, fill=_mean_colour(preprocessing))]


def _rand(preprocessing: Preprocessing) -> list[v2.Transform]:
    return [v2.RandAugment(interpolation=InterpolationMode.BILINEAR, fill=_mean_colour(preprocessing))]


def _mean_colour(preprocessing: Preprocessing) -> list[int]:
    """Grey to the network: zero after normalization."""
    return [round(channel * 255) for channel in preprocessing.mean]


_COLOURS: Mapping[str, Callable[[Preprocessing], list[v2.Transform]]] = MappingProxyType(
    {"light": lambda _: [], "medium": _medium, "trivial": _trivial, "rand": _rand}
)
