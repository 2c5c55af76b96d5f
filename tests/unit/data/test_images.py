"""Pictures as tensors, decoded each time or kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from transfer_model.preprocessing import Preprocessing
from transfer_platform.data.catalog import Picture, scan
from transfer_platform.data.images import Images
from transfer_platform.store import Store

PREPROCESSING = Preprocessing(32, 0.875, "bicubic", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CPU = torch.device("cpu")


@pytest.fixture
def pictures(isolated: Path, write_picture: Callable[[Path, str], None]) -> tuple[Picture, ...]:
    for label, count in (("ant", 5), ("bee", 4)):
        for number in range(count):
            write_picture(isolated / "set" / label / f"{number}.png", f"{label}{number}")
    return scan(isolated / "set").pictures


def test_a_plain_picture_is_what_serving_sees_to_the_bit(pictures) -> None:
    images = Images(pictures, PREPROCESSING, "none", CPU)
    with Image.open(pictures[3].path) as image:
        assert torch.equal(images.plain([3])[0], PREPROCESSING(image.convert("RGB")))


def test_keeping_changes_no_bit(pictures, tmp_path) -> None:
    store = Store(tmp_path / "features", 10**8)
    fresh = Images(pictures, PREPROCESSING, "medium", CPU)
    kept = Images(pictures, PREPROCESSING, "medium", CPU, store)
    assert torch.equal(fresh.plain([8, 0, 4]), kept.plain([8, 0, 4]))
    assert torch.equal(fresh.views([8, 0], [1, 2]), kept.views([8, 0], [1, 2]))


def test_what_is_kept_is_not_decoded_again(pictures, tmp_path) -> None:
    store = Store(tmp_path / "features", 10**8)
    before = Images(pictures, PREPROCESSING, "light", CPU, store).plain(range(9))
    for picture in pictures:
        picture.path.unlink()
    assert torch.equal(Images(pictures, PREPROCESSING, "light", CPU, store).plain(range(9)), before)


def test_without_room_pictures_are_decoded_each_time(pictures, tmp_path) -> None:
    images = Images(pictures, PREPROCESSING, "none", CPU, Store(tmp_path / "features", 100))
    assert images.plain([0, 1]).shape == (2, 3, 32, 32)
    pictures[0].path.unlink()
    with pytest.raises(Exception, match="cannot be read"):
        images.plain([0])


def test_a_view_depends_on_its_picture_and_seed_alone(pictures) -> None:
    images = Images(pictures, PREPROCESSING, "trivial", CPU)
    together = images.views([2, 5, 7], [10, 11, 12])
    assert torch.equal(images.views([7, 5], [12, 11]), together[[2, 1]])
    assert not torch.equal(images.views([7], [13])[0], together[2])
