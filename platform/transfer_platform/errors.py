"""Exceptions of the platform that a user can fix.

TransferError                (transfer_model.errors)
├── ModelError               (transfer_model.errors) networks, weights, images
├── RegistryError, StorageError, LockHeldError       (transfer_registry.errors)
└── PlatformError
    ├── RecipeError          all problems of a recipe file, with their lines
    ├── DataError            images, labels, folder layout
    │   ├── SourceError      a dataset or weights file cannot be found, fetched, verified or unpacked
    │   └── SplitError       the splits cannot be formed from the images
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
    """A problem in a recipe.

    Attributes:
        place: Its location, such as `recipes/a.yaml:12` or `-o training.epochs=x`.
        field: Dotted name of the field, such as `training.epochs`; empty for the file as a whole.
        message: The broken rule, the value that broke it, and the nearest valid value.
    """

    place: str
    field: str
    message: str

    def __str__(self) -> str:
        field = f"{self.field}: " if self.field else ""
        return f"{self.place}: {field}{self.message}"


class RecipeError(PlatformError):
    """A recipe cannot be used; `problems` has at least one entry, in the order of the file."""

    def __init__(self, problems: Sequence[RecipeProblem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class DataError(PlatformError):
    """Images, labels or the folder layout cannot be used."""


class SourceError(DataError):
    """A dataset or weights file cannot be found, fetched, verified or unpacked."""


class SplitError(DataError):
    """Training, validation and test splits cannot be formed from the images."""


class TrainingError(PlatformError):
    """A trial cannot continue."""


class DivergedError(TrainingError):
    """The loss is not finite; `step` is the optimizer step, counted from 1 over the whole trial."""

    def __init__(self, step: int, loss: float) -> None:
        self.step = step
        super().__init__(
            f"the training loss became {loss} at step {step}; "
            "a lower training.learning_rate, training.warmup_epochs or precision: float32 usually fixes this"
        )


class StudyError(PlatformError):
    """The search as a whole cannot run."""
