"""Rows of one shape and type under string keys: computed once, kept on disk, shared by processes."""

from transfer_platform.tensor_store.errors import StoreError, StoreFullError, StoreUnwritableError
from transfer_platform.tensor_store.eviction import ClearResult, Usage, clear, usage
from transfer_platform.tensor_store.layout import RowSpec
from transfer_platform.tensor_store.rows import Rows
from transfer_platform.tensor_store.store import Compute, Store

__all__ = [
    "ClearResult",
    "Compute",
    "RowSpec",
    "Rows",
    "Store",
    "StoreError",
    "StoreFullError",
    "StoreUnwritableError",
    "Usage",
    "clear",
    "usage",
]
