"""Rules of the promotion gate, as written in a recipe."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

_DIGITS = ".15g"
"""Number format in rule texts. It must be precise, because a verdict is reused if all rule texts are unchanged."""

Confidence = Annotated[float, Field(gt=0.5, lt=1)]
"""Confidence level. It must exceed 0.5; otherwise, two models could each be significantly better than the other."""


class _BaseRule(BaseModel):
    """Immutable Pydantic model that rejects undeclared fields."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


class Threshold(_BaseRule):
    """A lower bound, an upper bound or both for a metric."""

    at_least: float | None = None
    """Smallest value that passes."""

    at_most: float | None = None
    """Largest value that passes."""

    @model_validator(mode="after")
    def _require_bound(self) -> Threshold:
        if self.at_least is None and self.at_most is None:
            raise ValueError("a threshold requires at_least, at_most or both")
        return self

    def describe(self, name: str) -> str:
        """Returns the rule as text, such as `test/accuracy >= 0.9`."""
        lower = [] if self.at_least is None else [f">= {self.at_least:{_DIGITS}}"]
        upper = [] if self.at_most is None else [f"<= {self.at_most:{_DIGITS}}"]
        return f"{name} {' and '.join(lower + upper)}"


class OverChampion(_BaseRule):
    """The candidate must be significantly more accurate than the current champion."""

    confidence: Confidence = 0.95
    """One minus the significance level of the one-sided test (exact McNemar if the margin is 0, otherwise Tango's)."""

    margin: Annotated[float, Field(gt=-1, lt=1)] = 0.0
    """Accuracy gain that the candidate must exceed, between -1 and 1; if negative, the test is for non-inferiority."""

    def describe(self, name: str) -> str:
        """Returns the rule as text, such as `over_champion by +0.01 at 0.95`."""
        by = f" by {self.margin:+{_DIGITS}}" if self.margin else ""
        return f"{name}{by} at {self.confidence:{_DIGITS}}"


class PerClassRecall(_BaseRule):
    """The candidate's recall must not be significantly lower than the champion's for any class."""

    no_significant_regression: Literal[True] = True
    """One-sided exact McNemar test for each class, with Holm correction."""

    confidence: Confidence = 0.95
    """One minus the family-wise error rate across all classes."""

    def describe(self, name: str) -> str:
        """Returns the rule as text, such as `per_class_recall at 0.95`."""
        return f"{name} at {self.confidence:{_DIGITS}}"


Rule = Threshold | OverChampion | PerClassRecall
