"""Classifier heads that replace the original heads of library networks."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from .neighbors import NeighborClassifier, NeighborSpec


class Head(nn.Module):
    """Dropout followed by a linear classifier or a nearest-neighbor classifier.

    As in torchvision's classifiers, weights are drawn from a normal distribution with standard deviation 0.01, and
    biases are initialized to zero, so the initial predictions are nearly uniform.

    Args:
        original: Library classifier to replace. A convolution is replaced by a 1x1 convolution from (B, F, H, W) to
            (B, C, H, W), and any other module by a linear layer from (..., F) to (..., C).
        classes: Number of classes C, at least 1.
        dropout: Dropout probability during training, at least 0 and less than 1.
        generator: Random generator for the initial weights; defaults to torch's global generator.
        labels: For each class, the number of outputs it combines; empty if each class has one output. The logit of a
            class is the logarithm of the sum of the exponentials of its outputs, so their probabilities are added.
        neighbors: Specification of a nearest-neighbor classifier; None for a linear classifier.
    """

    classifier: nn.Linear | nn.Conv2d | NeighborClassifier

    def __init__(
        self,
        original: nn.Module,
        classes: int,
        dropout: float,
        generator: torch.Generator | None = None,
        labels: tuple[int, ...] = (),
        neighbors: NeighborSpec | None = None,
    ) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.labels = labels
        if neighbors:
            self.classifier = NeighborClassifier(in_features(original), classes, neighbors)
            return
        self.classifier = _new_classifier(original, sum(labels) or classes)
        nn.init.normal_(self.classifier.weight, std=0.01, generator=generator)
        nn.init.zeros_(cast("Tensor", self.classifier.bias))

    def forward(self, features: Tensor) -> Tensor:
        """Maps features (..., F) or (B, F, H, W) to logits (..., C) or (B, C, H, W)."""
        outputs = cast("Tensor", self.classifier(self.dropout(features)))
        if not self.labels:
            return outputs
        dim = 1 if isinstance(self.classifier, nn.Conv2d) else -1
        parts = torch.split(outputs, list(self.labels), dim)
        return torch.stack([part.logsumexp(dim) for part in parts], dim)


class PooledHead(nn.Module):
    """Encoder without a classifier, followed by mean pooling and a placeholder for a `Head`.

    Args:
        encoder: Maps images (B, 3, S, S) to features (B, F), tokens (B, N, F) or feature maps (B, F, H, W).
        features: Input width F of the head.
    """

    def __init__(self, encoder: nn.Module, features: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.head: nn.Module = nn.Linear(features, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Maps images (B, 3, S, S) to logits (B, C)."""
        return cast("Tensor", self.head(mean_pool(self.encoder(images))))


def mean_pool(features: Tensor) -> Tensor:
    """Averages tokens (B, N, F) or feature maps (B, F, H, W) over all positions; returns (B, F)."""
    if features.ndim == 4:
        return features.mean(dim=(2, 3))
    return features.mean(dim=1) if features.ndim == 3 else features


def _new_classifier(original: nn.Module, classes: int) -> nn.Linear | nn.Conv2d:
    if isinstance(original, nn.Conv2d):
        return nn.Conv2d(original.in_channels, classes, kernel_size=1)
    return nn.Linear(in_features(original), classes)


def in_features(classifier: nn.Module) -> int:
    """Returns the number of input features of a linear layer or convolution."""
    return int(cast("Tensor", classifier.weight).shape[1])
