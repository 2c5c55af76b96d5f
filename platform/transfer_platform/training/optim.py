"""Optimizer, parameter groups and learning rate schedules."""

import math
from collections.abc import Iterable

import torch
from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR, LinearLR, LRScheduler, ReduceLROnPlateau

from transfer_model.network import Network
from transfer_platform.recipe.schema import TrainingConfig


def make_optimizer(network: Network, config: TrainingConfig) -> Optimizer:
    """Returns an AdamW, Adam or SGD optimizer for all trainable parameters; the backbone has its own learning rate.

    Biases and norm layers have no weight decay (He et al., "Bag of Tricks for Image Classification", 2019, sec. 3.1).
    """
    rate = config.learning_rate
    groups = [
        *_parameter_groups(network.head_parameters(), rate, config.weight_decay),
        *_parameter_groups(network.backbone_parameters(), rate * config.backbone_lr_factor, config.weight_decay),
    ]
    if config.optimizer == "sgd":
        optimizer = SGD(groups, lr=rate, momentum=config.momentum, nesterov=config.momentum > 0, fused=True)
        if config.momentum:
            _zero_momentum(optimizer)
        return optimizer
    return (Adam if config.optimizer == "adam" else AdamW)(groups, lr=rate, fused=True)


def _zero_momentum(optimizer: SGD) -> None:
    """Creates momentum buffers filled with zeros; this does not change the result of the first step.

    PyTorch's fused SGD creates uninitialized buffers in the first step. They stay uninitialized if `GradScaler` skips
    the first step, and the second step fails if a parameter had no gradient in the first step.
    """
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)


def _parameter_groups(parameters: Iterable[nn.Parameter], rate: float, weight_decay: float) -> list[dict[str, object]]:
    trainable = [parameter for parameter in parameters if parameter.requires_grad]
    decayed = [parameter for parameter in trainable if parameter.ndim > 1]
    not_decayed = [parameter for parameter in trainable if parameter.ndim <= 1]
    return [
        {"params": group, "lr": rate, "weight_decay": decay}
        for group, decay in ((decayed, weight_decay), (not_decayed, 0.0))
        if group
    ]


class LearningRateSchedule:
    """Linear warm-up to the optimizer's learning rates, followed by the configured schedule."""

    def __init__(self, optimizer: Optimizer, config: TrainingConfig, steps_per_epoch: int) -> None:
        total = config.epochs * steps_per_epoch
        warmup = min(round(config.warmup_epochs * steps_per_epoch), total)
        self._by_step = _step_scheduler(optimizer, config.schedule, warmup, total)
        self._plateau: ReduceLROnPlateau | None = None
        if config.schedule == "plateau":
            plateau = config.plateau
            self._plateau = ReduceLROnPlateau(optimizer, factor=plateau.factor, patience=plateau.patience)

    def after_step(self) -> None:
        """Advances the schedule by one optimizer step."""
        self._by_step.step()

    def after_epoch(self, validation_loss: float) -> None:
        """With the plateau schedule, reduces the learning rate if the validation loss has stopped decreasing."""
        if self._plateau is not None:
            self._plateau.step(validation_loss)


def _step_scheduler(optimizer: Optimizer, schedule: str, warmup: int, total: int) -> LRScheduler:
    if schedule == "one_cycle":
        rise = warmup or round(0.3 * total)
        return LambdaLR(optimizer, lambda step: _one_cycle_factor(step, rise, total))
    if schedule == "plateau":
        return LinearLR(optimizer, start_factor=1 / (warmup + 1), total_iters=warmup)
    return LambdaLR(optimizer, lambda step: _warmup_factor(step, warmup, total, cosine=schedule == "cosine"))


def _warmup_factor(step: int, warmup: int, total: int, *, cosine: bool) -> float:
    """Returns the learning rate relative to its peak: linear warm-up, then a constant rate or half-cosine decay."""
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if not cosine:
        return 1.0
    progress = (step - warmup) / max(1, total - warmup)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def _one_cycle_factor(step: int, rise: int, total: int) -> float:
    """Returns the learning rate relative to its peak: it rises from 1/25 to 1 in `rise` steps, then falls to 0.

    Both phases follow a half-cosine, as in fastai. The schedule is from Smith and Topin, "Super-Convergence", 2018.
    """
    if step < rise:
        return 1 / 25 + (1 - 1 / 25) * 0.5 * (1 - math.cos(math.pi * step / rise))
    return _warmup_factor(step, rise, total, cosine=True)
