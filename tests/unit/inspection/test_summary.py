"""The line that summarizes an inspection."""

from __future__ import annotations

from pathlib import Path

import pytest

from transfer_platform.inspection.inspection import Inspection
from transfer_platform.inspection.report import summary
from transfer_platform.inspection.summary import grayscale_count


@pytest.mark.parametrize("mode", ["1", "L", "LA", "La", "L;16", "I", "I;16", "I;16B", "F"])
def test_modes_with_one_channel_are_grayscale(mode: str) -> None:
    assert grayscale_count({"format": ["PNG", "PNG"], "mode": [mode, "RGB"], "train": [3, 5], "test": [2, 1]}) == 5


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "RGBa", "P", "PA", "CMYK", "YCbCr", "RGB;16"])
def test_modes_with_colors_are_not_grayscale(mode: str) -> None:
    assert grayscale_count({"format": ["PNG"], "mode": [mode], "train": [3]}) == 0


def test_the_plan_says_that_grayscale_images_get_three_channels() -> None:
    formats: dict[str, list[object]] = {"format": ["PNG"], "mode": ["L"], "train": [7], "test": [2]}
    counts = {"train": {"o": 4, "ki": 3}, "test": {"o": 2}}
    inspection = Inspection(Path(), ("ki", "o"), counts, (), {}, formats, {})
    assert summary(inspection).endswith("; 9 grayscale images converted to three equal channels")
