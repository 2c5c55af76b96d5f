"""Training and validation epochs of one network."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from transfer_model.network import Network
from transfer_platform.errors import DivergedError
from transfer_platform.recipe.schema import TrainingConfig
from transfer_platform.training.batches import TrialData
from transfer_platform.training.class_weights import balanced_weights
from transfer_platform.training.failures import trial_failures
from transfer_platform.training.optim import LearningRateSchedule, make_optimizer
from transfer_platform.training.precision import autocast
from transfer_platform.training.trainable_state import TrainableState

AUXILIARY_WEIGHT = 0.4
"""Loss weight of auxiliary classifiers, as used for Inception v3; GoogLeNet was originally trained with 0.3."""
CHECK_EVERY = 50
"""Number of steps between checks for non-finite losses; each check synchronizes with the device."""


class Trainer:
    """Trains one network in place; weights stay in float32 even if autocast uses a lower precision.

    The configuration must not contain search ranges or `class_weights: auto`.
    """

    def __init__(self, network: Network, data: TrialData, config: TrainingConfig, precision: str) -> None:
        self._data, self._precision = data, precision
        self.trainable = TrainableState(network)
        self._device = next(network.parameters()).device
        with trial_failures(config.optimizer):
            self._optimizer = make_optimizer(network, config)
        self._schedule = LearningRateSchedule(self._optimizer, config, data.steps_per_epoch)
        balanced = config.class_weights == "balanced"
        weights = balanced_weights(data.labels[list(data.train)], network.spec.classes) if balanced else None
        self._loss = nn.CrossEntropyLoss(weight=weights, label_smoothing=config.label_smoothing).to(self._device)
        self._scaler = torch.amp.GradScaler(self._device.type, enabled=precision == "float16")
        self._steps = 0

    @property
    def learning_rate(self) -> float:
        """Learning rate of the head for the next step."""
        return float(self._optimizer.param_groups[0]["lr"])

    def train(self, epoch: int) -> float:
        """Trains for one epoch and returns the mean training loss in nats; epoch numbers start at 1.

        Raises:
            DivergedError: A loss is not finite.
            TrainingError: A step failed, for example because memory ran out.
        """
        self.trainable.train()
        losses: list[Tensor] = []
        sizes = []
        for inputs, targets, weights in self._data.training_batches(epoch):
            with trial_failures(f"step {self._steps + 1}"):
                losses.append(self._step(inputs, self._to_device(targets), weights))
            sizes.append(len(targets) if weights is None else float(weights.sum()))
            if len(losses) % CHECK_EVERY == 0:
                self._check_finite(losses[-CHECK_EVERY:])
        self._check_finite(losses[len(losses) - len(losses) % CHECK_EVERY :])
        total = torch.stack(losses).cpu().double() @ torch.tensor(sizes, dtype=torch.float64)
        return float(total) / sum(sizes)

    @torch.inference_mode()
    def validate(self) -> Tensor:
        """Returns the logits (N, C) of the validation images as a float32 tensor on the CPU.

        Raises:
            DivergedError: A logit is not finite. The last training step can cause this even if all losses are finite.
        """
        self.trainable.train(mode=False)
        batches = []
        for inputs in self._data.validation_inputs():
            with trial_failures("validation"), autocast(self._device, self._precision):
                logits, _ = self._data.inputs.logits(inputs)
                batches.append(logits.float().cpu())
        all_logits = torch.cat(batches)
        if not torch.isfinite(all_logits).all():
            raise DivergedError(self._steps, math.nan)
        return all_logits

    def after_epoch(self, validation_loss: float) -> None:
        """Lets the plateau schedule adjust the learning rate; has no effect with other schedules."""
        self._schedule.after_epoch(validation_loss)

    def _step(self, inputs: Tensor, targets: Tensor, weights: Tensor | None) -> Tensor:
        weights = None if weights is None else self._to_device(weights)
        with autocast(self._device, self._precision):
            logits, auxiliary_logits = self._data.inputs.logits(inputs)
            loss = self._mean_loss(logits.float(), targets, weights)
            for auxiliary in auxiliary_logits:
                loss = loss + AUXILIARY_WEIGHT * self._mean_loss(auxiliary.float(), targets, weights)
        self._optimizer.zero_grad(set_to_none=True)
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self._schedule.after_step()
        self._steps += 1
        detached: Tensor = loss.detach()
        return detached

    def _mean_loss(self, logits: Tensor, targets: Tensor, weights: Tensor | None) -> Tensor:
        """Returns the scalar mean loss of a batch, weighted by image weights (B,) and class weights."""
        if weights is None:
            mean: Tensor = self._loss(logits, targets)
            return mean
        class_weights, smoothing = self._loss.weight, self._loss.label_smoothing
        losses = functional.cross_entropy(
            logits, targets, weight=class_weights, label_smoothing=smoothing, reduction="none"
        )
        counts = weights if class_weights is None else weights * class_weights[targets]
        weighted: Tensor = (weights * losses).sum() / counts.sum()
        return weighted

    def _to_device(self, tensor: Tensor) -> Tensor:
        return tensor.to(self._device, non_blocking=True)

    def _check_finite(self, losses: Sequence[Tensor]) -> None:
        values = torch.stack(list(losses)).tolist() if losses else []
        for step, loss in enumerate(values, start=self._steps - len(losses) + 1):
            if not math.isfinite(loss):
                raise DivergedError(step, loss)
