"""Which errors end a trial, and which end the study."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from transfer_model.errors import ModelError, UnreadableImageError
from transfer_platform.errors import DataError, DivergedError, TrainingError
from transfer_platform.training.failures import trial_failures


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ModelError("the backbone does not accept images of 32 pixels"), "step 2: the backbone does not accept"),
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
            "step 2: CUDA out of memory.*; set a smaller training.batch_size",
        ),
        (MemoryError("\n  9 TB are not available\nmore\n"), "step 2: 9 TB are not available; set a smaller"),
        (RuntimeError("CUDA error: out of memory\nmore"), "step 2: CUDA error: out of memory; set a smaller"),
        (MemoryError(), "step 2: MemoryError; set a smaller training.batch_size$"),
    ],
)
def test_an_error_that_depends_on_the_values_becomes_one_line_with_its_cause(error: Exception, message: str) -> None:
    with pytest.raises(TrainingError, match=message) as caught, trial_failures("step 2"):
        raise error
    assert caught.value.__cause__ is error


@pytest.mark.parametrize(
    "error",
    [
        UnreadableImageError("a.png is damaged", "damaged"),
        DataError("moved"),
        DivergedError(3, 1.0),
        KeyError(),
        RuntimeError("CUDA error: unspecified launch failure"),
        RuntimeError("CUDA error: an illegal memory access was encountered"),
        RuntimeError("shapes cannot be multiplied"),
        ValueError("too many values to unpack"),
    ],
)
def test_other_errors_pass(error: Exception) -> None:
    with pytest.raises(type(error)) as caught, trial_failures("step 2"):
        raise error
    assert caught.value is error


def test_batch_norm_on_one_image_names_the_remedy() -> None:
    with pytest.raises(TrainingError, match=r"set training\.batch_size to at least 2"), trial_failures("step 1"):
        nn.BatchNorm1d(4)(torch.ones(1, 4))


def test_nothing_to_train_is_an_error_of_the_trial() -> None:
    with pytest.raises(TrainingError, match="sgd: optimizer got an empty parameter list"), trial_failures("sgd"):
        torch.optim.SGD([])
