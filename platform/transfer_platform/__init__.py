"""Transfer learning from a recipe to a served model.

    outcome = transfer_platform.run("recipes/ants_bees.yaml")

Importing the package is cheap; `run` imports torch and MLflow on its first call.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transfer_platform.commands.outcome import Outcome
    from transfer_platform.commands.run import run

__all__ = ["Outcome", "run"]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - whichever of the two
    if name in __all__:
        from transfer_platform.commands import run

        return getattr(run, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
