"""The range of gray values from a folder of 12-bit images to the tensors, the version and the study."""

from __future__ import annotations

import re
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from transfer_model.architecture import Architecture
from transfer_platform.commands._open import OpenedRecipe, open_recipe
from transfer_platform.commands.init import write_first_recipe
from transfer_platform.errors import DataError, RecipeError
from transfer_platform.loading.image_loader import ImageLoader, preprocessing_digest
from transfer_platform.recipe.resolve import study_identity, to_yaml
from transfer_platform.recipe.schema import IntensityRange
from transfer_platform.training.trial_trainer import TrialTrainer


def radiographs(folder: Path, peak: int, count: int = 12, dtype: type = np.uint16) -> Path:
    """Two classes of gray gradients whose largest value is `peak`."""
    for label in ("healthy", "ill"):
        (folder / label).mkdir(parents=True)
        for number in range(count):
            values = np.linspace(0, peak, 40 * 40).reshape(40, 40).round()
            values[0, 0] = number + 100 * (label == "ill")
            Image.fromarray(values.astype(dtype)).save(
                folder / label / f"{number}.{'png' if dtype == np.uint16 else 'tif'}"
            )
    return folder


def opened(folder: Path, *lines: str) -> OpenedRecipe:
    recipe = folder.with_suffix(".yaml")
    text = [f"name: {folder.name}", "dataset:", f"  source: {folder}", *lines, "backbone:", "  name: timm/test_resnet"]
    recipe.write_text("\n".join([*text, "  weights: none", ""]))
    return open_recipe(recipe)


def loader(opened: OpenedRecipe) -> ImageLoader:
    splits = opened.trainable_splits()
    trainer = TrialTrainer(splits, {Architecture("timm/test_resnet"): None}, torch.device("cpu"))
    return ImageLoader(splits.development, trainer.preprocessing(opened.recipe), "light", torch.device("cpu"))


def brightest(opened: OpenedRecipe) -> float:
    """Largest pixel value of an image as the network sees it, 0 to 1."""
    images = loader(opened)
    mean, std = images.preprocessing.mean[0], images.preprocessing.std[0]
    return float(images.load([0])[0, 0].max()) * std + mean


def test_12_bit_images_are_not_nearly_black(isolated: Path) -> None:
    assert brightest(opened(radiographs(isolated / "xrays", 4095))) > 0.9


@pytest.mark.parametrize(
    ("peak", "dtype", "resolved"),
    [
        (255, np.uint16, (0, 255)),
        (1023, np.uint16, (0, 1023)),
        (16383, np.uint16, (0, 16383)),
        (65535, np.uint16, (0, 65535)),
        (3071, np.int32, (0, 4095)),
        (4095, np.float32, (0, 4095)),
        (300, np.float32, (0, 511)),
    ],
)
def test_the_range_is_that_of_the_training_images(isolated: Path, peak: int, dtype: type, resolved: tuple) -> None:
    found = opened(radiographs(isolated / "xrays", peak, 6, dtype)).recipe.dataset.intensity
    assert (found.low, found.high) == resolved


def test_test_images_do_not_change_the_range(isolated: Path) -> None:
    radiographs(isolated / "set" / "train", 4095)
    radiographs(isolated / "set" / "test", 65535)
    found = opened(isolated / "set")
    assert found.recipe.dataset.intensity.high == 4095
    outside = found.inspection.by_kind("values out of range")
    assert {finding.files[0].parts[-3] for finding in outside} == {"test"}
    assert outside[0].detail.endswith("to 65,535; the range is 0 to 4,095")


def test_the_preflight_reports_the_values_and_the_range(isolated: Path) -> None:
    inspection = opened(radiographs(isolated / "xrays", 4095)).inspection
    (finding,) = inspection.by_kind("intensity")
    count = sum(inspection.counts["train"].values())
    start, end = finding.detail.split(" with values from ")
    assert start == f"dataset.intensity is auto: {count} training images have more than 8 bits,"
    assert end.endswith(" to 4,095; 0 is black and 4,095 is white")
    assert len(inspection.by_kind("more than 8 bits")) == 24
    assert not inspection.by_kind("very dark or bright"), "brightness is measured as the network sees the image"


def test_with_the_full_scale_12_bit_images_are_reported_as_dark(isolated: Path) -> None:
    inspection = opened(radiographs(isolated / "xrays", 4095), "  intensity: full").inspection
    assert len(inspection.by_kind("very dark or bright")) == 24


@pytest.mark.parametrize(("lowest", "highest"), [(0, 65535), (-32768, 4095)])
def test_one_image_with_far_values_is_named_and_does_not_set_the_range(
    isolated: Path, lowest: int, highest: int
) -> None:
    folder = radiographs(isolated / "xrays", 4095, 20, np.int32)
    values = np.full((40, 40), highest, np.int32)
    values[:20] = lowest
    Image.fromarray(values).save(folder / "ill" / "0.tif")
    found = opened(folder, "  splits: {train: ., validation: {folds: 2}, test: 0.05}")
    assert found.recipe.dataset.intensity == IntensityRange(low=0, high=4095)
    assert "0.tif" in [each.path.name for each in found.trainable_splits().development], "the test needs this"
    for kind in ("uneven intensity", "values out of range"):
        assert [finding.files[0].name for finding in found.inspection.by_kind(kind)] == ["0.tif"]


def test_overshoot_of_resampling_does_not_change_the_range(isolated: Path) -> None:
    folder = radiographs(isolated / "xrays", 0, 6, np.float32)
    for number, file in enumerate(sorted(folder.rglob("*.tif"))):
        values = np.linspace(-0.003, 1.004, 1600, dtype=np.float32).reshape(40, 40)
        Image.fromarray(np.roll(values, 3 * number, 0)).save(file)
    found = opened(folder)
    assert found.recipe.dataset.intensity == IntensityRange(low=0, high=1)
    assert not found.inspection.by_kind("values out of range")


def test_a_range_that_makes_almost_all_images_blank_is_an_error(isolated: Path) -> None:
    folder = radiographs(isolated / "xrays", 120, 6)
    with pytest.raises(DataError, match=re.escape("values range from 0 to 120; the range is 0 to 65,535")) as caught:
        opened(folder, "  intensity: {low: 0, high: 65535}").trainable_splits()
    assert "blank after scaling" in str(caught.value)


def test_16_bit_colors_are_reported_because_pillow_drops_their_lower_bits(isolated: Path) -> None:
    folder = radiographs(isolated / "xrays", 255)
    header = struct.pack(">IIBBBBB", 30, 30, 16, 2, 0, 0, 0)
    rows = b"".join(b"\0" + (np.arange(90) * 700).astype(">u2").tobytes() for _ in range(30))
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    content = b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )
    (folder / "ill" / "color.png").write_bytes(b"\x89PNG\r\n\x1a\n" + content)
    details = {each.files[0].name: each.detail for each in opened(folder).inspection.by_kind("more than 8 bits")}
    assert details["color.png"] == "mode RGB;16: only the upper 8 of 16 bits per channel are used, without scaling"


def test_the_first_recipe_names_the_range(isolated: Path) -> None:
    write_first_recipe(str(radiographs(isolated / "xrays", 4095)))
    assert "  # intensity: {low: 0, high: 4095} " in (isolated / "xrays.yaml").read_text()


def test_training_and_serving_see_the_same_pixels(isolated: Path) -> None:
    images = loader(opened(radiographs(isolated / "xrays", 4095)))
    served = images.preprocessing
    for position, record in enumerate(images.records):
        assert torch.equal(images.load([position])[0], served.normalize(served.load(record.path.read_bytes())))


def test_augmented_views_use_the_range(isolated: Path) -> None:
    images = loader(opened(radiographs(isolated / "xrays", 4095)))
    views = images.load_views([0, 1], [1, 2])[:, 0] * images.preprocessing.std[0] + images.preprocessing.mean[0]
    assert views.max() > 0.8


def test_the_setting_is_part_of_the_address_of_stored_images_and_of_the_study(isolated: Path) -> None:
    folder = radiographs(isolated / "xrays", 4095)
    lines = ["intensity: auto", "intensity: 8bit", "intensity: full", "intensity: {low: 100, high: 3000}"]
    recipes = [opened(folder, f"  {line}") for line in lines]
    assert len({study_identity(each.recipe) for each in recipes}) == 4
    assert len({preprocessing_digest("square", loader(each).preprocessing) for each in recipes}) == 4


def test_a_written_range_and_an_equal_settled_one_are_the_same_study(isolated: Path) -> None:
    folder = radiographs(isolated / "xrays", 4095)
    resolved, written = opened(folder), opened(folder, "  intensity: {low: 0, high: 4095}")
    assert study_identity(resolved.recipe) == study_identity(written.recipe)
    again = isolated / "again.yaml"
    again.write_text(to_yaml(resolved.recipe))
    assert open_recipe(again).recipe == resolved.recipe


def test_8_bit_images_do_not_depend_on_the_setting(isolated: Path) -> None:
    for label in ("a", "b"):
        (isolated / "set" / label).mkdir(parents=True)
        for number in range(15):
            values = np.random.default_rng([number, ord(label)]).integers(0, 256, (20, 20, 3), np.uint8)
            Image.fromarray(values).save(isolated / "set" / label / f"{number}.png")
    plain = opened(isolated / "set")
    assert plain.recipe.dataset.intensity == "full"
    assert loader(plain).preprocessing.intensity is None
    other = opened(isolated / "set", "  intensity: {low: 0, high: 4095}")
    assert torch.equal(loader(plain).load(range(6)), loader(other).load(range(6)))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("{low: 5, high: 5}", "dataset.intensity: low must be below high, but got low=5 and high=5"),
        ("{low: 0}", "dataset.intensity.high: is missing; expected low and high"),
        ("12bit", "dataset.intensity: must be one of auto, 8bit, full, but got"),
        ("{low: 0, hihg: 9}", "did you mean 'high'?"),
        ("4095", "dataset.intensity: must be one of auto, 8bit, full, but got 4095"),
    ],
)
def test_an_invalid_setting_is_one_sentence(isolated: Path, value: str, message: str) -> None:
    with pytest.raises(RecipeError, match=re.escape(message)):
        opened(radiographs(isolated / "xrays", 255, 1), f"  intensity: {value}")
