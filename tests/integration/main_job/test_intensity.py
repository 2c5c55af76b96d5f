"""12-bit radiographs, from a folder to the registered version and its export."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

RECIPE = """
name: xrays
dataset:
  source: xrays
  splits: {train: train, validation: 0.25, test: test}
  image_size: 64
backbone: {name: efficientnet_lite0}
training: {epochs: 8, precision: float32, learning_rate: 0.01}
promotion: {model: xrays}
"""


def write_radiographs(folder: Path) -> None:
    """Stripes and rings with values up to 4,095, in 16-bit PNG files."""
    rows, columns = np.mgrid[0:64, 0:64]
    shapes = {"stripes": columns, "rings": np.hypot(rows - 32, columns - 32)}
    for split, count in (("train", 24), ("test", 10)):
        for label, distance in shapes.items():
            (folder / split / label).mkdir(parents=True)
            for number in range(count):
                phase = number + 100 * (split == "test")
                wave = np.sin(distance / (3 + phase % 5) + phase)
                noise = np.random.default_rng(phase).normal(0, 100, wave.shape)
                values = np.clip(2047 + 1900 * wave + noise, 0, 4095).astype(np.uint16)
                Image.fromarray(values).save(folder / split / label / f"{number}.png")


def test_the_version_and_its_export_use_the_range_of_the_training_images(workplaces) -> None:
    place = workplaces("intensity")
    write_radiographs(place.folder / "xrays")
    (place.folder / "xrays.yaml").write_text(RECIPE)
    place.run("platform", "run", "xrays.yaml")
    place.run("platform", "predict", "xrays/test", "--model", "xrays", "--out", "served.csv")
    place.run("platform", "export", "xrays", "--to", "onnx", "--out", "exported")
    exported = json.loads((place.folder / "exported" / "model.json").read_text())
    assert exported["preprocessing"]["intensity"] == {"low": 0.0, "high": 4095.0}
    with (place.folder / "served.csv").open() as file:
        served = {row["file"]: row for row in csv.DictReader(file)}
    assert np.mean([row["label"] == name.partition("/")[0] for name, row in served.items()]) > 0.9
    images = [place.folder / "xrays" / "test" / name for name in served]
    out, _ = place.run("python", "exported/classify.py", *images)
    for line, row in zip(out.splitlines(), served.values(), strict=True):
        answer = json.loads(line)
        assert answer["label"] == row["label"]
        assert answer["probabilities"][row["label"]] == pytest.approx(float(row["probability"]), abs=1e-4)
