"""Nearest-neighbor classifier, which stores the features of the training images.

Method: the most similar training images vote for their classes, with weights that decrease with their distance; see
"Unsupervised Feature Learning via Non-Parametric Instance Discrimination" (Wu et al., CVPR 2018).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from .errors import ModelError

VOTE_TEMPERATURE = 0.07
"""A vote has the weight `exp(cosine similarity / VOTE_TEMPERATURE)`, as in the paper."""

BATCH = 64
"""Number of images that are compared with all stored images at the same time, to limit the memory."""


@dataclass(frozen=True)
class NeighborSpec:
    """Everything that determines a `NeighborClassifier`, except its tensors and the numbers of features and classes.

    Attributes:
        images: Number of stored images N.
        k: Number of neighbors that vote, at most `images`.
        smoothing: Share of the probability that is spread evenly over all classes, above 0 and below 1.

    Raises:
        ModelError: A field is out of range.
    """

    images: int
    k: int
    smoothing: float

    def __post_init__(self) -> None:
        if not 1 <= self.k <= self.images:
            raise ModelError(f"neighbors.k must be from 1 to {self.images} (neighbors.images), but is {self.k}")
        if not 0 < self.smoothing < 1:
            raise ModelError(f"neighbors.smoothing must be above 0 and below 1, but is {self.smoothing}")


class NeighborClassifier(nn.Module):
    """Maps features (B, F) to logits (B, C): the logarithms of the probabilities that the nearest neighbors vote for.

    Args:
        features: Number of features F.
        classes: Number of classes C.
        spec: Number of stored images N, and how they vote.

    Attributes:
        features: Features (N, F) of the stored images, scaled to unit length.
        labels: Class indices (N,) of the stored images.
        votes: Weights (N,) of the stored images' votes, above 0.
    """

    features: Tensor
    labels: Tensor
    votes: Tensor

    def __init__(self, features: int, classes: int, spec: NeighborSpec) -> None:
        super().__init__()
        self.spec, self.classes = spec, classes
        self.register_buffer("features", torch.zeros(spec.images, features))
        self.register_buffer("labels", torch.zeros(spec.images, dtype=torch.long))
        self.register_buffer("votes", torch.ones(spec.images))

    def forward(self, features: Tensor) -> Tensor:
        """Computes in float32, also within autocast: similarities in half precision would order the images wrongly."""
        if torch.compiler.is_exporting():  # a graph for any batch size cannot divide the batch
            return self._logits(features)
        with torch.autocast(features.device.type, enabled=False):
            return torch.cat([self._logits(part) for part in torch.split(features, BATCH)])

    def extra_repr(self) -> str:
        """Returns the settings that `print` shows."""
        return f"images={self.spec.images}, k={self.spec.k}, smoothing={self.spec.smoothing:g}"

    def _logits(self, features: Tensor) -> Tensor:
        similarities, rows = nearest(functional.normalize(features.float()), self.features, self.spec.k)
        return vote(similarities, self.labels[rows], self.votes[rows], self.classes, self.spec.smoothing)


def nearest(directions: Tensor, stored: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Returns the cosine similarities (B, k) to the k most similar rows, in descending order, and these rows (B, k).

    Args:
        directions: Features (B, F) of unit length.
        stored: Features (N, F) of unit length.
        k: Number of rows to return, at most N.
    """
    similarities, rows = (directions @ stored.T).topk(k, dim=1)
    return similarities, rows


def vote(similarities: Tensor, labels: Tensor, votes: Tensor, classes: int, smoothing: float) -> Tensor:
    """Returns the logarithms (B, C) of the class probabilities.

    Args:
        similarities: Similarities (B, k) of the neighbors, in descending order.
        labels: Class indices (B, k) of the neighbors.
        votes: Weights (B, k) of their votes.
        classes: Number of classes C.
        smoothing: Share of the probability that is spread evenly over all classes.
    """
    weights = votes * ((similarities - similarities[:, :1]) / VOTE_TEMPERATURE).exp()
    of_class = labels[:, :, None] == torch.arange(classes, device=labels.device)
    shares = (weights[:, :, None] * of_class).sum(dim=1) / weights.sum(dim=1, keepdim=True)
    return (smoothing / classes + (1 - smoothing) * shares).log()
