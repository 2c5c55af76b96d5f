"""The new classifier, in place of the one that a library built for other classes."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from torch import Tensor, nn

if TYPE_CHECKING:
    import torch

_INITIAL_STD = 0.01


class Head(nn.Module):
    """Dropout, then a linear classifier of the form that its place in the network needs.

    The weights start as normal noise of standard deviation 0.01 and the biases as zero, as torchvision
    starts its own classifiers: the first predictions are nearly uniform, so that the loss starts near log C.

    Args:
        original: The library's classifier whose place it takes: a 1x1 convolution is followed by a
            1x1 convolution (B, F, H, W) -> (B, C, H, W), anything else by a linear layer
            (..., F) -> (..., C).
        classes: C, at least 1.
        dropout: Probability that a feature is dropped in training, 0 to 1 exclusive.
        generator: Where the initial noise is drawn from; torch's global generator where None.
    """

    def __init__(
        self, original: nn.Module, classes: int, dropout: float, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.classifier = _resized(original, classes)
        self.reset_parameters(generator)

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Forgets what was learned: draws the initial weights again."""
        nn.init.normal_(self.classifier.weight, std=_INITIAL_STD, generator=generator)
        if self.classifier.bias is not None:
            nn.init.zeros_(self.classifier.bias)

    def forward(self, features: Tensor) -> Tensor:
        """Turns features, (..., F) or (B, F, H, W), into logits, (..., C) or (B, C, H, W)."""
        return cast("Tensor", self.classifier(self.dropout(features)))


class PooledHead(nn.Module):
    """The classifier of a network that has no place for one: the mean of all positions, then a `HeadConfig`.

    Args:
        encoder: Images (B, 3, S, S) -> features (B, F), tokens (B, N, F) or maps (B, F, H, W).
        features: F, the width of the classifier's input.
    """

    def __init__(self, encoder: nn.Module, features: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.head: nn.Module = nn.Linear(features, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, 3, S, S) -> logits (B, C)."""
        return cast("Tensor", self.head(mean_pool(self.encoder(images))))


def mean_pool(features: Tensor) -> Tensor:
    """Averages tokens (B, N, F) or maps (B, F, H, W) over their positions: (B, F)."""
    if features.ndim == 4:
        return features.mean(dim=(2, 3))
    return features.mean(dim=1) if features.ndim == 3 else features


def _resized(original: nn.Module, classes: int) -> nn.Linear | nn.Conv2d:
    if isinstance(original, nn.Conv2d):
        return nn.Conv2d(original.in_channels, classes, kernel_size=1)
    return nn.Linear(in_features(original), classes)


def in_features(classifier: nn.Module) -> int:
    """Reads how many features a linear layer or a convolution takes in."""
    return int(cast("Tensor", classifier.weight).shape[1])
