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

from .errors import WeightsError, cause
from .model_json import MAX_OOD_SCORE

REFERENCE_FILE = "reference.safetensors"

RESOLUTION = 1e-5
"""Thresholds up to this score are rejected, because such small distances are dominated by rounding errors.

For example, storing the reference in half precision changes a distance of 1e-5 by about 10%.
"""

_FEATURES = "features"


class OodScorer:
    """Computes out-of-distribution scores from features.

    Images whose features are all zero or not finite get the largest score, `MAX_OOD_SCORE`. Reference
    features of this kind do not affect any score.

    Args:
        features: Features (M, F) of a sample of M >= 1 training images, on any device.

    Attributes:
        reference: The features (M, F) in half precision, scaled so that the largest magnitude in each row is 1.
    """

    def __init__(self, features: Tensor) -> None:
        # Scaling by the largest magnitude gives the same bits when it is repeated, so that a loaded scorer computes
        # the scores of the one that was saved. Scaling to unit length would not, because half precision changes it.
        self.reference = _scaled(features).half()
        self._directions = _directions(self.reference)

    def __call__(self, features: Tensor) -> Tensor:
        """Maps image features (B, F) to float32 scores (B,) from 0 to 2."""
        return self._distances(_directions(features)).amin(dim=1)

    def leave_one_out(self) -> Tensor:
        """Returns the scores (M,) of the reference images, each computed against all other reference images."""
        return self._distances(self._directions).fill_diagonal_(MAX_OOD_SCORE).amin(dim=1)

    def to(self, device: torch.device) -> OodScorer:
        """Moves the reference features to a device in place."""
        self.reference = self.reference.to(device)
        self._directions = self._directions.to(device)
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

    def _distances(self, directions: Tensor) -> Tensor:
        """Returns the cosine distances (B, M) between unit vectors (B, F) and the reference images."""
        distances = 1 - directions @ self._directions.T
        return distances.nan_to_num(nan=MAX_OOD_SCORE).clamp(0.0, MAX_OOD_SCORE)


def _scaled(features: Tensor) -> Tensor:
    """Scales rows (N, F) so that their largest magnitude is 1; rows that are all zero or not finite become NaN."""
    features = features.float()
    return features / features.abs().amax(dim=1, keepdim=True)


def _directions(features: Tensor) -> Tensor:
    """Scales rows (N, F) to unit length without overflow or underflow."""
    scaled = _scaled(features)
    directions: Tensor = scaled / scaled.norm(dim=1, keepdim=True)
    return directions


def ood_threshold(scores: Tensor, false_alarms: float) -> float:
    """Returns the score above which an image is flagged as unknown.

    The threshold is the split-conformal quantile (Papadopoulos et al., 2002): among new images from the same
    distribution, the expected fraction with a score above the threshold is at most `false_alarms`.

    Args:
        scores: Scores (N,) of images not used to train the network; an image must not be scored against itself.
        false_alarms: Accepted false alarm rate, above 0 and below 1.

    Returns:
        One of the scores, or `MAX_OOD_SCORE` (which flags no image) if there are too few scores
        (N + 1 < 1 / `false_alarms`) or the quantile is at most `RESOLUTION` (the features hardly differ).
    """
    rank = math.ceil((len(scores) + 1) * (1 - false_alarms))
    if rank > len(scores):
        return MAX_OOD_SCORE
    threshold = float(scores.sort().values[rank - 1])
    return threshold if threshold > RESOLUTION else MAX_OOD_SCORE
