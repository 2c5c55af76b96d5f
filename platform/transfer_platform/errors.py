"""What can go wrong, as far as a user can mend it.

    PlatformError                everything the command line prints without a traceback
    ├── RecipeError              the recipe file: all of its problems at once, with their lines
    ├── DataError                the images and how they are laid out
    │   ├── SourceError          the data set cannot be fetched or unpacked
    │   └── SplitError           train, validation and test cannot be made from it
    ├── TrainingError            a trial cannot go on
    │   └── DivergedError        its loss is not a number any more
    ├── StudyError               the search as a whole
    │   └── StudyHeldError       another process is running this study
    ├── StorageError             databases, folders and servers that do not fit together
    └── RegistryError            registering, gating, promoting, loading a registered model

`transfer_model.errors.ModelError` stands beside this tree, not in it: that package travels inside every
registered model and knows nothing of the platform. The command line prints both alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class PlatformError(Exception):
    """Something that the user can mend; the message says what happened, what was expected, and how."""


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a recipe.

    Attributes:
        place: Where it stands, as `recipes/a.yaml:12` or `-o training.epochs=x`.
        field: The dotted name of the field, `training.epochs`; empty for the file as a whole.
        message: The rule that was broken, the value that broke it, and the nearest valid one.
    """

    place: str
    field: str
    message: str

    def __str__(self) -> str:
        field = f"{self.field}: " if self.field else ""
        return f"{self.place}: {field}{self.message}"


class RecipeError(PlatformError):
    """A recipe that cannot be used; carries every problem that was found.

    Args:
        problems: At least one, in the order of the file.
    """

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class DataError(PlatformError):
    """The images, their labels, or how they are laid out."""


class SourceError(DataError):
    """A data set (or a weights file) that cannot be found, fetched, verified or unpacked."""


class SplitError(DataError):
    """Train, validation and test cannot be made from what is there."""


class TrainingError(PlatformError):
    """A trial that cannot go on."""


class DivergedError(TrainingError):
    """The loss stopped being a finite number.

    Args:
        step: Optimizer step at which it appeared, counted from 1 over the whole trial.
        loss: The value, `nan` or infinite.
    """

    def __init__(self, step: int, loss: float) -> None:
        self.step = step
        super().__init__(
            f"the training loss became {loss} at step {step}; "
            "a lower training.learning_rate, training.warmup_epochs or precision: float32 usually mend it"
        )


class StudyError(PlatformError):
    """The search as a whole."""


class StudyHeldError(StudyError):
    """Another process is running this study; the message names it."""


class StorageError(PlatformError):
    """Databases, folders and servers that do not fit together."""


class RegistryError(PlatformError):
    """Registering, gating, promoting or loading a registered model."""


class ChampionMovedError(RegistryError):
    """Somebody else has moved the champion while a move was being decided."""
