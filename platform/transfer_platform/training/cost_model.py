"""Estimated cost of stored and of recomputed features.

Costs measured on this machine are cached for `platform check`. This module does not import PyTorch.
"""

import json
from dataclasses import asdict, dataclass
from importlib.metadata import version

from transfer_platform.data.splits import Splits
from transfer_platform.disk_cache import DiskCache

DISK_BYTES_PER_SECOND = 1e9
"""Assumed read and write speed of the store: a solid-state disk. Rows that fit into memory are faster."""
_NAMESPACE = "costs"


@dataclass(frozen=True)
class CostKey:
    """A frozen prefix, image size in pixels, precision and device type (`cpu`, `cuda` or `mps`)."""

    backbone: str
    frozen_through: str
    image_size: int
    precision: str
    device: str


@dataclass(frozen=True)
class MeasuredCost:
    """Size of the features of one image, and the time to compute them."""

    row_bytes: int
    seconds: float


@dataclass(frozen=True)
class StudyCosts:
    """Cost of both strategies for a whole study."""

    rows: int
    """Images and views to store."""
    uses: int
    """Images processed in all trials, epochs and folds."""
    measured: MeasuredCost
    """Cost of one image."""

    @property
    def bytes(self) -> int:
        """Size of all stored features."""
        return self.rows * self.measured.row_bytes

    @property
    def stored_seconds(self) -> float:
        """Time with stored features: each is computed and written once, and read at every use."""
        transfer = self.measured.row_bytes / DISK_BYTES_PER_SECOND
        return self.rows * (self.measured.seconds + transfer) + self.uses * transfer

    @property
    def recomputed_seconds(self) -> float:
        """Time without the store: features are computed at every use."""
        return self.uses * self.measured.seconds

    @property
    def worth_storing(self) -> bool:
        """True if stored features are faster."""
        return self.stored_seconds < self.recomputed_seconds


def study_costs(splits: Splits, views: int, epochs: int, trials: int, measured: MeasuredCost) -> StudyCosts:
    """Returns the costs of a study that stores `views` views per training image; 1 is the original image."""
    train = len(splits.train)
    rows = len(splits.development) + (train * views if views > 1 else 0)
    # With K folds, each image is trained on in K - 1 folds and validated in one.
    trained, validated = train * max(1, splits.fold_count - 1), len(splits.validation) or train
    return StudyCosts(rows, trials * epochs * (trained + validated), measured)


def save_cost(key: CostKey, cost: MeasuredCost) -> None:
    """Caches a measurement."""
    DiskCache(_NAMESPACE).put({_cache_key(key): json.dumps(asdict(cost)).encode()})


def load_cost(key: CostKey) -> MeasuredCost | None:
    """Returns the cost measured on this machine with the installed PyTorch, if it is cached."""
    cache_key = _cache_key(key)
    value = DiskCache(_NAMESPACE).get([cache_key]).get(cache_key)
    return None if value is None else MeasuredCost(**json.loads(value))


def _cache_key(key: CostKey) -> str:
    return json.dumps({**asdict(key), "torch": version("torch")}, sort_keys=True)
