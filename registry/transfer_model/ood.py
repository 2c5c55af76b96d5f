"""Out-of-distribution scores: cosine distances to the nearest training image.

Method: "Out-of-Distribution Detection with Deep Nearest Neighbors" (Sun et al., ICML 2022).
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

from transfer_model.errors import cause

from .errors import WeightsError
from .model_config import MAX_OOD_SCORE

REFERENCE_FILE = "reference.safetensors"

_FEATURES = "features"


class OodScorer:
    """Computes out-of-distribution scores from features.

    Args:
        features: Features (M, F) of M >= 1 sampled training images, on any device; no row may be all zeros.

    Attributes:
        reference: The features (M, F), normalized to unit length and rounded to half precision.
    """

    def __init__(self, features: Tensor) -> None:
        self.reference = functional.normalize(features.float(), dim=1).half()
        self._float_reference = self.reference.float()

    def __call__(self, features: Tensor) -> Tensor:
        """Maps image features (B, F) to float32 scores (B,) from 0 to 2."""
        return 1 - self._similarity(features).amax(dim=1)

    def leave_one_out(self) -> Tensor:
        """Returns the scores (M,) of the reference images, each computed against all other reference images."""
        similarity = self._similarity(self._float_reference).fill_diagonal_(1 - MAX_OOD_SCORE)
        return 1 - similarity.amax(dim=1)

    def to(self, device: torch.device) -> OodScorer:
        """Moves the reference features to a device in place."""
        self.reference = self.reference.to(device)
        self._float_reference = self._float_reference.to(device)
        return self

    def save(self, folder: Path) -> None:
        """Writes `reference.safetensors` to an existing folder."""
        save_file({_FEATURES: self.reference.cpu().contiguous()}, folder / REFERENCE_FILE)

    @classmethod
    def load(cls, folder: Path) -> OodScorer:
        """Loads the scorer that `save` wrote to a folder.

        Raises:
            WeightsError: The file does not exist or does not contain reference features.
        """
        path = folder / REFERENCE_FILE
        try:
            tensors = load_file(path)
        except (OSError, SafetensorError) as error:
            raise WeightsError(f"{path} cannot be read as a safetensors file: {cause(error)}") from error
        if set(tensors) != {_FEATURES} or tensors[_FEATURES].ndim != 2 or not len(tensors[_FEATURES]):
            raise WeightsError(f"{path} does not contain reference features of shape (M, F)")
        return cls(tensors[_FEATURES])

    def _similarity(self, features: Tensor) -> Tensor:
        return functional.normalize(features.float(), dim=1) @ self._float_reference.T


def ood_threshold(scores: Tensor, false_alarms: float) -> float:
    """Returns the score above which an image is flagged as unknown.

    The threshold is the split-conformal quantile (Papadopoulos et al., 2002): among new images from the same
    distribution, the expected fraction with a score above the threshold is at most `false_alarms`.

    Args:
        scores: Scores (N,) of images not used to train the network; no score may compare an image with itself.
        false_alarms: Accepted false alarm rate, above 0 and below 1.

    Returns:
        One of the scores, or `MAX_OOD_SCORE` if there are too few scores to guarantee the rate
        (N + 1 < 1 / `false_alarms`).
    """
    rank = math.ceil((len(scores) + 1) * (1 - false_alarms))
    return float(scores.sort().values[rank - 1]) if rank <= len(scores) else MAX_OOD_SCORE
