"""Errors that depend on the values of a trial, and therefore end only this trial."""

from collections.abc import Iterator
from contextlib import contextmanager

from transfer_model.errors import ModelError, UnreadableImageError, cause
from transfer_platform.errors import TrainingError, is_out_of_memory

_BATCH_OF_ONE = "Expected more than 1 value per channel when training"


@contextmanager
def trial_failures(context: str) -> Iterator[None]:
    """Raises a `TrainingError` for any error that depends on a trial's values, such as its batch size or backbone.

    The block should contain only computations, because errors in files, images and databases concern all trials.

    Args:
        context: Beginning of the message, such as `step 3`.
    """
    try:
        yield
    except UnreadableImageError:
        raise
    except (ModelError, RuntimeError, ValueError) as error:
        raise TrainingError(f"{context}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """Returns the cause of an error, with a remedy if there is one."""
    first = cause(error)
    if _BATCH_OF_ONE in first:
        return (
            "batch norm cannot be trained on a batch of one image; set training.batch_size to at least 2, "
            "or freeze all stages (backbone.freeze_through: all)"
        )
    return f"{first}; set a smaller training.batch_size" if is_out_of_memory(error) else first
