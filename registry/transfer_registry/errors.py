"""Exceptions of the registry that a user can fix.

TransferError
├── RegistryError            registering, judging, promoting or loading a model failed
│   └── ChampionMovedError   another process moved the champion at the same time
├── StorageError             a database, folder or server is missing, unreachable or in conflict
└── LockHeldError            another process holds a lock
"""

from transfer_model.errors import TransferError


class RegistryError(TransferError):
    """A model cannot be registered, judged by the gate, promoted or loaded."""


class ChampionMovedError(RegistryError):
    """Another process moved the champion while this move was being decided."""


class StorageError(TransferError):
    """A database, folder or server is missing, unreachable, or conflicts with another one."""


class LockHeldError(TransferError):
    """Another process holds the lock; the message names it."""
