"""Rows of one shape and type under string keys: computed once, kept on disk, shared by processes."""

from transfer_platform.store.errors import StoreError, StoreFullError, StoreUnwritableError
from transfer_platform.store.layout import Layout
from transfer_platform.store.rows import Rows
from transfer_platform.store.space import Cleared, Usage, clear, usage
from transfer_platform.store.store import Compute, Store

__all__ = [
    "Cleared",
    "Compute",
    "Layout",
    "Rows",
    "Store",
    "StoreError",
    "StoreFullError",
    "StoreUnwritableError",
    "Usage",
    "clear",
    "usage",
]
