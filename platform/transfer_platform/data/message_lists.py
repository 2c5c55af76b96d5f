"""Shortens the lists of files, rows, groups and classes in messages."""

from collections.abc import Sequence

_MAX_LINES = 20
_MAX_NAMES = 10


def join_lines(lines: Sequence[str]) -> str:
    """Joins the first 20 lines. If there are more, appends a line with the number of remaining lines."""
    more = [f"  ... and {len(lines) - _MAX_LINES} more"] if len(lines) > _MAX_LINES else []
    return "\n".join([*lines[:_MAX_LINES], *more])


def join_classes(labels: Sequence[str]) -> str:
    """Joins the first ten class names. If there are more, appends the number of remaining classes."""
    more = f" and {len(labels) - _MAX_NAMES} more" if len(labels) > _MAX_NAMES else ""
    return ", ".join(map(repr, labels[:_MAX_NAMES])) + more
