"""Realistic duplicates of test images planted among the training images."""

from __future__ import annotations

import os
import random
import shutil
from io import BytesIO
from pathlib import Path

from PIL import Image

from transfer_platform.data.dataset import open_dataset
from transfer_platform.inspection.inspection import Inspection
from transfer_platform.inspection.preflight import preflight
from transfer_platform.recipe.schema import DatasetConfig, SplitsConfig

DRAWS = 20
SHARE = 0.1
STRAY = "train/ants/imageNotFound.gif"
FILTERS = (Image.Resampling.BILINEAR, Image.Resampling.BICUBIC, Image.Resampling.LANCZOS)


def inspected(folder: Path) -> Inspection:
    splits = SplitsConfig(train="train", validation=0.2, test="val")
    found, _ = preflight(open_dataset(DatasetConfig(source=str(folder), splits=splits, exclude=(STRAY,)), folder))
    return found


def reencoded(photograph: Path, draw: random.Random) -> bytes:
    """Another size, 0.35 to 1.5 times the sides, and another JPEG quality, 30 to 90."""
    image = Image.open(photograph).convert("RGB")
    scale = draw.uniform(0.35, 1.5)
    size = (round(image.width * scale), round(image.height * scale))
    content = BytesIO()
    image.resize(size, draw.choice(FILTERS)).save(content, "JPEG", quality=draw.randint(30, 90))
    return content.getvalue()


def test_duplicates_of_test_images_in_train_are_found(isolated: Path, photographs: Path) -> None:
    folder = isolated / "set"
    shutil.copytree(photographs, folder, copy_function=os.link)
    tests = sorted((folder / "val").glob("*/*.jpg"))
    found, missed = 0, 0
    for number in range(DRAWS):
        draw = random.Random(number)
        exact, near = {}, {}
        for place, original in enumerate(draw.sample(tests, round(SHARE * len(tests)))):
            copy = folder / "train" / original.parent.name / f"planted {place}.jpg"
            copy.write_bytes(original.read_bytes() if place % 2 else reencoded(original, draw))
            (exact if place % 2 else near)[copy] = original
        inspection = inspected(folder)
        for copy in exact | near:
            copy.unlink()
        copies = {frozenset(each.files) for each in inspection.by_kind("duplicate across splits")}
        assert copies == {frozenset(pair) for pair in exact.items()}
        groups = [set(each.files) for each in inspection.by_kind("near duplicate across splits")]
        hits = sum({copy, original} in groups for copy, original in near.items())
        assert len(groups) == hits, "a false alarm"
        found, missed = found + hits, missed + len(near) - hits
    assert found / (found + missed) >= 0.95


def test_the_original_dataset_has_no_findings(isolated: Path, photographs: Path) -> None:
    found = inspected(photographs)
    others = [(each.kind, found.name(each.files[0])) for each in found.findings if each.kind != "elongated"]
    assert others == [("excluded", STRAY)]


def test_the_stray_image_is_reported_unless_excluded(isolated: Path, photographs: Path) -> None:
    splits = SplitsConfig(train="train", validation=0.2, test="val")
    found, _ = preflight(open_dataset(DatasetConfig(source=str(photographs), splits=splits), photographs))
    others = [(each.kind, found.name(each.files[0])) for each in found.findings if each.kind != "elongated"]
    assert others == [("unusual format", STRAY)]
