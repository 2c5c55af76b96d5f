"""Configuration of a model, stored as `model.json` beside `weights.safetensors`.

The keys of the JSON are the fields of `ModelConfig`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from .errors import ModelError
from .network import NetworkSpec
from .preprocessing import Preprocessing

CONFIG_FILE = "model.json"
WEIGHTS_FILE = "weights.safetensors"
FORMAT = 2
PRECISIONS = ("float32", "bfloat16", "float16")
MAX_OOD_SCORE = 2.0
"""Largest possible out-of-distribution score, a cosine distance; as a threshold it flags no image."""

_T = TypeVar("_T")


@dataclass(frozen=True)
class OodThreshold:
    """Images with a higher out-of-distribution score than `threshold` (0 to 2) are flagged as unknown.

    `false_alarms` is the accepted fraction of in-distribution images above the threshold.
    """

    threshold: float
    false_alarms: float

    def __post_init__(self) -> None:
        if not 0 <= self.threshold <= MAX_OOD_SCORE:
            raise ModelError(f"unknown.threshold must be a number from 0 to {MAX_OOD_SCORE:g}, but is {self.threshold}")
        if not 0 < self.false_alarms < 1:
            raise ModelError(f"unknown.false_alarms must be a fraction above 0 and below 1, but is {self.false_alarms}")


@dataclass(frozen=True)
class ModelConfig:
    """Everything except the weights that a classifier is built from.

    Attributes:
        classes: Class names in the order of the network's outputs.
        precision: `float32`, or the dtype of autocast. It belongs to the model, so that evaluation, promotion and
            serving compute the same numbers.
        temperature: Divisor of the logits before the softmax, above 0.
        format: Version of the file format.

    Raises:
        ModelError: A field is invalid, or the fields are inconsistent.
    """

    network: NetworkSpec
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    precision: str
    temperature: float
    unknown: OodThreshold
    format: int = FORMAT

    def __post_init__(self) -> None:
        if self.format != FORMAT:
            raise ModelError(f"the config has format {self.format}, but this version reads {FORMAT}")
        if self.precision not in PRECISIONS:
            raise ModelError(f"precision must be one of {', '.join(PRECISIONS)}, but is {self.precision!r}")
        if not 0 < self.temperature < float("inf"):
            raise ModelError(f"temperature must be a number above 0, but is {self.temperature}")
        if len(set(self.classes)) != len(self.classes):
            raise ModelError("class names must be unique")
        if len(self.classes) != self.network.classes:
            raise ModelError(
                f"there are {len(self.classes)} class names for a network of {self.network.classes} classes"
            )

    def write(self, folder: Path) -> None:
        """Writes `model.json` into an existing folder."""
        (folder / CONFIG_FILE).write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> ModelConfig:
        """Reads `model.json`; requires every field with its type, and no others.

        Raises:
            ModelError: The file does not exist, is not JSON, or is invalid; the message names file and field.
        """
        path = folder / CONFIG_FILE
        try:
            return _from_json(cls, json.loads(path.read_text(encoding="utf-8")), "config")
        except OSError as error:
            raise ModelError(f"{path} cannot be read: {error.strerror}") from error
        except ValueError as error:
            raise ModelError(f"{path} is not JSON: {error}") from error
        except ModelError as error:
            raise ModelError(f"{path}: {error}") from error


def _from_json(kind: Callable[..., _T], content: object, place: str) -> _T:
    """Builds a dataclass from JSON; fields are plain values, tuples of them, or dataclasses."""
    hints = get_type_hints(kind)
    if not isinstance(content, dict) or set(content) != set(hints):
        raise ModelError(f"{place} must have exactly the fields {', '.join(hints)}")
    return kind(**{name: _value(hint, content[name], f"{place}.{name}") for name, hint in hints.items()})


def _value(hint: type, content: object, place: str) -> object:
    if is_dataclass(hint):
        return _from_json(hint, content, place)
    if get_origin(hint) is tuple:
        return _tuple(get_args(hint), content, place)
    if hint is float and type(content) is int:
        return float(content)
    if type(content) is not hint:
        raise ModelError(f"{place} must be of type {hint.__name__}, but is {type(content).__name__}")
    return content


def _tuple(hints: tuple[Any, ...], content: object, place: str) -> tuple[object, ...]:
    if not isinstance(content, list):
        raise ModelError(f"{place} must be a list, but is {type(content).__name__}")
    if Ellipsis in hints:
        hints = (hints[0],) * len(content)
    if len(content) != len(hints):
        raise ModelError(f"{place} must have {len(hints)} items, but has {len(content)}")
    return tuple(_value(hint, content[index], f"{place}[{index}]") for index, hint in enumerate(hints))
