"""A real network through the door: packaged, served by the real server, made champion, compared."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING

import mlflow
import numpy as np
import pytest
from PIL import Image

from transfer_registry.candidate import Candidate, Evaluation
from transfer_registry.ledger import Ledger
from transfer_registry.promotion import promote_candidate
from transfer_registry.rules import read_rules

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


def pictures(folder: Path, count: int) -> tuple[Path, ...]:
    """Blocks of random colours, no two alike."""
    random = np.random.default_rng(0)
    paths = tuple(folder / f"{index}.png" for index in range(count))
    for path in paths:
        blocks = random.integers(0, 256, (4, 5, 3), dtype=np.uint8)
        Image.fromarray(blocks).resize((80, 64), Image.Resampling.NEAREST).save(path)
    return paths


def evaluation(folder: Path, images: tuple[Path, ...]) -> Evaluation:
    """A small network with random weights, saved to `folder` and evaluated from there as it is served."""
    import torch

    from transfer_model.classifier import Classifier
    from transfer_model.description import ModelDescription, Unknown
    from transfer_model.network import NetworkSpec, build
    from transfer_model.novelty import Novelty
    from transfer_model.preprocessing import Preprocessing

    torch.manual_seed(1)
    spec = NetworkSpec(backbone="efficientnet_lite0", classes=2, dropout=0.0, image_size=64)
    half = (0.5, 0.5, 0.5)
    prepare = Preprocessing(64, 1.0, "bicubic", half, half)
    description = ModelDescription(spec, CLASSES, prepare, "float32", 1.5, Unknown(0.25, 0.05))
    Classifier(description, build(spec), Novelty(torch.randn(5, 1280))).save(folder)
    probabilities = Classifier.load(folder).probabilities(images)
    return Evaluation(
        metrics={"test/accuracy": 1.0},
        classes=CLASSES,
        images=images,
        sha256=tuple(hashlib.sha256(path.read_bytes()).hexdigest() for path in images),
        labels=tuple(CLASSES[best] for best in probabilities.argmax(axis=1)),
        probabilities=probabilities,
        fingerprint="blocks",
    )


def test_a_stranger_reproduces_the_candidate_and_the_next_is_compared_with_it(
    new_registry: Callable[[str], Path],
) -> None:
    from transfer_registry.packaging import log_model

    folder = new_registry("classifier")
    images = pictures(folder, 12)
    (folder / "model").mkdir()
    first = evaluation(folder / "model", images)
    with mlflow.start_run() as run:
        logged = log_model(folder / "model", "ants-bees", run.info.run_id)
    candidate = Candidate("ants-bees", logged.model_uri, run.info.run_id, 0, 0.05, "recipe", "train")
    rules = read_rules({"test/accuracy": {"at_least": 0.9}, "over_champion": {}})
    with Ledger.open(f"sqlite:///{folder / 'ledger.db'}") as ledger:
        promotion = promote_candidate(candidate, first, rules, ledger)
        assert promotion.promoted, str(promotion.verdict)
        parity = promotion.verdict.findings[0]
        assert isinstance(parity.figures["difference"], float)
        assert parity.figures["difference"] <= 1e-4

        # the same network again, said to have answered otherwise than it does, on a test set that has changed
        drifted = replace(
            first,
            images=images[:6],
            sha256=first.sha256[:6],
            labels=first.labels[:6],
            probabilities=first.probabilities[:6, ::-1].copy(),
            fingerprint="fewer blocks",
        )
        refused = promote_candidate(replace(candidate, trial=1), drifted, rules, ledger)
    assert not refused.promoted
    assert refused.champion_before == 1
    assert not refused.verdict.findings[0].passed
    assert refused.verdict.findings[-1].figures["champion_accuracy"] == 1.0
