"""The loop: one network, its training and validation batches, epoch after epoch, to its best weights."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional

from transfer_model.network import Network
from transfer_platform.data.dataset import class_weights
from transfer_platform.errors import DivergedError
from transfer_platform.evaluation.metrics import scores
from transfer_platform.recipe.schema import Training
from transfer_platform.training.device import autocast
from transfer_platform.training.material import Material
from transfer_platform.training.optimization import LearningRate, make_optimizer

AUXILIARY_WEIGHT = 0.4
"""Weight of an auxiliary classifier's loss beside the main one's: 0.3 in GoogLeNet, 0.4 in Inception v3."""
CHECK_EVERY = 50
"""Steps between two looks at the losses; every look waits for the device."""


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
class Fit:
    """What a trial came to: its epochs, and which of them the network was left at."""

    epochs: tuple[Epoch, ...]
    best: Epoch


@dataclass
class _Best:
    """The best epoch so far and the weights it had."""

    metric: str
    minimizes: bool
    epoch: Epoch | None = None
    weights: dict[str, Tensor] = field(default_factory=dict)

    def offer(self, epoch: Epoch, network: Network) -> None:
        if self.epoch is None or self._better(epoch, self.epoch):
            self.epoch = epoch
            self.weights = {name: tensor.detach().clone() for name, tensor in learning_state(network).items()}

    def _better(self, one: Epoch, other: Epoch) -> bool:
        difference = one.metrics[self.metric] - other.metrics[self.metric]
        return difference < 0 if self.minimizes else difference > 0


def learning_state(network: Network) -> dict[str, Tensor]:
    """The tensors that training changes: what is not frozen, running statistics included.

    Returns:
        By the names of `network.state_dict()`; they share the network's memory.
    """
    frozen = {id(parameter) for parameter in network.parameters() if not parameter.requires_grad}
    frozen |= {
        id(buffer) for module in network.modules() if not module.training for buffer in module.buffers(False)
    }
    return {
        name: tensor
        for name, tensor in network.state_dict(keep_vars=True).items()
        if id(tensor) not in frozen
    }


def fit(
    network: Network,
    material: Material,
    settings: Training,
    *,
    precision: str,
    metric: str,
    minimizes: bool,
    after_epoch: Callable[[Epoch], None],
) -> Fit:
    """Trains a network and leaves it at the weights of its best epoch.

    Args:
        network: Frozen as wished, on its device; changed in place.
        material: Batches that live on any device.
        settings: Without ranges.
        precision: `float32`, `bfloat16` or `float16`; weights stay float32 throughout.
        metric: Name of the validation metric that decides which epoch is best.
        minimizes: Whether less of it is better.
        after_epoch: Called with every finished epoch; what it raises ends the training.

    Raises:
        DivergedError: The loss is not a finite number any more.
    """
    device = next(network.parameters()).device
    optimizer = make_optimizer(network, settings)
    rate = LearningRate(optimizer, settings, material.steps_per_epoch)
    trainer = _Trainer(network, material, settings, device, precision, optimizer, rate)
    best, epochs = _Best(metric, minimizes), []
    for number in range(1, settings.epochs + 1):
        epoch = trainer.run_epoch(number)
        network.train()
        best.offer(epoch, network)
        epochs.append(epoch)
        after_epoch(epoch)
        if best.epoch and settings.early_stopping and number - best.epoch.number >= settings.early_stopping:
            break
    assert best.epoch is not None, "a trial has at least one epoch"
    network.load_state_dict(best.weights, strict=False)
    return Fit(tuple(epochs), best.epoch)


class _Trainer:
    """One trial's moving parts."""

    def __init__(
        self,
        network: Network,
        material: Material,
        settings: Training,
        device: torch.device,
        precision: str,
        optimizer: torch.optim.Optimizer,
        rate: LearningRate,
    ) -> None:
        self._network, self._material, self._device, self._precision = network, material, device, precision
        self._optimizer, self._rate, self._steps = optimizer, rate, 0
        balanced = settings.class_weights == "balanced"
        self._loss = nn.CrossEntropyLoss(
            weight=class_weights(material.labels.tolist(), network.spec.classes).to(device)
            if balanced
            else None,
            label_smoothing=settings.label_smoothing,
        )
        self._scaler = torch.amp.GradScaler(device.type, enabled=precision == "float16")

    def run_epoch(self, number: int) -> Epoch:
        start = time.perf_counter()
        rate = float(self._optimizer.param_groups[0]["lr"])
        train_loss = self._train(number)
        validation = self._validate()
        self._rate.after_epoch(validation["loss"])
        return Epoch(
            number,
            {
                "train/loss": train_loss,
                **{f"validation/{name}": value for name, value in validation.items()},
                "learning_rate": rate,
                "seconds": time.perf_counter() - start,
            },
        )

    def _train(self, number: int) -> float:
        self._network.train()
        first_step = (number - 1) * self._material.steps_per_epoch + 1
        losses, sizes = [], []
        for index, (inputs, targets) in enumerate(self._material.training(number)):
            losses.append(self._step(inputs, targets))
            sizes.append(len(targets))
            if (index + 1) % CHECK_EVERY == 0:
                _refuse_divergence(losses[-CHECK_EVERY:], first_step + index + 1 - CHECK_EVERY)
        unchecked = len(losses) % CHECK_EVERY
        _refuse_divergence(losses[len(losses) - unchecked :], first_step + len(losses) - unchecked)
        total = torch.stack(losses).cpu().double() @ torch.tensor(sizes, dtype=torch.float64)
        return float(total) / sum(sizes)

    def _step(self, inputs: Tensor, targets: Tensor) -> Tensor:
        inputs, targets = self._to_device(inputs), targets.to(self._device, non_blocking=True)
        with autocast(self._device, self._precision):
            logits, auxiliary = self._material.logits(self._network, inputs)
            loss = self._loss(logits.float(), targets)
            for extra in auxiliary:
                loss = loss + AUXILIARY_WEIGHT * self._loss(extra.float(), targets)
        self._optimizer.zero_grad(set_to_none=True)
        self._scaler.scale(loss).backward()
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self._rate.after_step()
        self._steps += 1
        detached: Tensor = loss.detach()
        return detached

    @torch.inference_mode()
    def _validate(self) -> dict[str, float]:
        self._network.eval()
        logits, targets = [], []
        for inputs, labels in self._material.validation():
            with autocast(self._device, self._precision):
                batch, _ = self._material.logits(self._network, self._to_device(inputs))
            logits.append(batch.float().cpu())
            targets.append(labels.cpu())
        if not torch.isfinite(torch.cat(logits)).all():
            # The last step of an epoch spoilt the weights, so that no training loss could tell.
            raise DivergedError(self._steps, math.nan)
        probabilities = functional.softmax(torch.cat(logits).double(), dim=1)
        return scores(torch.cat(targets).numpy(), probabilities.numpy())

    def _to_device(self, inputs: Tensor) -> Tensor:
        layout = torch.channels_last if inputs.ndim == 4 else torch.preserve_format
        return inputs.to(self._device, non_blocking=True, memory_format=layout)


def _refuse_divergence(losses: list[Tensor], first_step: int) -> None:
    for step, loss in enumerate(torch.stack(losses).tolist() if losses else (), start=first_step):
        if not math.isfinite(loss):
            raise DivergedError(step, loss)
