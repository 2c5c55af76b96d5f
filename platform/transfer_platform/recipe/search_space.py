"""Where a value may stand in a recipe, a range may stand: `Range`, `Choice`, and the type that admits them.

Only `recipe.schema` declares fields with `Searchable`; `recipe.space` is what reads the ranges back.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator
from typing_extensions import TypeAliasType

T = TypeVar("T")


class Range(BaseModel, Generic[T]):
    """Numbers from `low` to `high`, both included."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )

    low: T
    """Smallest value."""

    high: T
    """Largest value."""

    step: T | None = None
    """Distance between neighbours; without it floats are continuous and whole numbers have step 1."""

    log: bool = False
    """Search the logarithm: as many trials between 1e-4 and 1e-3 as between 1e-3 and 1e-2."""

    def __repr_name__(self) -> str:
        return "Range"

    @model_validator(mode="after")
    def _bounds_are_ordered(self) -> Range[T]:
        low, high, step = _number(self.low), _number(self.high), self.step
        if low > high:
            raise ValueError(f"low <= high must hold, but got low={low} and high={high}")
        if self.log and low <= 0:
            raise ValueError(f"a range with log: true needs low > 0, but got low={low}")
        if self.log and step is not None:
            raise ValueError("a range has either a step or log: true, not both")
        if step is not None and not 0 < _number(step) <= max(high - low, _number(step)):
            raise ValueError(f"step > 0 must hold, but got step={step}")
        return self


class Choice(BaseModel, Generic[T]):
    """One of a few values."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )

    choices: tuple[T, ...] = Field(min_length=1, strict=False)
    """The values, at least one, none twice."""

    def __repr_name__(self) -> str:
        return "Choice"

    @model_validator(mode="after")
    def _choices_differ(self) -> Choice[T]:
        if len(set(self.choices)) < len(self.choices):
            raise ValueError(f"every choice may stand once, but got {list(self.choices)}")
        return self


Space = Mapping[str, Range[Any] | Choice[Any]]
"""What a study varies: the dotted field of the recipe, and its range."""


def largest(value: Any) -> Any:  # noqa: ANN401 - of whatever kind the field is
    """The largest value that a field may have, from its value, its range or its choices."""
    if isinstance(value, Choice):
        return max(value.choices)
    return value.high if isinstance(value, Range) else value


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"a range holds numbers, but got {value!r}; for other values write choices: [...]")
    return value


def _kind(value: Any) -> str:  # noqa: ANN401 - pydantic hands in whatever stood in the file
    if isinstance(value, Choice) or (isinstance(value, Mapping) and "choices" in value):
        return "choices"
    if isinstance(value, Range | Mapping):
        return "range"
    return "value"


if TYPE_CHECKING:
    # A recipe is resolved before anything reads its values; from then on a searchable float is a float.
    Searchable = Annotated[T, "searchable"]
    Option = Annotated[T, "searchable"]
else:
    Searchable = TypeAliasType(
        "Searchable",
        Annotated[
            Annotated[T, Tag("value")]
            | Annotated[Range[T], Tag("range")]
            | Annotated[Choice[T], Tag("choices")],
            Discriminator(_kind),
        ],
        type_params=(T,),
    )
    Option = TypeAliasType(
        "Option",
        Annotated[
            Annotated[T, Tag("value")] | Annotated[Choice[T], Tag("choices")],
            Discriminator(lambda value: "value" if _kind(value) == "value" else "choices"),
        ],
        type_params=(T,),
    )
"""`Searchable[T]` admits a value, a `Range` or a `Choice`; `Option[T]` a value or a `Choice`."""
