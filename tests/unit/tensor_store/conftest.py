"""A store, and rows that count how often they are computed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from transfer_platform.tensor_store import RowSpec, Store


class Source:
    """Computes row `i` of `values`, and notes what it was asked for."""

    def __init__(self, values: Tensor, batch: int = 3) -> None:
        self.values, self.batch = values, batch
        self.asked: list[list[int]] = []

    def __call__(self, missing: Sequence[int]) -> Iterator[Tensor]:
        self.asked.append(list(missing))
        for start in range(0, len(missing), self.batch):
            yield self.values[list(missing[start : start + self.batch])]

    @property
    def layout(self) -> RowSpec:
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
def store(folder: Path) -> Store:
    return Store(folder, limit=100 << 20)


@pytest.fixture
def three_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """Segments of three rows of `source`."""
    monkeypatch.setattr("transfer_platform.tensor_store.store.SEGMENT_BYTES", 3 * 24)
