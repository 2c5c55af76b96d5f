"""What changes the weights: the optimizer with its parameter groups, and the learning rate over time."""

from __future__ import annotations

import math
from collections.abc import Iterable

from torch import nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR, LinearLR, LRScheduler, ReduceLROnPlateau

from transfer_model.network import Network
from transfer_platform.recipe.schema import TrainingConfig


def make_optimizer(network: Network, settings: TrainingConfig) -> Optimizer:
    """AdamW or SGD over all parameters that learn, the backbone's at a fraction of the head's rate.

    Biases and normalisation weights are not decayed: shrinking them towards zero regularises nothing (He et
    al., "Bag of Tricks for Image Classification", 2019, section 3.1).
    """
    rate = settings.learning_rate
    groups = [
        *_groups(network.head_parameters(), rate, settings.weight_decay),
        *_groups(network.backbone_parameters(), rate * settings.backbone_lr_factor, settings.weight_decay),
    ]
    if settings.optimizer == "sgd":
        return SGD(groups, lr=rate, momentum=settings.momentum, nesterov=settings.momentum > 0, fused=True)
    return AdamW(groups, lr=rate, fused=True)


def _groups(parameters: Iterable[nn.Parameter], rate: float, decay: float) -> list[dict[str, object]]:
    learning = [parameter for parameter in parameters if parameter.requires_grad]
    decayed = [parameter for parameter in learning if parameter.ndim > 1]
    exempt = [parameter for parameter in learning if parameter.ndim <= 1]
    return [
        {"params": group, "lr": rate, "weight_decay": weight_decay}
        for group, weight_decay in ((decayed, decay), (exempt, 0.0))
        if group
    ]


class LearningRateSchedule:
    """The learning rate over a trial: a linear warm-up, then the schedule.

    Args:
        optimizer: Its groups' rates are the peak rates; changed in place.
        settings: Schedule, warm-up and epochs.
        steps_per_epoch: Optimizer steps in one epoch.
    """

    def __init__(self, optimizer: Optimizer, settings: TrainingConfig, steps_per_epoch: int) -> None:
        total = settings.epochs * steps_per_epoch
        warmup = min(round(settings.warmup_epochs * steps_per_epoch), total)
        self._plateau: ReduceLROnPlateau | None = None
        self._by_step = self._schedule(optimizer, settings, warmup, total)

    def _schedule(
        self, optimizer: Optimizer, settings: TrainingConfig, warmup: int, total: int
    ) -> LRScheduler:
        if settings.schedule == "one_cycle":
            rise = warmup or round(0.3 * total)
            return LambdaLR(optimizer, lambda step: _one_cycle(step, rise, total))
        if settings.schedule == "plateau":
            warm = LinearLR(optimizer, start_factor=1 / (warmup + 1), total_iters=warmup)
            self._plateau = ReduceLROnPlateau(optimizer, factor=0.3, patience=2)
            return warm
        falls = settings.schedule == "cosine"
        return LambdaLR(optimizer, lambda step: _factor(step, warmup, total, falls=falls))

    def after_step(self) -> None:
        """Moves on by one optimizer step."""
        self._by_step.step()

    def after_epoch(self, validation_loss: float) -> None:
        """Lowers the rate of the plateau schedule when the validation loss stopped falling."""
        if self._plateau is not None:
            self._plateau.step(validation_loss)


def _factor(step: int, warmup: int, total: int, *, falls: bool) -> float:
    """Share of the peak rate at a step, counted from 0; half a cosine after the warm-up if it `falls`."""
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if not falls:
        return 1.0
    progress = (step - warmup) / max(1, total - warmup)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def _one_cycle(step: int, rise: int, total: int) -> float:
    """Share of the peak rate at a step, counted from 0: from 1/25 up over `rise` steps, then down to nothing.

    Half a cosine each way (Smith and Topin, "Super-Convergence", 2018, with the shape of fastai).
    """
    if step < rise:
        return 1 / 25 + (1 - 1 / 25) * 0.5 * (1 - math.cos(math.pi * step / rise))
    return _factor(step, rise, total, falls=True)
