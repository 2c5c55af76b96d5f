"""Fixtures: a small classifier with the bundled backbone and a random head."""

from __future__ import annotations

import importlib
import shutil
import warnings
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from transfer_model.classifier import Classifier, save
from transfer_model.model_json import ModelConfig, OodThreshold
from transfer_model.network import NetworkSpec, build_network
from transfer_model.ood import OodScorer
from transfer_model.preprocessing import Preprocessing

with warnings.catch_warnings():
    # MLflow warns of one of its own type hints while it is imported.
    warnings.filterwarnings("ignore", ".*Any type hint is inferred as AnyType", UserWarning)
    importlib.import_module("mlflow.pyfunc")


@pytest.fixture(scope="session")
def config() -> ModelConfig:
    prepare = Preprocessing(32, 0.875, "bicubic", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    return ModelConfig(
        NetworkSpec("efficientnet_lite0", 3, 0.1, 32),
        ("ant", "bee", "cat"),
        prepare,
        "float32",
        1.5,
        OodThreshold(0.25, 0.05),
    )


@pytest.fixture(scope="session")
def ood_scorer() -> OodScorer:
    """A reference of five images whose features are noise."""
    return OodScorer(torch.randn(5, 1280, generator=torch.Generator().manual_seed(0)))


@pytest.fixture(scope="session")
def classifier(config: ModelConfig, ood_scorer: OodScorer) -> Classifier:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Classifier(config, build_network(config.network), ood_scorer)


@pytest.fixture(scope="session")
def saved(config: ModelConfig, ood_scorer: OodScorer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder that the classifier was saved to; must not be changed."""
    folder = tmp_path_factory.mktemp("model")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        save(folder, config, build_network(config.network), ood_scorer)
    return folder


@pytest.fixture
def damaged(saved: Path, tmp_path: Path) -> Path:
    """Copy of `saved` for damaging."""
    return Path(shutil.copytree(saved, tmp_path / "damaged"))


@pytest.fixture(scope="session")
def images() -> list[bytes]:
    """Eleven different PNG files of noise: more than one batch of eight, and not a multiple of eight."""
    random = np.random.default_rng(0)
    return [_png(random.integers(0, 256, (40 + index, 50, 3), dtype=np.uint8)) for index in range(11)]


def _png(pixels: np.ndarray) -> bytes:
    content = BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    return content.getvalue()
