"""One network's moving parts on one material: an epoch of training, and a look at the validation images."""

from __future__ import annotations

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
from transfer_platform.training.device import autocast
from transfer_platform.training.optim import LearningRateSchedule, make_optimizer
from transfer_platform.training.trainable_state import TrainableState

AUXILIARY_WEIGHT = 0.4
"""Weight of an auxiliary classifier's loss beside the main one's: 0.3 in GoogLeNet, 0.4 in Inception v3."""
CHECK_EVERY = 50
"""Steps between two looks at the losses; every look waits for the device."""


class Trainer:
    """Trains one network.

    Args:
        network: Frozen as wished, on its device; changed in place.
        material: What it learns from.
        settings: Without ranges, its class weights settled.
        precision: `float32`, `bfloat16` or `float16`; weights stay float32 throughout.

    Attributes:
        learned: What the training changes.
    """

    def __init__(
        self, network: Network, material: TrialData, settings: TrainingConfig, precision: str
    ) -> None:
        self._material, self._precision = material, precision
        self.learned = TrainableState(network)
        self._device = next(network.parameters()).device
        self._optimizer = make_optimizer(network, settings)
        self._rate = LearningRateSchedule(self._optimizer, settings, material.steps_per_epoch)
        self._loss = _loss(settings, material.labels[list(material.train)], network.spec.classes)
        self._loss.to(self._device)
        self._scaler = torch.amp.GradScaler(self._device.type, enabled=precision == "float16")
        self._steps = 0

    @property
    def learning_rate(self) -> float:
        """Of the next step, for the head."""
        return float(self._optimizer.param_groups[0]["lr"])

    def train(self, epoch: int) -> float:
        """Goes through the training images once.

        Args:
            epoch: Counted from 1.

        Returns:
            The mean training loss, in nats.

        Raises:
            DivergedError: A loss is not a finite number.
        """
        self.learned.train()
        losses: list[Tensor] = []
        sizes = []
        for inputs, targets, weights in self._material.training_batches(epoch):
            losses.append(self._step(inputs, self._moved(targets), weights))
            sizes.append(len(targets) if weights is None else float(weights.sum()))
            if len(losses) % CHECK_EVERY == 0:
                self._refuse_divergence(losses[-CHECK_EVERY:])
        self._refuse_divergence(losses[len(losses) - len(losses) % CHECK_EVERY :])
        total = torch.stack(losses).cpu().double() @ torch.tensor(sizes, dtype=torch.float64)
        return float(total) / sum(sizes)

    @torch.inference_mode()
    def validate(self) -> Tensor:
        """The logits of the validation images (N, C), float32, on the CPU.

        Raises:
            DivergedError: They are not finite: the epoch's last step spoilt the weights, so that no training
                loss could tell.
        """
        self.learned.train(mode=False)
        batches = []
        for inputs in self._material.validation_inputs():
            with autocast(self._device, self._precision):
                logits, _ = self._material.inputs.logits(inputs)
            batches.append(logits.float().cpu())
        found = torch.cat(batches)
        if not torch.isfinite(found).all():
            raise DivergedError(self._steps, math.nan)
        return found

    def after_epoch(self, validation_loss: float) -> None:
        """Lets the plateau schedule see how the epoch ended."""
        self._rate.after_epoch(validation_loss)

    def _step(self, inputs: Tensor, targets: Tensor, weights: Tensor | None) -> Tensor:
        counts = None if weights is None else self._moved(weights)
        with autocast(self._device, self._precision):
            logits, auxiliary = self._material.inputs.logits(inputs)
            loss = self._mean_loss(logits.float(), targets, counts)
            for extra in auxiliary:
                loss = loss + AUXILIARY_WEIGHT * self._mean_loss(extra.float(), targets, counts)
        self._optimizer.zero_grad(set_to_none=True)
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self._rate.after_step()
        self._steps += 1
        detached: Tensor = loss.detach()
        return detached

    def _mean_loss(self, logits: Tensor, targets: Tensor, weights: Tensor | None) -> Tensor:
        """Of a batch: (B, C), (B,) and (B,) -> (); each image as much as its weight and its class's say."""
        if weights is None:
            mean: Tensor = self._loss(logits, targets)
            return mean
        of_class, smoothing = self._loss.weight, self._loss.label_smoothing
        losses = functional.cross_entropy(
            logits, targets, weight=of_class, label_smoothing=smoothing, reduction="none"
        )
        counts = weights if of_class is None else weights * of_class[targets]
        weighted: Tensor = (weights * losses).sum() / counts.sum()
        return weighted

    def _moved(self, numbers: Tensor) -> Tensor:
        return numbers.to(self._device, non_blocking=True)

    def _refuse_divergence(self, losses: Sequence[Tensor]) -> None:
        """Looks at the losses of the last steps."""
        values = torch.stack(list(losses)).tolist() if losses else []
        for step, loss in enumerate(values, start=self._steps - len(losses) + 1):
            if not math.isfinite(loss):
                raise DivergedError(step, loss)


def _loss(settings: TrainingConfig, labels: Tensor, classes: int) -> nn.CrossEntropyLoss:
    weights = balanced_weights(labels, classes) if settings.class_weights == "balanced" else None
    return nn.CrossEntropyLoss(weight=weights, label_smoothing=settings.label_smoothing)
