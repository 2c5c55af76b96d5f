"""A trial, epoch after epoch, to its best one: a network on its validation pictures, or one a fold."""

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
from transfer_platform.recipe.schema import Training
from transfer_platform.training.batches import Material
from transfer_platform.training.trainable_state import Learned
from transfer_platform.training.trainer import Trainer


@dataclass(frozen=True)
class Epoch:
    """What one epoch came to.

    Attributes:
        number: Counted from 1.
        metrics: By name: `train/loss`, `validation/accuracy`, `learning_rate`, `seconds`, ...
    """

    number: int
    metrics: dict[str, float]


@dataclass(frozen=True)
class Goal:
    """What makes one epoch better than another: a validation metric, and whether less of it is better."""

    metric: str
    minimizes: bool

    def better(self, one: float, other: float) -> bool:
        """Whether a value is strictly better than another."""
        return one < other if self.minimizes else one > other


@dataclass(frozen=True)
class Fit:
    """What a trial came to.

    Attributes:
        epochs: All of them, in order.
        best: One of them.
        logits: Of the validation pictures at the best epoch (N, C); with folds of all training pictures,
            each by the network that has not seen it.
        learned: The tensors that training changed, at the best epoch, by their names in the network's state;
            empty with folds, which leave no network behind.
    """

    epochs: tuple[Epoch, ...]
    best: Epoch
    logits: Tensor
    learned: dict[str, Tensor] = field(default_factory=dict)


class _Contest(Protocol):
    """What is trained in a trial."""

    def run(self, number: int) -> tuple[Epoch, Tensor]:
        """Runs an epoch: what it came to, and the validation logits."""

    def learned(self) -> dict[str, Tensor]:
        """Copies of the weights as they are now."""


@dataclass(frozen=True)
class Course:
    """How a trial goes.

    Attributes:
        settings: Without ranges.
        precision: `float32`, `bfloat16` or `float16`; weights stay float32 throughout.
        goal: Decides which epoch is best.
        after_epoch: Called with every finished epoch; what it raises ends the training.
    """

    settings: Training
    precision: str
    goal: Goal
    after_epoch: Callable[[Epoch], None]


def fit(network: Network, material: Material, course: Course) -> Fit:
    """Trains a network and leaves it at the weights of its best epoch.

    Args:
        network: Frozen as wished, on its device; changed in place.
        material: With validation pictures.
        course: How it goes.

    Raises:
        DivergedError: The loss is not a finite number any more.
    """
    contest = _Single(network, material, course)
    fitted = _to_best(contest, course)
    contest.trainer.learned.put_back(fitted.learned)
    return fitted


def cross_validate(network: Network, folds: Sequence[Material], course: Course) -> Fit:
    """Trains one network a fold, all of them an epoch further at a time; metrics are those out of fold.

    Args:
        network: As every fold starts with it; it takes their weights in turn, and is not fit for use then.
        folds: Each with its own validation pictures, which together are all pictures, each once.
        course: How it goes.

    Raises:
        DivergedError: The loss of a fold is not a finite number any more.
    """
    return _to_best(_Folds(network, folds, course), course)


def refit(network: Network, material: Material, settings: Training, *, precision: str, epochs: int) -> None:
    """Trains a network for a number of epochs, the first ones of the recipe's schedule; nothing chooses.

    Args:
        network: Frozen as wished, on its device; changed in place.
        material: Needs no validation pictures.
        settings: Without ranges.
        precision: As in a `Course`.
        epochs: At most `settings.epochs`.

    Raises:
        DivergedError: The loss is not a finite number any more.
    """
    trainer = Trainer(network, material, settings, precision)
    for number in range(1, epochs + 1):
        trainer.after_epoch(trainer.train(number))


def _to_best(contest: _Contest, course: Course) -> Fit:
    settings, goal = course.settings, course.goal
    epochs: list[Epoch] = []
    best: Fit | None = None
    for number in range(1, settings.epochs + 1):
        epoch, logits = contest.run(number)
        epochs.append(epoch)
        if best is None or goal.better(epoch.metrics[goal.metric], best.best.metrics[goal.metric]):
            best = Fit((), epoch, logits, contest.learned())
        course.after_epoch(epoch)
        if settings.early_stopping and number - best.best.number >= settings.early_stopping:
            break
    assert best is not None, "a trial has at least one epoch"
    return Fit(tuple(epochs), best.best, best.logits, best.learned)


class _Single:
    """One network and its validation pictures."""

    def __init__(self, network: Network, material: Material, course: Course) -> None:
        self.trainer = Trainer(network, material, course.settings, course.precision)
        self._targets = material.labels[list(material.validation)]

    def run(self, number: int) -> tuple[Epoch, Tensor]:
        start, rate = time.perf_counter(), self.trainer.learning_rate
        loss = self.trainer.train(number)
        logits = self.trainer.validate()
        epoch = _epoch(number, loss, self._targets, logits, rate, start)
        self.trainer.after_epoch(epoch.metrics["validation/loss"])
        return epoch, logits

    def learned(self) -> dict[str, Tensor]:
        return self.trainer.learned.copied()


class _Folds:
    """One network a fold, which share the frozen part: each puts its own weights in place for its turn."""

    def __init__(self, network: Network, folds: Sequence[Material], course: Course) -> None:
        self._folds, self._classes = folds, network.spec.classes
        self._learned = Learned(network)
        self._weights = [self._learned.copied() for _ in folds]
        self._trainers = [Trainer(network, fold, course.settings, course.precision) for fold in folds]

    def run(self, number: int) -> tuple[Epoch, Tensor]:
        start, rate = time.perf_counter(), self._trainers[0].learning_rate
        labels = self._folds[0].labels
        losses, logits = [], torch.empty(len(labels), self._classes)
        for index, fold in enumerate(self._folds):
            self._learned.put_back(self._weights[index])
            trainer = self._trainers[index]
            losses.append(trainer.train(number))
            held_out = trainer.validate()
            positions = list(fold.validation)
            trainer.after_epoch(float(functional.cross_entropy(held_out, labels[positions])))
            logits[positions] = held_out
            self._weights[index] = self._learned.copied()
        return _epoch(number, sum(losses) / len(losses), labels, logits, rate, start), logits

    def learned(self) -> dict[str, Tensor]:
        return {}


def _epoch(
    number: int, train_loss: float, targets: Tensor, logits: Tensor, rate: float, start: float
) -> Epoch:
    probabilities = functional.softmax(logits.double(), dim=1)
    validation = scores(targets.numpy(), probabilities.numpy())
    return Epoch(
        number,
        {
            "train/loss": train_loss,
            **{f"validation/{name}": value for name, value in validation.items()},
            "learning_rate": rate,
            "seconds": time.perf_counter() - start,
        },
    )
