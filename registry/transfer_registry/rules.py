"""Rules of the promotion gate, as written in a recipe."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

_DIGITS = ".15g"
"""A verdict is reused while the texts of its rules are equal, so different rules need different texts."""

Confidence = Annotated[float, Field(gt=0.5, lt=1)]
"""At one half or below, two models could each be better than the other."""


class _BaseRule(BaseModel):
    """Immutable model without undeclared fields."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


class Threshold(_BaseRule):
    """Bounds of a metric, at least one of them."""

    at_least: float | None = None
    """Smallest value that passes."""

    at_most: float | None = None
    """Largest value that passes."""

    @model_validator(mode="after")
    def _require_bound(self) -> Threshold:
        if self.at_least is None and self.at_most is None:
            raise ValueError("a threshold needs at_least or at_most")
        return self

    def describe(self, name: str) -> str:
        """Returns the rule as text: `test/accuracy >= 0.9`."""
        lower = [] if self.at_least is None else [f">= {self.at_least:{_DIGITS}}"]
        upper = [] if self.at_most is None else [f"<= {self.at_most:{_DIGITS}}"]
        return f"{name} {' and '.join(lower + upper)}"


class OverChampion(_BaseRule):
    """The candidate must be significantly more accurate than the current champion."""

    confidence: Confidence = 0.95
    """One minus the significance level of the one-sided exact McNemar test."""

    margin: Annotated[float, Field(gt=-1, lt=1)] = 0.0
    """Gain in accuracy that must be exceeded, -1 to 1; below 0 the rule tests for non-inferiority."""

    def describe(self, name: str) -> str:
        """Returns the rule as text: `over_champion by +0.01 at 0.95`."""
        by = f" by {self.margin:+{_DIGITS}}" if self.margin else ""
        return f"{name}{by} at {self.confidence:{_DIGITS}}"


class PerClassRecall(_BaseRule):
    """No class may have a significantly lower recall than with the current champion."""

    no_significant_regression: Literal[True] = True
    """One-sided exact McNemar test for each class, with Holm's correction."""

    confidence: Confidence = 0.95
    """One minus the probability of rejecting an equally good candidate, over all classes together."""

    def describe(self, name: str) -> str:
        """Returns the rule as text: `per_class_recall at 0.95`."""
        return f"{name} at {self.confidence:{_DIGITS}}"


Rule = Threshold | OverChampion | PerClassRecall
