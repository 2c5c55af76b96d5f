"""Model configuration, stored in `model.json` next to `weights.safetensors`.

The JSON keys are the field names of `ModelConfig`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, is_dataclass
from inspect import Parameter, signature
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from .architecture import Architecture
from .errors import ModelError, cause
from .network import NetworkSpec
from .preprocessing import Preprocessing

CONFIG_FILE = "model.json"
WEIGHTS_FILE = "weights.safetensors"
FORMAT = 2
PRECISIONS = ("float32", "bfloat16", "float16")
MAX_OOD_SCORE = 2.0
"""Largest possible out-of-distribution score (a cosine distance); a threshold with this value flags no image."""

_T = TypeVar("_T")


@dataclass(frozen=True)
class OodThreshold:
    """Out-of-distribution score (0 to 2) above which images are flagged as unknown.

    `false_alarms` is the accepted fraction of in-distribution images with a score above the threshold.
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
    """Everything needed to build a classifier, except the weights.

    Attributes:
        classes: Class names in the order of the network's outputs.
        precision: `float32`, or the autocast dtype. It is stored with the model so that evaluation, promotion and
            serving compute identical results.
        temperature: Positive number by which the logits are divided before the softmax.
        format: File format version.

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
            raise ModelError(f"the config has format {self.format}, but this version only reads format {FORMAT}")
        if self.precision not in PRECISIONS:
            raise ModelError(f"precision must be one of {', '.join(PRECISIONS)}, but is {self.precision!r}")
        if not 0 < self.temperature < float("inf"):
            raise ModelError(f"temperature must be a number above 0, but is {self.temperature}")
        if len(set(self.classes)) != len(self.classes):
            raise ModelError("class names must be unique")
        if len(self.classes) != self.network.classes:
            raise ModelError(
                f"there are {len(self.classes)} class names for a network with {self.network.classes} classes"
            )

    def write(self, folder: Path) -> None:
        """Writes `model.json` to an existing folder."""
        (folder / CONFIG_FILE).write_text(json.dumps(self.to_json(), indent=2) + "\n", encoding="utf-8")

    def to_json(self) -> dict[str, Any]:
        """Returns the content of `model.json`."""
        return {**asdict(self), "network": self.network.to_json()}

    @classmethod
    def read(cls, folder: Path) -> ModelConfig:
        """Reads `model.json`, which must contain exactly the expected fields with the correct types.

        `preprocessing.intensity` may be missing, because models registered before the field was added do not have it.

        Raises:
            ModelError: The file does not exist, is not JSON, or is invalid; the message names the file and the field.
        """
        path = folder / CONFIG_FILE
        try:
            return _from_json(cls, json.loads(path.read_text(encoding="utf-8")), "config")
        except OSError as error:
            raise ModelError(f"{path} cannot be read: {cause(error)}") from error
        except ValueError as error:
            raise ModelError(f"{path} is not valid JSON: {error}") from error
        except ModelError as error:
            raise ModelError(f"{path}: {error}") from error


def _from_json(kind: Callable[..., _T], content: object, place: str) -> _T:
    """Builds a dataclass from parsed JSON; fields may be plain values, tuples or nested dataclasses."""
    hints = get_type_hints(kind)
    parameters = signature(kind).parameters.values()
    required = {each.name for each in parameters if each.default is Parameter.empty or each.name == "format"}
    if not isinstance(content, dict) or not required <= set(content) <= set(hints):
        raise ModelError(f"{place} must have exactly the fields {', '.join(hints)}")
    return kind(**{name: _value(hints[name], value, f"{place}.{name}") for name, value in content.items()})


def _value(hint: type, content: object, place: str) -> object:
    if get_origin(hint) is UnionType:
        if content is None:
            return None
        hint = next(part for part in get_args(hint) if part is not type(None))
    if hint is Architecture:
        return Architecture.from_json(content)
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
