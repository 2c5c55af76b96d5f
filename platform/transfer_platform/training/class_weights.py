"""Class weights, which let the loss function account for imbalanced classes."""

import torch
from torch import Tensor

from transfer_platform.data.splits import Splits
from transfer_platform.progress import Say
from transfer_platform.recipe.schema import IMBALANCE_RATIO, TrainingConfig


def resolve_class_weights(config: TrainingConfig, labels: Tensor, classes: int, say: Say) -> TrainingConfig:
    """Returns the configuration with `class_weights: auto` replaced by `balanced` or `none`.

    `labels` (N,) must contain the labels of all folds, so that every fold and the final refit use the same setting.
    """
    if config.class_weights != "auto":
        return config
    counts = torch.bincount(labels, minlength=classes)
    ratio = float(counts.max() / counts.min())
    resolved = "balanced" if ratio > IMBALANCE_RATIO else "none"
    say(f"class_weights: auto is {resolved}: the largest and smallest classes differ by a factor of {ratio:.2f}")
    return config.model_copy(update={"class_weights": resolved})


def balanced_weights(labels: Tensor, classes: int) -> Tensor:
    """Returns scikit-learn's "balanced" class weights (C,): N / (C * n_c) for a class with n_c of the N images."""
    counts = torch.bincount(labels, minlength=classes)
    return len(labels) / (classes * counts.to(torch.float32))


def image_weights(splits: Splits) -> Tensor | None:
    """Returns the loss weights (N,) of the images in `Splits.development`, or None if all weights are 1."""
    if all(image.weight == 1 for image in splits.train):
        return None
    return torch.tensor([image.weight for image in splits.development])
