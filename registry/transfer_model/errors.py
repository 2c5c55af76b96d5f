"""Exceptions for problems with networks, weights and images."""

import difflib
from collections.abc import Sequence


class TransferError(Exception):
    """Error that the user can fix. The message says what happened, what was expected and what to do."""


class ModelError(TransferError):
    """A network, its weights or an image cannot be used."""


class UnknownBackboneError(ModelError):
    """No library has a backbone with this name; the message suggests similar names."""


class BackboneOptionError(ModelError):
    """The options of a backbone are invalid; the message lists valid options or values.

    Args:
        message: Error message, one sentence.
        option: Name of the invalid option; empty if several options contradict each other.
    """

    def __init__(self, message: str, option: str = "") -> None:
        super().__init__(message)
        self.option = option


class UnknownStageError(ModelError):
    """The backbone has no stage with this name; the message lists its stages."""


class WeightsError(ModelError):
    """A weights file is missing or unreadable, or belongs to another network."""


class UnreadableImageError(ModelError):
    """An image is unreadable, corrupt or too large, or has an unsupported format or color space.

    Args:
        message: Error message, one sentence.
        kind: `unreadable`, `empty`, `unsupported format`, `damaged`, `too many pixels` or `color space`.
    """

    def __init__(self, message: str, kind: str) -> None:
        super().__init__(message)
        self.kind = kind


def cause(error: BaseException) -> str:
    """Returns the message of an exception on one line, or the name of the exception type if there is no message.

    For an `OSError`, the error number and the file name are left out. Only the first line of the message is used;
    if it ends with a colon, as in "The following failures occurred:", the next line is added.
    """
    text = getattr(error, "strerror", None) or str(error)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    last = next((number for number, line in enumerate(lines) if not line.endswith((":", "#"))), len(lines))
    return " ".join(lines[: last + 1]).rstrip(": ") or type(error).__name__


def suggestion(name: str, known: Sequence[str]) -> str:
    """Returns ` (did you mean 'x'?)` with the most similar known name, or an empty string."""
    nearest = difflib.get_close_matches(name, known, n=1)
    return f" (did you mean {nearest[0]!r}?)" if nearest else ""
