"""Compares the cost of storing features with the cost of recomputing them.

Costs measured on this machine are cached for `platform check`. This module does not import PyTorch.
"""

import json
from dataclasses import asdict, dataclass
from importlib.metadata import version

from transfer_model.architecture import Architecture
from transfer_platform.data.splits import Splits
from transfer_platform.disk_cache import DiskCache

DISK_BYTES_PER_SECOND = 1e9
"""Assumed read and write speed of the store; typical of an SSD. Rows that fit in memory are read faster."""
_NAMESPACE = "costs"


@dataclass(frozen=True)
class CostKey:
    """Key of a cached cost: frozen prefix, image size in pixels, precision, device type (`cpu`, `cuda` or `mps`)."""

    backbone: Architecture
    frozen_through: str
    image_size: int
    precision: str
    device: str


@dataclass(frozen=True)
class MeasuredCost:
    """Size of one image's features, in bytes, and the time needed to compute them, in seconds."""

    row_bytes: int
    seconds: float


@dataclass(frozen=True)
class StudyCosts:
    """Compares two options for a whole study: storing the features and recomputing them."""

    rows: int
    """Number of rows to store, one per image or view."""
    uses: int
    """Total number of times that rows are read or recomputed, over all trials, epochs and folds."""
    measured: MeasuredCost
    """Measured cost per image."""

    @property
    def bytes(self) -> int:
        """Total size of the stored features, in bytes."""
        return self.rows * self.measured.row_bytes

    @property
    def stored_seconds(self) -> float:
        """Total time if features are stored: each row is computed and written once, then read on every use."""
        transfer = self.measured.row_bytes / DISK_BYTES_PER_SECOND
        return self.rows * (self.measured.seconds + transfer) + self.uses * transfer

    @property
    def recomputed_seconds(self) -> float:
        """Total time if features are not stored: each row is computed on every use."""
        return self.uses * self.measured.seconds

    @property
    def worth_storing(self) -> bool:
        """True if storing the features is faster."""
        return self.stored_seconds < self.recomputed_seconds


def study_costs(splits: Splits, views: int, epochs: int, trials: int, measured: MeasuredCost) -> StudyCosts:
    """Returns the costs of a study with `views` augmented views per training image; 1 means no augmentation."""
    train = len(splits.train)
    rows = len(splits.development) + (train * views if views > 1 else 0)
    # With K folds, each image is used for training in K - 1 folds and for validation in one.
    trained, validated = train * max(1, splits.fold_count - 1), len(splits.validation) or train
    return StudyCosts(rows, trials * epochs * (trained + validated), measured)


def save_cost(key: CostKey, cost: MeasuredCost) -> None:
    """Caches a measured cost."""
    DiskCache(_NAMESPACE).put({_cache_key(key): json.dumps(asdict(cost)).encode()})


def load_cost(key: CostKey) -> MeasuredCost | None:
    """Returns the cached cost measured on this machine with the installed PyTorch version, or None if there is none."""
    cache_key = _cache_key(key)
    value = DiskCache(_NAMESPACE).get([cache_key]).get(cache_key)
    return None if value is None else MeasuredCost(**json.loads(value))


def _cache_key(key: CostKey) -> str:
    return json.dumps({**asdict(key), "backbone": key.backbone.to_json(), "torch": version("torch")}, sort_keys=True)
