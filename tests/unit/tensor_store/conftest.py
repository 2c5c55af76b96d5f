"""A store, and a computation that records its calls."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from transfer_platform.tensor_store.segment import RowSpec
from transfer_platform.tensor_store.store import Store


class Source:
    """Computes row `i` of `values`; records the requested positions."""

    def __init__(self, values: Tensor, batch: int = 3) -> None:
        self.values, self.batch = values, batch
        self.requested: list[list[int]] = []

    def __call__(self, missing: Sequence[int]) -> Iterator[Tensor]:
        self.requested.append(list(missing))
        for start in range(0, len(missing), self.batch):
            yield self.values[list(missing[start : start + self.batch])]

    @property
    def spec(self) -> RowSpec:
        return RowSpec(tuple(self.values.shape[1:]), str(self.values.dtype).removeprefix("torch."))

    @property
    def keys(self) -> list[str]:
        return [f"{number:064x}" for number in range(len(self.values))]


@pytest.fixture
def source() -> Source:
    return Source(torch.arange(10 * 6, dtype=torch.float32).reshape(10, 2, 3))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "features"


@pytest.fixture
def store_options() -> dict[str, Any]:
    """Keyword arguments of `store`, for `parametrize`."""
    return {}


@pytest.fixture
def store(folder: Path, store_options: dict[str, Any]) -> Store:
    return Store(folder, limit=100 << 20, **store_options)
