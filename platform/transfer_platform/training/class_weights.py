"""Classes of unequal size: whether a loss shall make up for it, and how."""

from __future__ import annotations

import torch
from torch import Tensor

from transfer_platform.progress import Say
from transfer_platform.recipe.schema import IMBALANCE_RATIO, TrainingConfig


def resolve_class_weights(settings: TrainingConfig, labels: Tensor, classes: int, say: Say) -> TrainingConfig:
    """The settings without `class_weights: auto`.

    Args:
        settings: Without ranges.
        labels: The class of every training image (N,), of all folds, so that these and a refit do alike.
        classes: C.
        say: Told what `auto` came to.
    """
    if settings.class_weights != "auto":
        return settings
    counts = torch.bincount(labels, minlength=classes)
    ratio = float(counts.max() / counts.min())
    chosen = "balanced" if ratio > IMBALANCE_RATIO else "none"
    say(
        f"class_weights: auto is {chosen}: the largest class has {ratio:.2f} times the images of the smallest"
    )
    return settings.model_copy(update={"class_weights": chosen})


def balanced_weights(labels: Tensor, classes: int) -> Tensor:
    """Weights (C,) that make all classes count the same in a loss: n / (C n_c), as scikit-learn's `balanced`.

    Args:
        labels: The class of every training image (N,), each class at least once.
        classes: C.
    """
    counts = torch.bincount(labels, minlength=classes)
    return len(labels) / (classes * counts.to(torch.float32))
