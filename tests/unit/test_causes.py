"""Every message names its cause, also if an exception has no text or a first line that ends with a colon."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import OperationalError

from transfer_model.errors import cause
from transfer_platform.cli import describe_error
from transfer_registry.serving.smoke_test import _start_error

DOWNLOAD = (
    "The following failures occurred while downloading one or more artifacts from /studies/a:\n"
    "##### File weights.safetensors #####\n[Errno 28] No space left on device\n"
)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (RuntimeError(), "RuntimeError"),
        (RuntimeError(" \n "), "RuntimeError"),
        (RuntimeError("first\nsecond"), "first"),
        (RuntimeError("\n\nfirst"), "first"),
        (RuntimeError("It failed:\nno space"), "It failed: no space"),
        (RuntimeError("It failed:\n\n"), "It failed"),
        (OSError(), "OSError"),
        (OSError("decoder error -2"), "decoder error -2"),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/a"), "No space left on device"),
        (MemoryError(), "MemoryError"),
    ],
)
def test_the_cause_is_one_line_and_never_empty(error: Exception, text: str) -> None:
    assert cause(error) == text


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (MlflowException(""), "MLflow: MlflowException"),
        (
            MlflowException(DOWNLOAD),
            "MLflow: The following failures occurred while downloading one or more artifacts from /studies/a: "
            "##### File weights.safetensors ##### [Errno 28] No space left on device",
        ),
        (OperationalError("SELECT 1", {}, Exception()), "database error: Exception"),
        (OSError(errno.EACCES, "Permission denied", "/a"), "/a: Permission denied"),
        (OSError(), "OSError"),
    ],
)
def test_the_command_line_names_the_cause(error: Exception, text: str) -> None:
    assert describe_error(error) == text


@pytest.mark.parametrize(
    ("names", "place"), [(("/from",), "/from"), (("/from", None, "/to"), "/to"), ((), "the current folder or ")]
)
def test_a_full_disk_is_named_by_the_file_that_was_written(names: tuple[str | None, ...], place: str) -> None:
    message = describe_error(OSError(errno.ENOSPC, "No space left on device", *names))
    assert message is not None
    assert message.startswith(place)
    assert "cannot be written: No space left on device; free some space, or set TMPDIR" in message


class Ended:
    """A server that ended with status 1."""

    def poll(self) -> int:
        return 1


@pytest.mark.parametrize("output", ["", "\n"])
def test_a_server_without_output_does_not_end_the_message_with_a_colon(output: str) -> None:
    message = str(_start_error(Ended(), "models:/a/1", output))  # type: ignore[arg-type]
    assert "exited with status 1 and wrote no output; if" in message
    assert message.endswith("set TMPDIR to a folder on another disk")


def test_messages_do_not_depend_on_the_text_of_an_exception() -> None:
    roots = [Path(__file__).parents[2] / root for root in ("platform", "registry")]
    for file in (file for root in roots for file in root.rglob("*.py")):
        text = file.read_text(encoding="utf-8")
        assert "{error.strerror" not in text, f"{file}: use `cause(error)`; strerror may be None"
        assert "splitlines()[0]" not in text, f"{file}: use `cause(error)`; there may be no line"
