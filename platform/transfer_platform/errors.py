"""Exceptions of the platform that a user can fix.

TransferError                (transfer_model.errors)
├── ModelError               (transfer_model.errors) networks, weights, images
├── RegistryError, StorageError, LockHeldError       (transfer_registry.errors)
└── PlatformError
    ├── RecipeError          all problems of a recipe file, with their lines
    ├── DataError            images, labels and folder layout
    │   ├── SourceError      the data set cannot be found, downloaded or unpacked
    │   └── SplitError       train, validation and test cannot be formed
    ├── TrainingError        a trial cannot continue
    │   └── DivergedError    its loss is not finite
    └── StudyError           the search as a whole
"""

from collections.abc import Sequence
from dataclasses import dataclass

from transfer_model.errors import TransferError


class PlatformError(TransferError):
    """A recipe, its data or its training cannot be used."""


@dataclass(frozen=True)
class RecipeProblem:
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

    def __init__(self, problems: Sequence[RecipeProblem]) -> None:
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
