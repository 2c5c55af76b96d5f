"""Stages by name: the places, from the input to the head, up to which a backbone can be frozen.

Nothing here needs a network in memory: plans are made from names alone.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from .errors import UnknownStageError

if TYPE_CHECKING:
    from collections.abc import Sequence

NONE = "none"
ALL = "all"


def count_through(stages: Sequence[str], stage: str) -> int:
    """Counts the stages from the input up to and including the one that is named.

    Args:
        stages: Names in execution order, such as `Network.stages` or those of an `BackboneInfo`.
        stage: One of them; a beginning that several share, such as `layer1` for `layer1.0` and `layer1.1`,
            which means through the last of them; `none` or `all`.

    Returns:
        How many stages that freezes, 0 for `none`.

    Raises:
        UnknownStageError: No stage has this name; the message lists those there are.
    """
    if stage == NONE:
        return 0
    if stage == ALL:
        return len(stages)
    matches = [index for index, name in enumerate(stages) if name == stage or name.startswith(f"{stage}.")]
    if not matches:
        raise UnknownStageError(_unknown(stages, stage))
    return matches[-1] + 1


def _unknown(stages: Sequence[str], stage: str) -> str:
    nearest = difflib.get_close_matches(stage, [*stages, NONE, ALL], n=1)
    hint = f" (did you mean {nearest[0]!r}?)" if nearest else ""
    return (
        f"there is no stage {stage!r}{hint}; there are, from input to output: none, {', '.join(stages)}, all"
    )
