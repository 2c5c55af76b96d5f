"""Exceptions of the registry that a user can fix.

TransferError
├── RegistryError
│   └── ChampionMovedError
├── StorageError
└── LockHeldError
"""

from transfer_model.errors import TransferError


class RegistryError(TransferError):
    """Registering, judging, promoting or loading a model failed."""


class ChampionMovedError(RegistryError):
    """Another process moved the champion while this move was being decided."""


class StorageError(TransferError):
    """A database, folder or server is missing, unreachable, or conflicts with another one."""


class LockHeldError(TransferError):
    """Another process holds the lock; the message names it."""
