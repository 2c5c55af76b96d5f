"""Shipped recipes of published systems, run to their end on fewer images."""

from __future__ import annotations

import json
import re
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from mlflow import MlflowClient
from PIL import Image
from published_weights import publish
from safetensors.torch import load_file

import transfer_platform

from .conftest import REPOSITORY, Workplace, workplace

PER_CLASS = {"train": 200, "test": 50}
ABLATION = (REPOSITORY / "recipes" / "ants_bees_ablation.yaml", "-o", "variants.scratch.training.epochs=1")


@pytest.fixture(scope="module")
def few_cifar10_images(test_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """2,000 training and 500 test images of CIFAR-10, in train/ and test/."""
    archive = test_data / "cifar10_images.zip"
    if not archive.is_file():
        pytest.skip(f"the CIFAR-10 images are missing: {archive} (set PLATFORM_TEST_DATA)")
    folder = tmp_path_factory.mktemp("cifar10")
    with zipfile.ZipFile(archive) as images:
        for name in images.namelist():
            _, split, _, file = name.split("/")
            if int(Path(file).stem) < PER_CLASS[split]:
                images.extract(name, folder)
    return folder / "cifar10"


def test_alexnet_learns_from_2000_images_of_cifar10(workplaces, few_cifar10_images: Path) -> None:
    recipe = REPOSITORY / "recipes" / "cifar10_alexnet.yaml"
    # Steps as short as possible: 2,000 images in batches of 64 are too few for 6 epochs.
    changes = (f"dataset.source={few_cifar10_images}", "training.epochs=6", "training.batch_size=16")
    options = [word for change in (*changes, "training.learning_rate=5e-4") for word in ("-o", change)]
    out, err = workplaces("alexnet").run("platform", "run", recipe, *options)
    assert "1900 train, 100 validation, 500 test; classes: 10" in err
    accuracy = float(re.search(r"test/accuracy (0\.\d+)", out)[1])
    assert accuracy >= 0.22  # 0.10 by chance


def test_vgg16_learns_from_weights_of_the_published_format(
    isolated: Path, monkeypatch: pytest.MonkeyPatch, photographs: Path
) -> None:
    """A mirror serves random weights in torchvision's format, under a name with their own checksum."""
    random, sha256 = publish("vgg16", isolated, monkeypatch)
    for split, source, count in (("train", "train", 10), ("validation", "val", 4)):
        for label in ("ants", "bees"):
            (isolated / "photos" / split / label).mkdir(parents=True)
            for photo in sorted((photographs / source / label).glob("*.jpg"))[:count]:
                shutil.copy(photo, isolated / "photos" / split / label)
    overrides = [f"dataset.source={isolated / 'photos'}", "training.precision=float32"]
    outcome = transfer_platform.run(REPOSITORY / "recipes" / "cats_dogs_vgg16.yaml", overrides=overrides)
    assert [trial.state for trial in outcome.study.trials] == ["COMPLETE"]
    outcome.study.close()
    client = MlflowClient()
    parameters = client.get_run(outcome.run_id).data.params
    assert parameters["weights.vgg16"] == f"IMAGENET1K_V1 sha256:{sha256}"
    layers = Path(client.download_artifacts(outcome.run_id, "network.txt")).read_text()
    assert re.search(r"Linear: \S+ +\[1, 2\] +8,194 +True", layers)
    assert "Trainable params: 8,194" in layers
    with Image.open(client.download_artifacts(outcome.run_id, "data/first_batch.png")) as figure:
        assert len(np.unique(np.asarray(figure).reshape(-1, 4), axis=0)) > 1000  # photographs, not empty axes
    saved = load_file(outcome.model_folder / "weights.safetensors")
    assert torch.equal(saved["backbone.classifier.3.weight"], random.state_dict()["classifier.3.weight"])
    assert saved["backbone.classifier.6.classifier.weight"].shape == (2, 4096)


@pytest.fixture(scope="module")
def ablation(photograph_mirror: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Workplace, str]:
    """The folder after the ablation, with one epoch from scratch, and what that printed."""
    place = workplace(tmp_path_factory.mktemp("ablation") / "work", photograph_mirror)
    return place, place.run("platform", "run", *ABLATION)[0]


def test_the_ablation_compares_its_variants_in_one_table(ablation) -> None:
    _, out = ablation
    accuracies = {name: float(value) for name, value in re.findall(r"^(\S+) +(0\.\d+)", out, re.MULTILINE)}
    assert list(accuracies) == ["as-is", "fine-tuned", "new-head", "scratch"]
    assert accuracies["as-is"] >= 0.95
    assert accuracies["fine-tuned"] >= 0.96
    assert accuracies["new-head"] >= 0.92
    assert accuracies["scratch"] < 0.8


def test_the_ablation_has_one_run_with_the_table_above_the_studies(ablation) -> None:
    place, _ = ablation
    client = MlflowClient(tracking_uri=f"sqlite:///{place.folder}/mlflow.db")
    runs = client.search_runs([client.get_experiment_by_name("ants-bees-ablation").experiment_id])
    parents = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    assert [run.info.run_name for run in parents] == ["ants-bees-ablation"]
    table = json.loads(Path(client.download_artifacts(parents[0].info.run_id, "variants.json")).read_text())
    studies = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parents[0].info.run_id]
    assert {row[-1] for row in table["data"]} == {run.info.run_id for run in studies}
    assert len(studies) == 4


def test_the_ablation_is_not_repeated(ablation) -> None:
    place, first = ablation
    again, err = place.run("platform", "run", *ABLATION)
    assert again == first
    assert err.count("all trials have finished") == 4
