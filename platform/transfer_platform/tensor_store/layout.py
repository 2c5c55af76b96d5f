"""What one row is, and how tensors and the bytes in a file become each other."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class RowSpec:
    """Shape and type of every row under one address.

    Attributes:
        shape: Of one row; `()` for a single number.
        dtype: As torch names it: `float32`, `bfloat16`, `float16`, `uint8`.

    >>> Layout((3, 224, 224), "uint8").row_bytes
    150528
    """

    shape: tuple[int, ...]
    dtype: str

    def __post_init__(self) -> None:
        if not isinstance(getattr(torch, self.dtype, None), torch.dtype):
            raise ValueError(f"{self.dtype!r} is not one of torch's types, such as float32 or uint8")
        if any(size < 1 for size in self.shape):
            raise ValueError(f"a row needs at least one element, but its shape is {self.shape}")

    @property
    def torch_dtype(self) -> torch.dtype:
        """The type itself."""
        dtype: torch.dtype = getattr(torch, self.dtype)
        return dtype

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return math.prod(self.shape) * self.torch_dtype.itemsize


def to_bytes(rows: Tensor, layout: RowSpec) -> Bytes:
    """The bytes (B, row_bytes) of rows (B, *shape).

    Raises:
        ValueError: The rows are of another shape or type.
    """
    if tuple(rows.shape[1:]) != layout.shape or rows.dtype != layout.torch_dtype:
        raise ValueError(f"rows of {tuple(rows.shape[1:])} {rows.dtype} do not fit {layout}")
    # Through a view, because numpy has no bfloat16; flat, because a view needs a last dimension to divide.
    flat = rows.detach().cpu().reshape(-1).contiguous().view(torch.uint8)
    plain: Bytes = flat.reshape(len(rows), layout.row_bytes).numpy()
    return plain


def empty(count: int, layout: RowSpec) -> tuple[Tensor, Bytes]:
    """Rows (count, *shape) that are not set yet, and their bytes (count, row_bytes) in the same memory."""
    memory = torch.empty((count, layout.row_bytes), dtype=torch.uint8)
    return memory.reshape(-1).view(layout.torch_dtype).reshape(count, *layout.shape), memory.numpy()
