"""Training loop of a trial, with a validation split or cross-validation."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.nn import functional

from transfer_model.network import Network
from transfer_platform.evaluation.calibration import fit_temperature
from transfer_platform.evaluation.metrics import scores
from transfer_platform.recipe.schema import Recipe, TrainingConfig
from transfer_platform.training.batches import TrialData
from transfer_platform.training.trainable_state import TrainableState
from transfer_platform.training.trainer import Trainer


@dataclass(frozen=True)
class EpochResult:
    """Number of an epoch, starting at 1, and its metrics, such as `train/loss`, `validation/accuracy` and `seconds`.

    If a network is not trained, epoch 0 contains its evaluation, without `train/loss`.
    """

    number: int
    metrics: dict[str, float]


@dataclass(frozen=True)
class Objective:
    """The validation metric used to rank epochs and trials, and whether lower values are better."""

    metric: str
    minimizes: bool

    def is_better(self, value: float, other: float) -> bool:
        """Returns True if `value` is strictly better than `other`."""
        return value < other if self.minimizes else value > other


def objective(recipe: Recipe) -> Objective:
    """Returns the metric used to rank epochs and trials; defaults to validation loss if the recipe has no search."""
    if recipe.search is None:
        return Objective("validation/loss", True)
    return Objective(recipe.search.metric, recipe.search.minimizes)


@dataclass(frozen=True)
class FitResult:
    """Result of a trial.

    Attributes:
        logits: Validation logits (N, C) from the best epoch; with cross-validation, out-of-fold logits of all training
            images.
        weights: Trained tensors from the best epoch, keyed by name as in the state dict; empty with cross-validation.
        fold_weights: In a trial with phases and folds, the trained tensors of each fold from the best epoch; otherwise
            empty.
        phases: The best epoch of each phase, from the first phase to that of `best`.
    """

    epochs: tuple[EpochResult, ...]
    best: EpochResult
    logits: Tensor
    weights: dict[str, Tensor] = field(default_factory=dict)
    fold_weights: tuple[dict[str, Tensor], ...] = ()
    phases: tuple[EpochResult, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "phases", self.phases or (self.best,))


@dataclass(frozen=True)
class FitOptions:
    """Options for `fit` and `cross_validate`.

    Attributes:
        config: Training configuration without search ranges.
        precision: `float32`, `bfloat16` or `float16`; weights stay in float32.
        after_epoch: Called after every epoch; any exception it raises ends training and is propagated to the caller.
        calibrated: Whether validation metrics are computed after temperature scaling, as for solved heads; True for
            trials of several phases.
    """

    config: TrainingConfig
    precision: str
    objective: Objective
    after_epoch: Callable[[EpochResult], None]
    calibrated: bool = False


def fit(network: Network, data: TrialData, options: FitOptions) -> FitResult:
    """Trains a network in place and restores the weights of its best epoch.

    Raises:
        DivergedError: The loss is not finite.
    """
    trainer = Trainer(network, data, options.config, options.precision)
    targets = data.labels[list(data.validation)]

    def run_epoch(number: int) -> tuple[EpochResult, Tensor]:
        start, rate = time.perf_counter(), trainer.learning_rate
        loss = trainer.train(number) if number else None
        logits = trainer.validate()
        epoch = _epoch_result(number, loss, targets, _scaled(logits, targets, options), rate, start)
        unscaled = float(functional.cross_entropy(logits, targets))
        trainer.after_epoch(unscaled if options.calibrated else epoch.metrics["validation/loss"])
        return epoch, logits

    weights: dict[str, Tensor] = {}

    def keep_weights() -> None:
        nonlocal weights
        weights = trainer.trainable.copy()

    result = _train_epochs(run_epoch, keep_weights, options)
    trainer.trainable.restore(weights)
    return replace(result, weights=weights)


def cross_validate(
    network: Network, folds: Sequence[TrialData], options: FitOptions, starts: Sequence[Mapping[str, Tensor]] = ()
) -> FitResult:
    """Trains one network per fold and computes metrics from out-of-fold logits.

    Every image is in the validation set of exactly one fold. Each epoch is completed for all folds before the next
    epoch starts. Each fold starts from the weights of `network`, and from the tensors in its item of `starts`, which
    replace some of them. The weights of `network` are overwritten and not restored.

    Raises:
        DivergedError: The loss of a fold is not finite.
    """
    trainable = TrainableState(network)
    weights = [{**trainable.copy(), **start} for start in starts or [{}] * len(folds)]
    best_weights: tuple[dict[str, Tensor], ...] = ()
    trainers = [Trainer(network, fold, options.config, options.precision) for fold in folds]
    labels = folds[0].labels

    def run_epoch(number: int) -> tuple[EpochResult, Tensor]:
        start, rate = time.perf_counter(), trainers[0].learning_rate
        losses, logits = [], torch.empty(len(labels), network.spec.classes)
        for index, (fold, trainer) in enumerate(zip(folds, trainers, strict=True)):
            trainable.restore(weights[index])
            losses += [trainer.train(number)] if number else []
            fold_logits = trainer.validate()
            positions = list(fold.validation)
            trainer.after_epoch(float(functional.cross_entropy(fold_logits, labels[positions])))
            logits[positions] = fold_logits
            weights[index] = trainable.copy()
        loss = sum(losses) / len(losses) if losses else None
        return _epoch_result(number, loss, labels, _scaled(logits, labels, options), rate, start), logits

    def keep_weights() -> None:
        nonlocal best_weights
        if options.calibrated:  # a phase may follow; otherwise, they would only use memory
            best_weights = tuple(weights)

    return replace(_train_epochs(run_epoch, keep_weights, options), fold_weights=best_weights)


def refit(network: Network, data: TrialData, config: TrainingConfig, *, precision: str, epochs: int) -> None:
    """Trains a network in place for a fixed number of epochs without validation.

    The learning rate follows the schedule for `config.epochs` epochs, even if `epochs` is smaller.

    Raises:
        DivergedError: The loss is not finite.
    """
    trainer = Trainer(network, data, config, precision)
    for number in range(1, epochs + 1):
        trainer.after_epoch(trainer.train(number))


def _train_epochs(
    run_epoch: Callable[[int], tuple[EpochResult, Tensor]], keep_weights: Callable[[], None], options: FitOptions
) -> FitResult:
    """Runs all epochs, or stops early; calls `keep_weights` after each epoch that is the best so far.

    Returns:
        The metrics of all epochs, and the logits of the best epoch.
    """
    config, objective = options.config, options.objective
    epochs: list[EpochResult] = []
    best: FitResult | None = None
    for number in range(1, config.epochs + 1) or (0,):
        epoch, logits = run_epoch(number)
        epochs.append(epoch)
        value = epoch.metrics[objective.metric]
        if best is None or objective.is_better(value, best.best.metrics[objective.metric]):
            best = FitResult((), epoch, logits)
            keep_weights()
        options.after_epoch(epoch)
        if config.early_stopping and number - best.best.number >= config.early_stopping:
            break
    assert best is not None, "a trial must have at least one epoch"
    return FitResult(tuple(epochs), best.best, best.logits)


def _scaled(logits: Tensor, targets: Tensor, options: FitOptions) -> Tensor:
    return logits / fit_temperature(logits.numpy(), targets.numpy()) if options.calibrated else logits


def _epoch_result(
    number: int, loss: float | None, targets: Tensor, logits: Tensor, rate: float, start: float
) -> EpochResult:
    probabilities = functional.softmax(logits.double(), dim=1)
    validation = scores(targets.numpy(), probabilities.numpy())
    metrics = {f"validation/{name}": value for name, value in validation.items()}
    seconds = time.perf_counter() - start
    training = {} if loss is None else {"train/loss": loss}
    return EpochResult(number, {**training, **metrics, "learning_rate": rate, "seconds": seconds})
