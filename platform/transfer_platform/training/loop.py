"""A trial, epoch after epoch, to its best one: a network on its validation images, or one a fold."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from transfer_model.network import Network
from transfer_platform.evaluation.metrics import scores
from transfer_platform.recipe.schema import TrainingConfig
from transfer_platform.training.batches import TrialData
from transfer_platform.training.trainable_state import TrainableState
from transfer_platform.training.trainer import Trainer


@dataclass(frozen=True)
class EpochResult:
    """What one epoch came to.

    Attributes:
        number: Counted from 1.
        metrics: By name: `train/loss`, `validation/accuracy`, `learning_rate`, `seconds`, ...
    """

    number: int
    metrics: dict[str, float]


@dataclass(frozen=True)
class Objective:
    """What makes one epoch better than another: a validation metric, and whether less of it is better."""

    metric: str
    minimizes: bool

    def is_better(self, one: float, other: float) -> bool:
        """Whether a value is strictly better than another."""
        return one < other if self.minimizes else one > other


@dataclass(frozen=True)
class FitResult:
    """What a trial came to.

    Attributes:
        epochs: All of them, in order.
        best: One of them.
        logits: Of the validation images at the best epoch (N, C); with folds of all training images,
            each by the network that has not seen it.
        learned: The tensors that training changed, at the best epoch, by their names in the network's state;
            empty with folds, which leave no network behind.
    """

    epochs: tuple[EpochResult, ...]
    best: EpochResult
    logits: Tensor
    weights: dict[str, Tensor] = field(default_factory=dict)


class _EpochRunner(Protocol):
    """What is trained in a trial."""

    def run(self, number: int) -> tuple[EpochResult, Tensor]:
        """Runs an epoch: what it came to, and the validation logits."""

    def weights(self) -> dict[str, Tensor]:
        """Copies of the weights as they are now."""


@dataclass(frozen=True)
class FitOptions:
    """How a trial goes.

    Attributes:
        settings: Without ranges.
        precision: `float32`, `bfloat16` or `float16`; weights stay float32 throughout.
        goal: Decides which epoch is best.
        after_epoch: Called with every finished epoch; what it raises ends the training.
    """

    settings: TrainingConfig
    precision: str
    objective: Objective
    after_epoch: Callable[[EpochResult], None]


def fit(network: Network, material: TrialData, course: FitOptions) -> FitResult:
    """Trains a network and leaves it at the weights of its best epoch.

    Args:
        network: Frozen as wished, on its device; changed in place.
        material: With validation images.
        course: How it goes.

    Raises:
        DivergedError: The loss is not a finite number any more.
    """
    contest = _SingleNetwork(network, material, course)
    fitted = _train_epochs(contest, course)
    contest.trainer.learned.restore(fitted.weights)
    return fitted


def cross_validate(network: Network, folds: Sequence[TrialData], course: FitOptions) -> FitResult:
    """Trains one network a fold, all of them an epoch further at a time; metrics are those out of fold.

    Args:
        network: As every fold starts with it; it takes their weights in turn, and is not fit for use then.
        folds: Each with its own validation images, which together are all images, each once.
        course: How it goes.

    Raises:
        DivergedError: The loss of a fold is not a finite number any more.
    """
    return _train_epochs(_FoldNetworks(network, folds, course), course)


def refit(
    network: Network, material: TrialData, settings: TrainingConfig, *, precision: str, epochs: int
) -> None:
    """Trains a network for a number of epochs, the first ones of the recipe's schedule; nothing chooses.

    Args:
        network: Frozen as wished, on its device; changed in place.
        material: Needs no validation images.
        settings: Without ranges.
        precision: As in a `FitOptions`.
        epochs: At most `settings.epochs`.

    Raises:
        DivergedError: The loss is not a finite number any more.
    """
    trainer = Trainer(network, material, settings, precision)
    for number in range(1, epochs + 1):
        trainer.after_epoch(trainer.train(number))


def _train_epochs(contest: _EpochRunner, course: FitOptions) -> FitResult:
    settings, goal = course.settings, course.objective
    epochs: list[EpochResult] = []
    best: FitResult | None = None
    for number in range(1, settings.epochs + 1):
        epoch, logits = contest.run(number)
        epochs.append(epoch)
        if best is None or goal.is_better(epoch.metrics[goal.metric], best.best.metrics[goal.metric]):
            best = FitResult((), epoch, logits, contest.weights())
        course.after_epoch(epoch)
        if settings.early_stopping and number - best.best.number >= settings.early_stopping:
            break
    assert best is not None, "a trial has at least one epoch"
    return FitResult(tuple(epochs), best.best, best.logits, best.weights)


class _SingleNetwork:
    """One network and its validation images."""

    def __init__(self, network: Network, material: TrialData, course: FitOptions) -> None:
        self.trainer = Trainer(network, material, course.settings, course.precision)
        self._targets = material.labels[list(material.validation)]

    def run(self, number: int) -> tuple[EpochResult, Tensor]:
        start, rate = time.perf_counter(), self.trainer.learning_rate
        loss = self.trainer.train(number)
        logits = self.trainer.validate()
        epoch = _epoch(number, loss, self._targets, logits, rate, start)
        self.trainer.after_epoch(epoch.metrics["validation/loss"])
        return epoch, logits

    def weights(self) -> dict[str, Tensor]:
        return self.trainer.learned.copy()


class _FoldNetworks:
    """One network a fold, which share the frozen part: each puts its own weights in place for its turn."""

    def __init__(self, network: Network, folds: Sequence[TrialData], course: FitOptions) -> None:
        self._folds, self._classes = folds, network.spec.classes
        self._learned = TrainableState(network)
        self._weights = [self._learned.copy() for _ in folds]
        self._trainers = [Trainer(network, fold, course.settings, course.precision) for fold in folds]

    def run(self, number: int) -> tuple[EpochResult, Tensor]:
        start, rate = time.perf_counter(), self._trainers[0].learning_rate
        labels = self._folds[0].labels
        losses, logits = [], torch.empty(len(labels), self._classes)
        for index, fold in enumerate(self._folds):
            self._learned.restore(self._weights[index])
            trainer = self._trainers[index]
            losses.append(trainer.train(number))
            held_out = trainer.validate()
            positions = list(fold.validation)
            trainer.after_epoch(float(functional.cross_entropy(held_out, labels[positions])))
            logits[positions] = held_out
            self._weights[index] = self._learned.copy()
        return _epoch(number, sum(losses) / len(losses), labels, logits, rate, start), logits

    def weights(self) -> dict[str, Tensor]:
        return {}


def _epoch(
    number: int, train_loss: float, targets: Tensor, logits: Tensor, rate: float, start: float
) -> EpochResult:
    probabilities = functional.softmax(logits.double(), dim=1)
    validation = scores(targets.numpy(), probabilities.numpy())
    return EpochResult(
        number,
        {
            "train/loss": train_loss,
            **{f"validation/{name}": value for name, value in validation.items()},
            "learning_rate": rate,
            "seconds": time.perf_counter() - start,
        },
    )
