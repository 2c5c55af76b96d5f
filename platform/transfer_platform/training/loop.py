"""Training loop of a trial, with a validation split or with cross-validation."""

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
    """Metrics of one epoch.

    Attributes:
        number: Counted from 1.
        metrics: Values by name: `train/loss`, `validation/accuracy`, `learning_rate`, `seconds`, ...
    """

    number: int
    metrics: dict[str, float]


@dataclass(frozen=True)
class Objective:
    """The validation metric that ranks epochs and trials.

    Attributes:
        metric: Name of the metric.
        minimizes: True if lower values are better.
    """

    metric: str
    minimizes: bool

    def is_better(self, value: float, other: float) -> bool:
        """Returns True if a value is strictly better than another."""
        return value < other if self.minimizes else value > other


@dataclass(frozen=True)
class FitResult:
    """Result of a trial.

    Attributes:
        epochs: All epochs in order.
        best: The best epoch.
        logits: Logits of the validation images at the best epoch (N, C); with cross-validation, out-of-fold
            logits of all training images.
        weights: Trained tensors at the best epoch by their names in the network's state dict; empty with
            cross-validation.
    """

    epochs: tuple[EpochResult, ...]
    best: EpochResult
    logits: Tensor
    weights: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class FitOptions:
    """Options of `fit` and `cross_validate`.

    Attributes:
        config: Without search ranges.
        precision: `float32`, `bfloat16` or `float16`; weights stay float32.
        objective: Ranks the epochs.
        after_epoch: Called after every epoch; an exception that it raises ends the training.
    """

    config: TrainingConfig
    precision: str
    objective: Objective
    after_epoch: Callable[[EpochResult], None]


def fit(network: Network, data: TrialData, options: FitOptions) -> FitResult:
    """Trains a network and restores the weights of its best epoch.

    Args:
        network: Frozen as configured, on its device; changed in place.
        data: With validation images.
        options: Configuration, precision and callbacks.

    Raises:
        DivergedError: The loss is not finite.
    """
    run = _SingleRun(network, data, options)
    result = _train_epochs(run, options)
    run.trainer.trainable.restore(result.weights)
    return result


def cross_validate(network: Network, folds: Sequence[TrialData], options: FitOptions) -> FitResult:
    """Trains one network per fold, all folds one epoch at a time; metrics are out-of-fold.

    Args:
        network: Initial state of every fold. Its weights are overwritten and not usable afterwards.
        folds: Their validation sets are a partition of all images.
        options: Configuration, precision and callbacks.

    Raises:
        DivergedError: The loss of a fold is not finite.
    """
    return _train_epochs(_CrossValidationRun(network, folds, options), options)


def refit(network: Network, data: TrialData, config: TrainingConfig, *, precision: str, epochs: int) -> None:
    """Trains a network for a fixed number of epochs without validation.

    Args:
        network: Frozen as configured, on its device; changed in place.
        data: Validation images are not used.
        config: Without search ranges. The learning rate follows the schedule of `config.epochs`.
        precision: As in `FitOptions`.
        epochs: At most `config.epochs`.

    Raises:
        DivergedError: The loss is not finite.
    """
    trainer = Trainer(network, data, config, precision)
    for number in range(1, epochs + 1):
        trainer.after_epoch(trainer.train(number))


class _Run(Protocol):
    """Training state of a trial."""

    def run_epoch(self, number: int) -> tuple[EpochResult, Tensor]:
        """Trains for one epoch and returns its metrics and the validation logits."""

    def weights(self) -> dict[str, Tensor]:
        """Returns copies of the current weights."""


def _train_epochs(run: _Run, options: FitOptions) -> FitResult:
    config, objective = options.config, options.objective
    epochs: list[EpochResult] = []
    best: FitResult | None = None
    for number in range(1, config.epochs + 1):
        epoch, logits = run.run_epoch(number)
        epochs.append(epoch)
        value = epoch.metrics[objective.metric]
        if best is None or objective.is_better(value, best.best.metrics[objective.metric]):
            best = FitResult((), epoch, logits, run.weights())
        options.after_epoch(epoch)
        if config.early_stopping and number - best.best.number >= config.early_stopping:
            break
    assert best is not None, "a trial has at least one epoch"
    return FitResult(tuple(epochs), best.best, best.logits, best.weights)


class _SingleRun:
    """One network with a validation split."""

    def __init__(self, network: Network, data: TrialData, options: FitOptions) -> None:
        self.trainer = Trainer(network, data, options.config, options.precision)
        self._targets = data.labels[list(data.validation)]

    def run_epoch(self, number: int) -> tuple[EpochResult, Tensor]:
        start, rate = time.perf_counter(), self.trainer.learning_rate
        loss = self.trainer.train(number)
        logits = self.trainer.validate()
        epoch = _epoch_result(number, loss, self._targets, logits, rate, start)
        self.trainer.after_epoch(epoch.metrics["validation/loss"])
        return epoch, logits

    def weights(self) -> dict[str, Tensor]:
        return self.trainer.trainable.copy()


class _CrossValidationRun:
    """One set of trainable weights per fold, swapped into a shared network for each fold's turn."""

    def __init__(self, network: Network, folds: Sequence[TrialData], options: FitOptions) -> None:
        self._folds, self._classes = folds, network.spec.classes
        self._trainable = TrainableState(network)
        self._weights = [self._trainable.copy() for _ in folds]
        self._trainers = [Trainer(network, fold, options.config, options.precision) for fold in folds]

    def run_epoch(self, number: int) -> tuple[EpochResult, Tensor]:
        start, rate = time.perf_counter(), self._trainers[0].learning_rate
        labels = self._folds[0].labels
        losses, logits = [], torch.empty(len(labels), self._classes)
        for index, fold in enumerate(self._folds):
            self._trainable.restore(self._weights[index])
            trainer = self._trainers[index]
            losses.append(trainer.train(number))
            fold_logits = trainer.validate()
            positions = list(fold.validation)
            trainer.after_epoch(float(functional.cross_entropy(fold_logits, labels[positions])))
            logits[positions] = fold_logits
            self._weights[index] = self._trainable.copy()
        return _epoch_result(number, sum(losses) / len(losses), labels, logits, rate, start), logits

    def weights(self) -> dict[str, Tensor]:
        return {}


def _epoch_result(
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
