"""Platform exceptions for errors that the user can fix.

TransferError                (transfer_model.errors)
├── ModelError               (transfer_model.errors) networks, weights, images
├── RegistryError, StorageError, LockHeldError       (transfer_registry.errors)
└── PlatformError
    ├── RecipeError          all problems in a recipe file, with line numbers
    ├── DataError            images, labels, folder layout
    │   ├── MetadataError    the metadata file of an image folder cannot be used
    │   ├── SourceError      a dataset or weights file cannot be found, downloaded, verified or unpacked
    │   └── SplitError       the splits cannot be formed from the images
    ├── TrainingError        a trial cannot continue
    │   └── DivergedError    the training loss is not finite
    └── StudyError           a study cannot run
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from transfer_model.errors import TransferError

_OUT_OF_MEMORY = re.compile(
    r"out of memory|(can't|cannot) allocate memory|not enough memory|bad_alloc|bad allocation"
    r"|alloc(ation)?_?failed|unable to find an engine",
    re.IGNORECASE,
)
"""Out-of-memory messages from PyTorch, CUDA, cuBLAS, cuDNN, cuSOLVER, MIOpen and the C++ standard library.

cuDNN also reports "unable to find an engine" if every algorithm needs more workspace than there is free memory.
"""


def is_out_of_memory(error: BaseException) -> bool:
    """Returns whether an error was caused by a lack of memory, which PyTorch often reports as a plain RuntimeError."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and _OUT_OF_MEMORY.search(str(error)) is not None


class PlatformError(TransferError):
    """Base class for errors in recipes, data and training."""


@dataclass(frozen=True)
class RecipeProblem:
    """A problem in a recipe.

    Attributes:
        place: Location of the problem, such as `recipes/a.yaml:12` or `-o training.epochs=x`.
        field: Dotted field name, such as `training.epochs`; empty if the problem concerns the whole file.
        message: The violated rule, the offending value, and the nearest valid value.
    """

    place: str
    field: str
    message: str

    def __str__(self) -> str:
        field = f"{self.field}: " if self.field else ""
        return f"{self.place}: {field}{self.message}"


class RecipeError(PlatformError):
    """A recipe is invalid; `problems` lists one or more problems in file order."""

    def __init__(self, problems: Sequence[RecipeProblem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class DataError(PlatformError):
    """Images, labels or the folder layout cannot be used."""


class MetadataError(DataError):
    """The metadata files of an image folder cannot be used.

    Attributes:
        names: Paths of the metadata files relative to the dataset's folder, as in `dataset.exclude`.
        reason: The error message without the path of the file; of several errors, the first.
    """

    def __init__(self, error: str, path: Path, names: Sequence[str]) -> None:
        self._first, _, self._lines = error.partition("\n")
        self.names = tuple(names)
        self.reason = self._first.partition(f"{path} ")[2].partition(";")[0] or self._first
        remedy = "to use the class folders instead, list this file in dataset.exclude"
        if self._lines:
            first, _, _ = self._lines.partition("\n")
            self.reason += f", such as {first.strip()}"
            remedy = "correct them, or list the file in dataset.exclude"
        super().__init__(self.with_remedy(remedy))

    def with_remedy(self, remedy: str) -> str:
        """Returns the message with another remedy in its first line."""
        return f"{self._first}; {remedy}" + (f":\n{self._lines}" if self._lines else "")


class SourceError(DataError):
    """A dataset or weights file cannot be found, downloaded, verified or unpacked."""


class SplitError(DataError):
    """Training, validation and test splits cannot be formed from the images."""


class TrainingError(PlatformError):
    """A trial cannot continue."""


class DivergedError(TrainingError):
    """The training loss is not finite; `step` is the optimizer step, counted from 1 across all epochs."""

    def __init__(self, step: int, loss: float) -> None:
        self.step = step
        super().__init__(
            f"the training loss became {loss} at step {step}; "
            "try a lower training.learning_rate, more training.warmup_epochs or precision: float32"
        )


class StudyError(PlatformError):
    """A study cannot run."""
