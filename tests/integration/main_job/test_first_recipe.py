"""`platform init` on the real photographs, as they are published: what it writes is checked, and run."""

from __future__ import annotations

import re

import numpy as np
import pytest
from PIL import Image

QUICK = ("-o", "search.trials=2", "-o", "dataset.image_size=96", "-o", "promotion=null")


def test_a_first_recipe_runs_as_it_was_written(photographs, workplaces) -> None:
    place = workplaces("first")
    out, _ = place.run("platform", "init", str(photographs))
    assert "wrote hymenoptera_data.yaml" in out
    assert "dataset.splits.test: using val (the only held-out folder" in out
    text = (place.folder / "hymenoptera_data.yaml").read_text()
    assert re.search(r"^    test: val +# the only held-out folder", text, re.MULTILINE)
    out, err = place.run("platform", "run", "hymenoptera_data.yaml", *QUICK)
    assert "images: 245 train, 153 test" in err
    assert float(re.search(r"test/accuracy\W+(0\.\d+)", out)[1]) > 0.7


def test_what_a_recipe_leaves_out_is_recognised_said_and_logged(photographs, workplaces) -> None:
    place = workplaces("omitted")
    (place.folder / "short.yaml").write_text(
        f"name: short\ndataset: {{source: {photographs}, image_size: 32}}\n"
        "backbone: {name: efficientnet_lite0}\ntraining: {epochs: 1}\n"
    )
    _, err = place.run("platform", "run", "short.yaml")
    assert "dataset.splits.test: using val" in err
    [report] = place.folder.glob("mlruns/**/data/report.md")
    assert "dataset.splits.test: using val" in report.read_text()
    logged = next(place.folder.glob("mlruns/**/recipe.yaml")).read_text()
    assert re.search(r"train: train\s+validation: 0\.2\s+test: val", logged)


@pytest.mark.parametrize(("sizes", "validation"), [((12, 12, 2, 1), "0.2"), ((12, 12, 4, 3), "{folds: 5}")])
def test_classes_of_few_images_run_to_the_end(sizes, validation, workplaces) -> None:
    """A class of two images has none for validation; a class of one image is excluded."""
    place = workplaces(f"few{sizes[2]}")
    generator = np.random.default_rng(0)
    for label, size in zip("abcd", sizes, strict=True):
        (place.folder / "shapes" / label).mkdir(parents=True)
        for number in range(size):
            image = Image.fromarray(generator.integers(0, 256, (8, 8, 3)).astype(np.uint8)).resize((64, 64))
            image.save(place.folder / "shapes" / label / f"{number}.png")
    out, _ = place.run("platform", "init", "shapes")
    assert ("d (only one distinct image" in out) == (sizes[3] == 1)
    text = (place.folder / "shapes.yaml").read_text()
    assert f"    validation: {validation}  " in text
    quick = ("-o", "search.trials=1", "-o", "training.epochs=1", "-o", "dataset.image_size=32")
    out, _ = place.run("platform", "run", "shapes.yaml", *quick)
    assert "shapes version 1 is registered" in out
    [thresholds] = place.folder.glob("mlruns/**/thresholds.md")
    assert ("| c | - |" in thresholds.read_text()) == (sizes[2] == 2)
