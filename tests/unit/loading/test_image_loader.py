"""Images as tensors, decoded at every use or stored."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from transfer_model.preprocessing import Preprocessing
from transfer_platform.data.catalog import ImageRecord, scan_folder
from transfer_platform.errors import DataError
from transfer_platform.loading import image_loader as images_module
from transfer_platform.loading.image_loader import ImageLoader
from transfer_platform.tensor_store.store import Store

PREPROCESSING = Preprocessing(32, 0.875, "bicubic", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CPU = torch.device("cpu")


@pytest.fixture
def records(isolated: Path, write_image: Callable[[Path, str], None]) -> tuple[ImageRecord, ...]:
    for label, count in (("ant", 5), ("bee", 4)):
        for number in range(count):
            write_image(isolated / "set" / label / f"{number}.png", f"{label}{number}")
    return scan_folder(isolated / "set").images


def test_an_image_is_bitwise_equal_to_the_one_in_serving(records) -> None:
    images = ImageLoader(records, PREPROCESSING, "none", CPU)
    with Image.open(records[3].path) as image:
        assert torch.equal(images.load([3])[0], PREPROCESSING(image.convert("RGB")))


def test_stored_images_are_bitwise_equal(records, tmp_path) -> None:
    store = Store(tmp_path / "features", 10**8)
    fresh = ImageLoader(records, PREPROCESSING, "medium", CPU)
    stored = ImageLoader(records, PREPROCESSING, "medium", CPU, store)
    assert torch.equal(fresh.load([8, 0, 4]), stored.load([8, 0, 4]))
    assert torch.equal(fresh.load_views([8, 0], [1, 2]), stored.load_views([8, 0], [1, 2]))


def test_stored_images_are_not_decoded_again(records, tmp_path) -> None:
    store = Store(tmp_path / "features", 10**8)
    before = ImageLoader(records, PREPROCESSING, "light", CPU, store).load(range(9))
    for image in records:
        image.path.unlink()
    assert torch.equal(ImageLoader(records, PREPROCESSING, "light", CPU, store).load(range(9)), before)


def test_without_room_images_are_decoded_at_every_use(records, tmp_path) -> None:
    messages: list[str] = []
    images = ImageLoader(records, PREPROCESSING, "none", CPU, Store(tmp_path / "features", 100), say=messages.append)
    assert images.load([0, 1]).shape == (2, 3, 32, 32)
    assert messages == [
        "images are decoded in every epoch: the cache has no room for 27.6 kB; "
        "raise PLATFORM_CACHE_LIMIT or run `platform cache clear`"
    ]
    records[0].path.unlink()
    with pytest.raises(Exception, match="cannot be read"):
        images.load([0])


def test_a_view_depends_on_its_image_and_seed_only(records) -> None:
    images = ImageLoader(records, PREPROCESSING, "trivial", CPU)
    together = images.load_views([2, 5, 7], [10, 11, 12])
    assert torch.equal(images.load_views([7, 5], [12, 11]), together[[2, 1]])
    assert not torch.equal(images.load_views([7], [13])[0], together[2])


def test_a_view_does_not_depend_on_other_stored_images(records, isolated) -> None:
    store = Store(isolated / "features", 10**8)
    alone = ImageLoader(records, PREPROCESSING, "light", CPU, store)
    alone.load_views([0], [1])
    Image.new("RGB", (400, 300), "teal").save(isolated / "set" / "bee" / "large.png")
    everything = scan_folder(isolated / "set").images
    position = [image.sha256 for image in everything].index(records[0].sha256)
    larger = ImageLoader(everything, PREPROCESSING, "light", CPU, store)
    fresh = ImageLoader(everything, PREPROCESSING, "light", CPU)
    assert alone.view_digest != larger.view_digest
    assert torch.equal(larger.load_views([position], [1]), fresh.load_views([position], [1]))


def test_canvases_of_two_data_sets_are_both_stored(records, isolated, monkeypatch) -> None:
    store = Store(isolated / "features", 10**8)
    views = ImageLoader(records, PREPROCESSING, "light", CPU, store).load_views([0], [1])
    Image.new("RGB", (400, 300), "teal").save(isolated / "set" / "bee" / "large.png")
    ImageLoader(scan_folder(isolated / "set").images, PREPROCESSING, "light", CPU, store).load_views([0], [1])
    monkeypatch.setattr(images_module.canvas, "make_canvas", None)
    assert torch.equal(ImageLoader(records, PREPROCESSING, "light", CPU, store).load_views([0], [1]), views)


def test_a_modified_image_is_an_error(records) -> None:
    Image.new("RGB", (20, 20), "red").save(records[2].path)
    with pytest.raises(DataError, match=r"was modified while in use"):
        ImageLoader(records, PREPROCESSING, "none", CPU).load([2])


def test_each_image_of_a_batch_is_decoded_once(records, monkeypatch) -> None:
    decoded = []
    make_canvas = images_module.canvas.make_canvas

    def counted(content: bytes, side: int, name: str, *intensity):
        decoded.append(name)
        return make_canvas(content, side, name, *intensity)

    monkeypatch.setattr(images_module.canvas, "make_canvas", counted)
    ImageLoader(records, PREPROCESSING, "light", CPU).load_views([3, 3, 3, 5], [1, 2, 3, 4])
    assert sorted(decoded) == sorted(str(records[position].path) for position in (3, 5))
