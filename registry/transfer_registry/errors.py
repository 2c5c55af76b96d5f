"""Registry exceptions for errors that the user can fix.

TransferError
├── RegistryError
│   └── ChampionMovedError
├── StorageError
│   └── DatabaseInUseError
└── LockHeldError
"""

from transfer_model.errors import TransferError


class RegistryError(TransferError):
    """Registering, judging, promoting or loading a model failed."""


class ChampionMovedError(RegistryError):
    """Another process changed the champion while this promotion or rollback was being prepared."""


class StorageError(TransferError):
    """A file, folder, database or server cannot be used."""


class DatabaseInUseError(StorageError):
    """A database must be changed before this process can use it, but another process is using the database."""


class LockHeldError(TransferError):
    """Another process, identified in the message, holds the lock."""
