"""A real network through the door: packaged, served by the real server, made champion, compared."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

import mlflow
import numpy as np
import pytest
from PIL import Image

from transfer_registry.candidate import Candidate, Evaluation
from transfer_registry.ledger import Ledger
from transfer_registry.promote import promote_candidate
from transfer_registry.rules import OverChampion

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = [
    # MLflow's own: its tables on SQLAlchemy 2.1, its types while they are imported, its input examples
    pytest.mark.filterwarnings(
        "ignore:The ``noload`` loader strategy is deprecated:sqlalchemy.exc.SADeprecationWarning"
    ),
    pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType:UserWarning"),
    pytest.mark.filterwarnings("ignore:Operation with range is deprecated:pandas.errors.Pandas4Warning"),
]

CLASSES = ("ants", "bees")


def images(folder: Path, count: int) -> tuple[Path, ...]:
    """Blocks of random colors, no two alike."""
    random = np.random.default_rng(0)
    paths = tuple(folder / f"{index}.png" for index in range(count))
    for path in paths:
        blocks = random.integers(0, 256, (4, 5, 3), dtype=np.uint8)
        Image.fromarray(blocks).resize((80, 64), Image.Resampling.NEAREST).save(path)
    return paths


def evaluation(folder: Path, images: tuple[Path, ...]) -> Evaluation:
    """A small network with random weights, saved to `folder` and evaluated from there as it is served."""
    import torch

    from transfer_model.classifier import Classifier, save
    from transfer_model.model_json import ModelConfig, OodThreshold
    from transfer_model.network import NetworkSpec, build_network
    from transfer_model.ood import OodScorer
    from transfer_model.preprocessing import Preprocessing

    torch.manual_seed(1)
    spec = NetworkSpec(backbone="efficientnet_lite0", classes=2, dropout=0.0, image_size=64)
    half = (0.5, 0.5, 0.5)
    prepare = Preprocessing(64, 1.0, "bicubic", half, half)
    description = ModelConfig(spec, CLASSES, prepare, "float32", 1.5, OodThreshold(0.25, 0.05))
    save(folder, description, build_network(spec), OodScorer(torch.randn(5, 1280)))
    answers = Classifier.load(folder).predict(images)
    probabilities = answers.probabilities
    return Evaluation(
        metrics={"test/accuracy": 1.0},
        classes=CLASSES,
        images=images,
        sha256=tuple(hashlib.sha256(path.read_bytes()).hexdigest() for path in images),
        labels=tuple(CLASSES[best] for best in probabilities.argmax(axis=1)),
        probabilities=probabilities,
        fingerprint="blocks",
        ood_scores=answers.ood_scores,
        threshold=description.unknown.threshold,
    )


def older_code(folder: Path) -> Path:
    """A `transfer_model` that gives each class the probability that today's gives the other."""
    import transfer_model

    package = folder / "older" / "transfer_model"
    shutil.copytree(transfer_model.__path__[0], package, ignore=shutil.ignore_patterns("__pycache__"))
    classifier = package / "classifier.py"
    today = classifier.read_text()
    classifier.write_text(today.replace(".softmax(dim=1)", ".softmax(dim=1).flip(1)"))
    assert classifier.read_text() != today
    return package


def test_champion_and_candidate_are_compared_each_by_its_own_code(new_registry: Callable[[str], Path]) -> None:
    from transfer_registry.packaging import log_model

    folder = new_registry("classifier")
    paths = images(folder, 12)
    (folder / "model").mkdir()
    today = evaluation(folder / "model", paths)
    flipped = today.probabilities[:, ::-1].copy()
    labels = tuple(CLASSES[best] for best in flipped.argmax(axis=1))
    older = replace(today, probabilities=flipped, labels=labels)
    with mlflow.start_run() as run:
        first = log_model(folder / "model", "ants-bees", run.info.run_id, package=older_code(folder))
        second = log_model(folder / "model", "ants-bees", run.info.run_id)
    candidate = Candidate("ants-bees", first.model_uri, run.info.run_id, 0, "digest", "recipe", "train")
    rules = {"over_champion": OverChampion()}
    with Ledger.open(f"sqlite:///{folder / 'ledger.db'}") as ledger:
        promotion = promote_candidate(candidate, older, rules, ledger)
        assert promotion.promoted, str(promotion.verdict)
        parity = promotion.verdict.results[0]
        assert isinstance(parity.figures["difference"], float)
        assert parity.figures["difference"] <= 1e-4

        # the same weights, today's code, and a test set that the champion has to be asked about once more
        fewer = replace(
            today,
            images=paths[:6],
            sha256=today.sha256[:6],
            labels=labels[:6],
            probabilities=today.probabilities[:6],
            fingerprint="fewer blocks",
        )
        candidate = replace(candidate, model_uri=second.model_uri, trial=1)
        refused = promote_candidate(candidate, fewer, rules, ledger)
    assert refused.previous_champion == 1
    parity, over_champion = refused.verdict.results
    assert parity.passed
    assert not over_champion.passed
    assert (over_champion.figures["champion_accuracy"], over_champion.figures["accuracy"]) == (1.0, 0.0)
