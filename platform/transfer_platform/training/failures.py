"""Errors caused by a trial's hyperparameters; they end only that trial."""

from collections.abc import Iterator
from contextlib import contextmanager

from transfer_model.errors import ModelError, UnreadableImageError, cause
from transfer_platform.errors import TrainingError, is_out_of_memory

_BATCH_OF_ONE = "Expected more than 1 value per channel when training"
_NOTHING_TO_TRAIN = "optimizer got an empty parameter list"


SMALLER_IMAGES = "set a smaller dataset.image_size, or use another device"
"""Remedy for a lack of memory that does not depend on the batch size of the trial."""


@contextmanager
def trial_failures(context: str, memory_remedy: str = "set a smaller training.batch_size") -> Iterator[None]:
    """Converts errors caused by a trial's hyperparameters, such as its batch size, into a `TrainingError`.

    This applies to `ModelError` (except for unreadable images), out-of-memory errors, and PyTorch's errors about batch
    norm on a single image and about networks without trainable parameters. Other errors are propagated and end the
    study: after a GPU or driver fault, all later trials in this process would fail, but a new process can run them.

    Args:
        context: Beginning of the message, such as `step 3`.
        memory_remedy: End of the message about a lack of memory.
    """
    try:
        yield
    except Exception as error:
        if not _depends_on_values(error):
            raise
        raise TrainingError(f"{context}: {_reason(error, memory_remedy)}") from error


def _depends_on_values(error: Exception) -> bool:
    if isinstance(error, ModelError):
        return not isinstance(error, UnreadableImageError)
    if isinstance(error, ValueError):
        return any(message in str(error) for message in (_BATCH_OF_ONE, _NOTHING_TO_TRAIN))
    return is_out_of_memory(error)


def _reason(error: Exception, memory_remedy: str) -> str:
    """Returns the cause of an error, with a remedy if there is one."""
    first = cause(error)
    if _BATCH_OF_ONE in first:
        return (
            "batch norm cannot be trained on a batch of one image; set training.batch_size to at least 2, "
            "or freeze all stages (backbone.freeze_through: all)"
        )
    return f"{first}; {memory_remedy}" if is_out_of_memory(error) else first
