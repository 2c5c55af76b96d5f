"""What the frozen part of a study costs, stored or computed every time; imports no deep-learning library.

What was measured on this machine is remembered in the cache, so that a plan can tell it beforehand.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

from transfer_platform import paths
from transfer_platform.data.splits import Splits
from transfer_registry.files import atomic_write

DISK_BYTES_PER_SECOND = 1e9
"""To write a row or to read one again: what a solid-state disk does. Rows that fit into memory are faster."""


@dataclass(frozen=True)
class CostKey:
    """What is measured: a frozen part of a network on this machine.

    Attributes:
        backbone: Its name in the recipe.
        frozen_through: The last frozen stage.
        image_size: S, in pixels.
        precision: Arithmetic of the network.
        device: Where it runs, `cpu`, `cuda` or `mps`.
    """

    backbone: str
    frozen_through: str
    image_size: int
    precision: str
    device: str


@dataclass(frozen=True)
class MeasuredCost:
    """What was found.

    Attributes:
        row_bytes: Of one image's features.
        seconds: Of the frozen part, for one image.
    """

    row_bytes: int
    seconds: float


@dataclass(frozen=True)
class StudyCosts:
    """The two ways of a study, in bytes and seconds.

    Attributes:
        rows: Images and views that would be stored.
        uses: How often an image is put through the network in all trials, epochs and folds.
        measured: On one image.
    """

    rows: int
    uses: int
    measured: MeasuredCost

    @property
    def bytes(self) -> int:
        """Of all rows."""
        return self.rows * self.measured.row_bytes

    @property
    def stored(self) -> float:
        """Seconds with the store: each row is computed and written once, and read at every use."""
        each_way = self.measured.row_bytes / DISK_BYTES_PER_SECOND
        return self.rows * (self.measured.seconds + each_way) + self.uses * each_way

    @property
    def computed(self) -> float:
        """Seconds without it: the frozen part runs at every use."""
        return self.uses * self.measured.seconds

    @property
    def worth_storing(self) -> bool:
        """Whether the store saves more than it costs."""
        return self.stored < self.computed


def study_costs(splits: Splits, views: int, epochs: int, trials: int, measured: MeasuredCost) -> StudyCosts:
    """The costs of a study.

    Args:
        splits: Its images.
        views: That are kept of each training image; 1: only the image as it is.
        epochs: Of a trial.
        trials: Of the study.
        measured: Of its frozen part.
    """
    train = len(splits.train)
    rows = len(splits.development) + (train * views if views > 1 else 0)
    # Each fold trains on all images but its own.
    taught, chosen = train * max(1, splits.fold_count - 1), len(splits.validation) or train
    return StudyCosts(rows, trials * epochs * (taught + chosen), measured)


def save_cost(subject: CostKey, measured: MeasuredCost) -> None:
    """Keeps a measurement, where the cache takes it."""
    path = _path(subject)
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as unfinished:
            unfinished.write_text(json.dumps(asdict(measured)), "utf-8")


def load_cost(subject: CostKey) -> MeasuredCost | None:
    """What was measured before, with the same library on this machine; None where nothing was."""
    try:
        return MeasuredCost(**json.loads(_path(subject).read_text("utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _path(subject: CostKey) -> Path:
    named = json.dumps({**asdict(subject), "torch": version("torch")}, sort_keys=True)
    return paths.cache_folder() / "measured" / f"{hashlib.sha256(named.encode()).hexdigest()}.json"
