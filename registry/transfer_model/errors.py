"""What can go wrong with a network, its weights, or an image.

ModelError
├── UnknownBackboneError     no library knows the name
├── UnknownStageError        the backbone has no such stage
├── WeightsError             a weights file is missing, unreadable, or belongs to another network
└── UnreadableImageError     bytes that are no picture, or one that is too large to open
"""

from __future__ import annotations


class ModelError(Exception):
    """Something that the user can mend; the message says what happened and how."""


class UnknownBackboneError(ModelError):
    """No library knows a backbone by this name; the message lists the nearest ones."""


class UnknownStageError(ModelError):
    """The backbone has no stage by this name; the message lists those it has."""


class WeightsError(ModelError):
    """A weights file is missing, unreadable, or belongs to another network."""


class UnreadableImageError(ModelError):
    """Bytes that are no picture in a supported format, are cut off, or unpack to too many pixels.

    Args:
        message: One sentence.
        kind: What is wrong in a word or two: `unreadable`, `empty`, `unsupported format`, `damaged`,
            `too many pixels` or `colour space`.
    """

    def __init__(self, message: str, kind: str) -> None:
        super().__init__(message)
        self.kind = kind
