from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from transfer_registry.candidate import Evaluation


def evaluation(labels: tuple[str, ...]) -> Evaluation:
    classes = tuple(sorted(set(labels)))
    return Evaluation(
        metrics={},
        classes=classes,
        images=tuple(Path(f"{index}.png") for index in range(len(labels))),
        sha256=tuple(hashlib.sha256(str(index).encode()).hexdigest() for index in range(len(labels))),
        labels=labels,
        probabilities=np.full((len(labels), len(classes)), 1 / len(classes), dtype=np.float32),
        fingerprint="sampled",
    )


def test_every_class_has_the_same_share_of_a_sample() -> None:
    many = evaluation(("ants",) * 100 + ("bees",) * 20 + ("cats",) * 3)
    sample = many.sample(15)
    assert len(set(sample)) == 15
    labels = [many.labels[index] for index in sample]
    assert [labels.count(name) for name in many.classes] == [6, 6, 3]


def test_a_sample_of_few_images_is_all_of_them() -> None:
    assert sorted(evaluation(("ants", "bees") * 3).sample(32)) == list(range(6))
