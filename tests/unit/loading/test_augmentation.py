"""Augmented views of whole batches."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from transfer_model.preprocessing import Preprocessing
from transfer_platform.loading.augmentation import BatchAugmentation, normalize_images

SIZE = 32
PLAIN = Preprocessing(SIZE, 1.0, "bilinear", (0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255))
"""Normalization that gives 0 to 255 back."""
IMAGENET = Preprocessing(SIZE, 1.0, "bicubic", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
POLICIES = ("light", "medium", "trivial", "rand")
every_policy = pytest.mark.parametrize("policy", POLICIES)


def noise(count: int, side: int = 46) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, generator=generator)


def ramps(side: int = 46) -> torch.Tensor:
    """A canvas whose red is the place in x and whose green is that in y, both 0 to 255 from edge to edge."""
    place = (torch.arange(side) + 0.5) / side * 255
    ramp = torch.stack([place.expand(side, side), place[:, None].expand(side, side), torch.zeros(side, side)])
    return ramp.round().to(torch.uint8)


def borders(aspect: float, seeds: range) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Left, right, top, bottom (N,) of light's views of one image, in shares of its sides."""
    canvases = ramps().expand(len(seeds), -1, -1, -1)
    views = BatchAugmentation("light", PLAIN)(canvases, torch.full((len(seeds),), aspect), seeds) / 255
    red, green = views[:, 0, SIZE // 2], views[:, 1, :, SIZE // 2]

    def edges(line: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        # From well inside, where the clamped border of the canvas does not reach.
        step = (line[:, -6] - line[:, 5]) / (SIZE - 11)
        return line[:, 5] - 5.5 * step, line[:, -6] + 5.5 * step

    return *edges(red), *edges(green)


@every_policy
def test_views_are_normalized_squares(policy: str) -> None:
    for side in (20, 32, 46):
        views = BatchAugmentation(policy, IMAGENET)(noise(5, side), torch.ones(5), range(5))
        assert (views.shape, views.dtype) == ((5, 3, SIZE, SIZE), torch.float32)
        low, high = (
            IMAGENET.normalize(Image.new("RGB", (1, 1))),
            normalize_images(torch.full((1, 3, 1, 1), 255, dtype=torch.uint8), IMAGENET),
        )
        assert (views >= low - 1e-5).all()
        assert (views <= high + 1e-5).all()


@every_policy
def test_a_view_depends_on_its_canvas_aspect_and_seed_only(policy: str) -> None:
    augment = BatchAugmentation(policy, IMAGENET)
    canvases, aspects, seeds = noise(7), torch.linspace(0.5, 2, 7), [5, 1, 2**62, 3, 9, 2, 0]
    together = augment(canvases, aspects, seeds)
    order = [4, 2, 6, 0]
    some = augment(canvases[order], aspects[order], [seeds[index] for index in order])
    assert torch.equal(some, together[order])
    for index in range(7):
        alone = augment(canvases[index : index + 1], aspects[index : index + 1], seeds[index : index + 1])
        assert torch.equal(alone[0], together[index])


@pytest.mark.parametrize("policy", ["light", "medium"])
def test_the_number_of_threads_changes_no_bit(policy: str) -> None:
    threads, augment = (
        torch.get_num_threads(),
        BatchAugmentation(policy, Preprocessing(224, 1, "", *[(0.5,) * 3] * 2)),
    )
    views = []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            views += [augment(noise(2, 300), torch.ones(2), [1, 2]), augment(noise(2, 300)[:1], torch.ones(1), [1])]
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(views[0], views[2])
    assert torch.equal(views[0][:1], views[3])


@every_policy
def test_the_canvas_and_the_global_generator_are_not_changed(policy: str) -> None:
    canvases = noise(4)
    state = torch.get_rng_state()
    BatchAugmentation(policy, IMAGENET)(canvases, torch.ones(4), range(4))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(canvases, noise(4))


@every_policy
def test_the_state_of_the_global_generator_has_no_effect(policy: str) -> None:
    augment = BatchAugmentation(policy, IMAGENET)
    first = augment(noise(4), torch.ones(4), range(4))
    torch.rand(5)
    assert torch.equal(augment(noise(4), torch.ones(4), range(4)), first)


@every_policy
def test_seeds_differ(policy: str) -> None:
    views = BatchAugmentation(policy, IMAGENET)(noise(1).expand(8, -1, -1, -1), torch.ones(8), range(8))
    assert len({view.sum().item() for view in views}) == 8


@pytest.mark.parametrize("aspect", [0.6, 0.75, 1.0, 4 / 3, 1.6])
def test_light_crops_have_the_documented_areas_and_ratios(aspect: float) -> None:
    left, right, top, bottom = borders(aspect, range(400))
    width, height = (right - left).abs(), bottom - top
    area, ratio = width * height, aspect * width / height
    assert 0.68 < area.min() < 0.75
    # The shape is 3:4 to 4:3, so that of a longer image the whole is never taken.
    most = min(1, 4 / 3 / aspect, aspect / (3 / 4))
    assert most - 0.08 < area.max() < most + 0.03
    # At least 0.7 of the area is at least 0.7 of either side.
    assert ratio.min() == pytest.approx(max(3 / 4, 0.7 * aspect), rel=0.06)
    assert ratio.max() == pytest.approx(min(4 / 3, aspect / 0.7), rel=0.06)
    assert min(torch.minimum(left, right).min(), top.min()) > -0.03
    assert max(torch.maximum(left, right).max(), bottom.max()) < 1.03


def test_half_of_the_views_are_flipped_horizontally() -> None:
    left, right, top, bottom = borders(1.0, range(400))
    assert 160 < int((left > right).sum()) < 240
    assert (bottom > top).all()


def test_crops_lie_anywhere() -> None:
    left, right, _, _ = borders(1.0, range(400))
    low, room = torch.minimum(left, right), 1 - (right - left).abs()
    share = (low / room)[room > 0.1]
    assert share.min() < 0.1
    assert 0.4 < share.mean() < 0.6
    assert share.max() > 0.9


@pytest.mark.parametrize(("aspect", "shape"), [(2.0, 4 / 3), (0.5, 3 / 4)])
def test_a_long_image_is_cropped_at_the_center(aspect: float, shape: float) -> None:
    left, right, top, bottom = borders(aspect, range(10))
    width, height = (right - left).abs(), bottom - top
    assert torch.allclose(aspect * width / height, torch.tensor(shape), rtol=0.03)
    assert torch.allclose((left + right) / 2, torch.tensor(0.5), atol=0.02)
    assert torch.allclose((top + bottom) / 2, torch.tensor(0.5), atol=0.02)
    assert torch.allclose(torch.maximum(width, height), torch.tensor(1.0), atol=0.03)


def smooth(count: int) -> torch.Tensor:
    """Images whose colors stay away from the ends, so that nothing is clamped."""
    coarse = torch.rand((count, 3, 4, 4), generator=torch.Generator().manual_seed(1)) * 90 + 80
    return torch.nn.functional.interpolate(coarse, 46, mode="bilinear").to(torch.uint8)


def test_medium_varies_brightness_contrast_and_saturation_by_a_fifth() -> None:
    seeds = range(300)
    canvases, aspects = smooth(1).expand(300, -1, -1, -1), torch.ones(300)
    light = BatchAugmentation("light", PLAIN)(canvases, aspects, seeds)
    medium = BatchAugmentation("medium", PLAIN)(canvases, aspects, seeds)
    luma = torch.tensor([0.299, 0.587, 0.114])[:, None, None]
    grays, varied = (light * luma).sum(1), (medium * luma).sum(1)
    brightness = varied.mean((1, 2)) / grays.mean((1, 2))
    contrast = varied.std((1, 2)) / grays.std((1, 2)) / brightness
    chroma = [
        (views - gray[:, None]).square().mean((1, 2, 3)).sqrt() for views, gray in ((light, grays), (medium, varied))
    ]
    saturation = chroma[1] / chroma[0] / brightness / contrast
    for factor, slack in ((brightness, 0.005), (contrast, 0.005), (saturation, 0.03)):
        assert 0.8 - slack < factor.min() < 0.83
        assert 0.97 < factor.mean() < 1.03
        assert 1.17 < factor.max() < 1.2 + slack
    assert (torch.corrcoef(torch.stack([brightness, contrast, saturation])) - torch.eye(3)).abs().max() < 0.2


def test_medium_changes_hue_by_a_fiftieth_of_the_circle() -> None:
    seeds = range(200)
    canvases, aspects = smooth(1).expand(200, -1, -1, -1), torch.ones(200)
    medium = BatchAugmentation("medium", PLAIN, color_jitter=0.0)(canvases, aspects, seeds)
    light = BatchAugmentation("light", PLAIN)(canvases, aspects, seeds)
    moved = (medium - light).abs().mean((1, 2, 3))
    most = (functional.adjust_hue(light / 255, 0.02) * 255 - light).abs().mean((1, 2, 3))
    assert (moved < 1.3 * most).all()
    assert (moved > 0.75 * most).any()
    # To both sides.
    turned = {sign: functional.adjust_hue(light / 255, sign * 0.02) * 255 - light for sign in (-1, 1)}
    sides = [(turned[1][index] * (medium - light)[index]).sum() > 0 for index in range(200)]
    assert 70 < sum(map(int, sides)) < 130


def test_grays_stay_gray_and_colors_in_range() -> None:
    gray = noise(8)[:, :1].expand(-1, 3, -1, -1)
    views = BatchAugmentation("medium", PLAIN)(gray, torch.ones(8), range(8))
    assert (views.amax(1) - views.amin(1)).max() < 1e-3
    extremes = BatchAugmentation("medium", PLAIN)(noise(8) // 128 * 255, torch.ones(8), range(8))
    assert extremes.min() == 0
    assert extremes.max() == pytest.approx(255)


@pytest.mark.parametrize(("policy", "transform"), [("trivial", v2.TrivialAugmentWide), ("rand", v2.RandAugment)])
def test_trivial_and_rand_apply_torchvision_after_light(policy: str, transform: type[v2.Transform]) -> None:
    canvases = noise(16)
    light = BatchAugmentation("light", PLAIN)(canvases, torch.ones(16), range(16)).round()
    varied = BatchAugmentation(policy, PLAIN)(canvases, torch.ones(16), range(16)).round()
    changed = [not torch.equal(one, other) for one, other in zip(light, varied, strict=True)]
    assert sum(changed) > 8
    # The transform continues after the 27 numbers of the crop; corners are filled with the mean, here black.
    apply = transform(interpolation=v2.InterpolationMode.BILINEAR, fill=[0, 0, 0])
    state = torch.get_rng_state()
    for index in range(4):
        torch.manual_seed(index)
        torch.rand(27)
        expected = apply(light[index].to(torch.uint8))
        assert torch.equal(varied[index], expected.float())
    torch.set_rng_state(state)


@pytest.mark.parametrize("policy", ["none", "heavy"])
def test_an_unknown_policy_is_an_error(policy: str) -> None:
    with pytest.raises(ValueError, match=f"one of light, medium, trivial, rand, but got '{policy}'"):
        BatchAugmentation(policy, IMAGENET)


def test_different_lengths_are_an_error() -> None:
    with pytest.raises(ValueError, match=r"must have the same length, but got \(3, 3, 2\)"):
        BatchAugmentation("light", IMAGENET)(noise(3), torch.ones(3), [0, 1])


def test_normalization_is_bitwise_equal_to_serving() -> None:
    pixels = noise(6, SIZE)
    images = [Image.fromarray(np.ascontiguousarray(square.permute(1, 2, 0).numpy())) for square in pixels]
    assert torch.equal(normalize_images(pixels, IMAGENET), torch.stack([IMAGENET.normalize(image) for image in images]))
    every = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(1, 3, -1, -1)
    assert torch.equal(
        normalize_images(every, IMAGENET)[0],
        IMAGENET.normalize(Image.fromarray(every[0].permute(1, 2, 0).numpy().copy())),
    )
    assert all(one < other for one, other in pairwise(normalize_images(every, IMAGENET)[0, 0].flatten().tolist()))
