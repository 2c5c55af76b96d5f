"""Converts a stage name to the number of stages to freeze."""

from collections.abc import Sequence

from .errors import UnknownStageError, suggestion

NONE = "none"
ALL = "all"


def count_through(stages: Sequence[str], stage: str) -> int:
    """Returns the number of stages from the input up to and including `stage`; 0 for `none`.

    Args:
        stages: Stage names in execution order, as in `Network.stages`.
        stage: Stage name, `none`, `all` or a prefix. `layer1` selects the last stage whose name starts with `layer1.`

    Raises:
        UnknownStageError: No stage has this name or prefix; the message lists all stages.
    """
    if stage == NONE:
        return 0
    if stage == ALL:
        return len(stages)
    matches = [index for index, name in enumerate(stages) if name == stage or name.startswith(f"{stage}.")]
    if not matches:
        raise UnknownStageError(
            f"unknown stage {stage!r}{suggestion(stage, [*stages, NONE, ALL])}; expected one of these, "
            f"from input to output: none, {', '.join(stages)}, all"
        )
    return matches[-1] + 1
