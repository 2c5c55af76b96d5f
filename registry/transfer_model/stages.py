"""Counts the stages that a stage name freezes, from names alone."""

from collections.abc import Sequence

from .errors import UnknownStageError, suggestion

NONE = "none"
ALL = "all"


def count_through(stages: Sequence[str], stage: str) -> int:
    """Returns the number of stages from the input up to and including a named one, 0 for `none`.

    Args:
        stages: Names in execution order, as in `Network.stages`.
        stage: One of the names, `none`, `all`, or a common prefix: `layer1` is the last of `layer1.0` and `layer1.1`.

    Raises:
        UnknownStageError: No stage has this name; the message lists all stages.
    """
    if stage == NONE:
        return 0
    if stage == ALL:
        return len(stages)
    matches = [index for index, name in enumerate(stages) if name == stage or name.startswith(f"{stage}.")]
    if not matches:
        raise UnknownStageError(
            f"unknown stage {stage!r}{suggestion(stage, [*stages, NONE, ALL])}; the stages from input to "
            f"output are: none, {', '.join(stages)}, all"
        )
    return matches[-1] + 1
