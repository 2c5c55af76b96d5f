"""What is offered to the gate: a logged model, and what it made of the test images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from transfer_registry.answers import ServedOutput
from transfer_registry.errors import RegistryError
from transfer_registry.predictions import StoredPredictions

Predict = Callable[[str, Sequence[Path]], NDArray[np.float32]]
"""A model URI and N image files -> probabilities (N, C), from a process that cannot import the project."""
Serve = Callable[[str, Sequence[Path], Sequence[str]], ServedOutput]
"""A model URI, image files and the order of classes -> what a server says over HTTP."""


@dataclass(frozen=True)
class Candidate:
    """A study's best model, logged and offered to the gate.

    Attributes:
        model: The registered model it shall become a version of.
        model_uri: Where it was logged, `models:/m-...`.
        run_id: The study's MLflow run.
        trial: The number of the trial it comes from.
        form: SHA-256 of what is served, see `packaging.form_digest`; with `run_id` and `trial` it says which
            version is this one.
        recipe_fingerprint: Of the resolved recipe.
        train_fingerprint: Of the training images.
        precision: What it is served in: float32, bfloat16 or float16.
        taught: Content hashes of all images that it has learnt or chosen from.
    """

    model: str
    model_uri: str
    run_id: str
    trial: int
    artifact_digest: str
    recipe_fingerprint: str
    train_fingerprint: str
    precision: str = "float32"
    training_sha256: tuple[str, ...] = ()


@dataclass(frozen=True)
class Evaluation:
    """What a candidate made of the test images.

    Attributes:
        metrics: By name, `test/accuracy`.
        classes: The names of the columns of `probabilities` (C).
        images: The test images (N).
        sha256: The content hash of each (N).
        labels: The true class of each, by name (N).
        probabilities: The candidate's (N, C), float32.
        fingerprint: Of the test images.
        novelty: How unlike the training images the candidate finds each (N,); None where it cannot tell.
        threshold: Novelty above which it calls an image unknown.

    Raises:
        RegistryError: The sizes do not fit together, there is no image, or a label is no class.
    """

    metrics: Mapping[str, float]
    classes: tuple[str, ...]
    images: tuple[Path, ...]
    sha256: tuple[str, ...]
    labels: tuple[str, ...]
    probabilities: NDArray[np.float32]
    fingerprint: str
    ood_scores: NDArray[np.float32] | None = None
    threshold: float = np.inf

    def __post_init__(self) -> None:
        shape = (len(self.images), len(self.classes))
        if (
            not self.images
            or self.probabilities.shape != shape
            or {len(self.sha256), len(self.labels)} != {shape[0]}
        ):
            raise RegistryError(
                f"an evaluation of {shape[0]} images and {shape[1]} classes has {len(self.labels)} labels, "
                f"{len(self.sha256)} content hashes and {self.probabilities.shape} probabilities"
            )
        if unknown := sorted(set(self.labels) - set(self.classes)):
            raise RegistryError(
                f"the test label {unknown[0]!r} is none of the classes {', '.join(self.classes)}"
            )

    @property
    def predicted(self) -> tuple[str, ...]:
        """The most probable class of each image, by name (N)."""
        return tuple(self.classes[best] for best in self.probabilities.argmax(axis=1))

    def served_output(self, indices: Sequence[int]) -> ServedOutput:
        """What the candidate said of some of the images, by their positions."""
        some = list(indices)
        if self.ood_scores is None:
            return ServedOutput(
                self.probabilities[some], np.full(len(some), np.nan, np.float32), (None,) * len(some)
            )
        unknown = tuple((self.ood_scores[some] > self.threshold).tolist())
        return ServedOutput(self.probabilities[some], self.ood_scores[some], unknown)

    def sample(self, count: int) -> tuple[int, ...]:
        """Positions of up to `count` images, equally many of each class, chosen by their content."""
        rank = sorted(range(len(self.images)), key=lambda index: self.sha256[index])
        taken: dict[str, int] = {}
        turns = []
        for index in rank:
            turn = taken.get(self.labels[index], 0)
            taken[self.labels[index]] = turn + 1
            turns.append((turn, index))
        return tuple(index for _, index in sorted(turns, key=lambda pair: pair[0])[:count])

    @property
    def stored_predictions(self) -> StoredPredictions:
        """What is kept with the version for later comparisons."""
        return StoredPredictions(self.classes, self.sha256, self.probabilities)
