"""Whether an image is like those that a model learned from.

An image's novelty is the cosine distance of its features to the nearest ones of a reference, some of the
training images: "Out-of-Distribution Detection with Deep Nearest Neighbors" (Sun et al., ICML 2022).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

from .config import MAX_OOD_SCORE
from .errors import WeightsError

if TYPE_CHECKING:
    from pathlib import Path

REFERENCE_FILE = "reference.safetensors"

_FEATURES = "features"


class OodScorer:
    """Measures how far images are from a reference.

    Args:
        features: Of the reference, (M, F), M at least 1; on any device, of any length but 0.

    Attributes:
        reference: The same, scaled to length 1 and rounded to half precision (M, F).
    """

    def __init__(self, features: Tensor) -> None:
        self.reference = functional.normalize(features.float(), dim=1).half()
        self._comparable = self.reference.float()

    def __call__(self, features: Tensor) -> Tensor:
        """The novelty of images, from their features (B, F): (B,) from 0 to 2, float32."""
        return 1 - self._similarity(features).amax(dim=1)

    def leave_one_out(self) -> Tensor:
        """The novelty of every image of the reference, measured from the others: (M,)."""
        similarity = self._similarity(self._comparable).fill_diagonal_(1 - MAX_OOD_SCORE)
        return 1 - similarity.amax(dim=1)

    def to(self, device: torch.device) -> OodScorer:
        """Moves the reference to a device, in place."""
        self.reference, self._comparable = self.reference.to(device), self._comparable.to(device)
        return self

    def save(self, folder: Path) -> None:
        """Writes `reference.safetensors` into an existing folder."""
        save_file({_FEATURES: self.reference.cpu().contiguous()}, folder / REFERENCE_FILE)

    @classmethod
    def load(cls, folder: Path) -> OodScorer:
        """Reads what `save` wrote.

        Raises:
            WeightsError: There is no such file, or it holds anything else.
        """
        path = folder / REFERENCE_FILE
        try:
            tensors = load_file(path)
        except (OSError, SafetensorError) as error:
            raise WeightsError(f"{path} cannot be read as a safetensors file: {error}") from error
        if set(tensors) != {_FEATURES} or tensors[_FEATURES].ndim != 2 or not len(tensors[_FEATURES]):
            raise WeightsError(f"{path} holds no reference of features")
        return cls(tensors[_FEATURES])

    def _similarity(self, features: Tensor) -> Tensor:
        return functional.normalize(features.float(), dim=1) @ self._comparable.T


def ood_threshold(novelties: Tensor, false_alarms: float) -> float:
    """The novelty above which an image is called unknown.

    The split-conformal quantile (Papadopoulos et al., 2002): of further images that come from where these
    came from, no more than the stated share is above it on average, whatever their distribution.

    Args:
        novelties: Of images that neither taught the network nor stand in the reference for themselves (N,).
        false_alarms: The share, above 0 and below 1.

    Returns:
        One of the novelties; `MAX_OOD_SCORE` where they are too few to promise the share: N + 1 < 1 / share.
    """
    rank = math.ceil((len(novelties) + 1) * (1 - false_alarms))
    return float(novelties.sort().values[rank - 1]) if rank <= len(novelties) else MAX_OOD_SCORE
