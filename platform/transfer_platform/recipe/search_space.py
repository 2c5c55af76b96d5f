"""Base class of sections, numbers, search ranges, and fields that accept ranges."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator
from typing_extensions import TypeAliasType

T = TypeVar("T")

Fraction = Annotated[float, Field(gt=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Probability = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1)]

MODEL_CONFIG = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True)
"""Pydantic configuration for all recipe models: immutable, no unknown fields, no type coercion."""


class Section(BaseModel):
    """Base class of all sections, which are immutable and reject undeclared fields."""

    model_config = MODEL_CONFIG


class Range(BaseModel, Generic[T]):
    """Numbers from `low` to `high`, inclusive."""

    model_config = MODEL_CONFIG

    low: T
    """Smallest value."""

    high: T
    """Largest value."""

    step: T | None = None
    """Distance between values. If unset, floats are continuous and whole numbers use a step of 1."""

    log: bool = False
    """Samples on a logarithmic scale, so that values from 1e-4 to 1e-3 are as likely as values from 1e-3 to 1e-2."""

    def __repr_name__(self) -> str:
        return "Range"

    @model_validator(mode="after")
    def _check_bounds(self) -> Range[T]:
        low, high, step = _number(self.low), _number(self.high), self.step
        if low > high:
            raise ValueError(f"low must not exceed high, but got low={low} and high={high}")
        if self.log and low <= 0:
            raise ValueError(f"a range with log: true requires low > 0, but got low={low}")
        if self.log and step is not None:
            raise ValueError("a range can have either a step or log: true, but not both")
        if step is not None and not 0 < _number(step) <= max(high - low, _number(step)):
            raise ValueError(f"step must be greater than 0, but got step={step}")
        return self


class Choice(BaseModel, Generic[T]):
    """A list of values to choose from."""

    model_config = MODEL_CONFIG

    choices: tuple[T, ...] = Field(min_length=1, strict=False)
    """Values to choose from; must contain at least one value and no duplicates."""

    def __repr_name__(self) -> str:
        return "Choice"

    @model_validator(mode="after")
    def _check_unique(self) -> Choice[T]:
        if len(set(self.choices)) < len(self.choices):
            raise ValueError(f"choices must be unique, but got {list(self.choices)}")
        return self


Space = Mapping[str, Range[Any] | Choice[Any]]
"""Search space of a study: ranges and choices, keyed by dotted field path."""


def combination_count(space: Space) -> float:
    """Returns the number of combinations of values in a search space; infinity if a range is continuous."""
    return math.prod(map(_value_count, space.values()))


def _value_count(span: Range[Any] | Choice[Any]) -> float:
    if isinstance(span, Choice):
        return len(span.choices)
    step = span.step or (1 if isinstance(span.low, int) and isinstance(span.high, int) else None)
    return math.inf if step is None else 1 + math.floor((span.high - span.low) / step + 1e-9)


def largest(value: Any) -> Any:  # noqa: ANN401 - any field type
    """Returns the largest value a field can take: its value, the upper bound of its range, or its largest choice."""
    if isinstance(value, Choice):
        return max(value.choices)
    return value.high if isinstance(value, Range) else value


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"range values must be numbers, but got {value!r}; for other types, use choices: [...]")
    return value


def _tag(value: Any) -> str:  # noqa: ANN401 - any YAML value
    if isinstance(value, Choice) or (isinstance(value, Mapping) and "choices" in value):
        return "choices"
    if isinstance(value, Range | Mapping):
        return "range"
    return "value"


if TYPE_CHECKING:
    # Recipes are resolved before their values are read, so type checkers can treat a searchable float as a float.
    Searchable = Annotated[T, "searchable"]
    Option = Annotated[T, "searchable"]
else:
    Searchable = TypeAliasType(
        "Searchable",
        Annotated[
            Annotated[T, Tag("value")] | Annotated[Range[T], Tag("range")] | Annotated[Choice[T], Tag("choices")],
            Discriminator(_tag),
        ],
        type_params=(T,),
    )
    Option = TypeAliasType(
        "Option",
        Annotated[
            Annotated[T, Tag("value")] | Annotated[Choice[T], Tag("choices")],
            Discriminator(lambda value: "value" if _tag(value) == "value" else "choices"),
        ],
        type_params=(T,),
    )
"""`Searchable[T]` accepts a value, a `Range` or a `Choice`; `Option[T]` accepts a value or a `Choice`."""
