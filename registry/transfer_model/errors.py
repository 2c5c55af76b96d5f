"""Exceptions about networks, weights and images.

TransferError                base of every error that a user can fix
└── ModelError
    ├── UnknownBackboneError     no library has a backbone of this name
    ├── UnknownStageError        the backbone has no such stage
    ├── WeightsError             a weights file is missing, unreadable, or belongs to another network
    └── UnreadableImageError     the bytes are not an image, or the image is too large to decode
"""

from __future__ import annotations


class TransferError(Exception):
    """An error that the user can fix. The message says what happened, what was expected and what to do."""


class ModelError(TransferError):
    """A network, its weights or an image cannot be used."""


class UnknownBackboneError(ModelError):
    """No library knows a backbone by this name; the message lists the nearest ones."""


class UnknownStageError(ModelError):
    """The backbone has no stage by this name; the message lists those it has."""


class WeightsError(ModelError):
    """A weights file is missing, unreadable, or belongs to another network."""


class UnreadableImageError(ModelError):
    """Bytes that are no image in a supported format, are cut off, or unpack to too many pixels.

    Args:
        message: One sentence.
        kind: What is wrong in a word or two: `unreadable`, `empty`, `unsupported format`, `damaged`,
            `too many pixels` or `colour space`.
    """

    def __init__(self, message: str, kind: str) -> None:
        super().__init__(message)
        self.kind = kind
