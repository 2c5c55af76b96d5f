"""The rules that a gate may have, in words and in the form that `gate.judge` takes; knows no data."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from transfer_registry.errors import RegistryError

if TYPE_CHECKING:
    from collections.abc import Mapping


DIGITS = ".15g"
"""Of figures in a rule's words: a verdict stands by them, so that rules that differ must read differently."""


@dataclass(frozen=True)
class Threshold:
    """An absolute rule on one metric.

    Attributes:
        metric: Its name, such as `test/accuracy`.
        at_least: The smallest value that passes.
        at_most: The largest value that passes.
    """

    metric: str
    at_least: float | None = None
    at_most: float | None = None

    def __post_init__(self) -> None:
        if self.at_least is None and self.at_most is None:
            raise RegistryError(f"the rule on {self.metric} has no limit: give it at_least or at_most")

    def __str__(self) -> str:
        lower = [] if self.at_least is None else [f">= {self.at_least:{DIGITS}}"]
        upper = [] if self.at_most is None else [f"<= {self.at_most:{DIGITS}}"]
        return f"{self.metric} {' and '.join(lower + upper)}"


@dataclass(frozen=True)
class OverChampion:
    """The candidate must be better than the champion, by the margin and by more than chance.

    Attributes:
        confidence: 1 - the probability with which a candidate that gains just the margin is let through; from
            0.5 to below 1. Under one half, two models could each be "better" than the other.
        margin: In accuracy. Below 0 it asks for no gain, but for evidence that no more than so much is lost.
    """

    confidence: float = 0.95
    margin: float = 0.0

    def __post_init__(self) -> None:
        _refuse_confidence("over_champion", self.confidence)
        if not -1 < self.margin < 1:
            raise RegistryError(
                f"over_champion.margin is {self.margin}, but -1 < margin < 1 must hold: it is a share of the "
                "test images (0.02 is 2 points)"
            )

    def __str__(self) -> str:
        by = f" by {self.margin:+{DIGITS}}" if self.margin else ""
        return f"over_champion{by} at {self.confidence:{DIGITS}}"


@dataclass(frozen=True)
class PerClassRecall:
    """No class may be recognised worse than by the champion, as far as there is evidence.

    Attributes:
        no_significant_regression: The only thing there is to ask for.
        confidence: 1 - the probability with which an equal candidate is refused, over all classes together.
    """

    no_significant_regression: bool = True
    confidence: float = 0.95

    def __post_init__(self) -> None:
        _refuse_confidence("per_class_recall", self.confidence)
        if self.no_significant_regression is not True:
            raise RegistryError(
                "per_class_recall.no_significant_regression can only be true; leave the rule out instead"
            )

    def __str__(self) -> str:
        return f"per_class_recall at {self.confidence:{DIGITS}}"


Rule = Threshold | OverChampion | PerClassRecall
RELATIVE: dict[str, type[OverChampion | PerClassRecall]] = {
    "over_champion": OverChampion,
    "per_class_recall": PerClassRecall,
}
"""The rules that need a champion, by their names in a recipe; every other name is a metric's."""


def read_rules(gate: Mapping[str, Mapping[str, Any]]) -> tuple[Rule, ...]:
    """The rules of a recipe's `promotion.gate`.

    Args:
        gate: `{"test/accuracy": {"at_least": 0.9}, "over_champion": {"confidence": 0.95}}`.

    Raises:
        RegistryError: A rule has a limit that does not exist, none at all, or one out of range.
    """
    return tuple(_read_rule(name, limits) for name, limits in gate.items())


def _read_rule(name: str, limits: Mapping[str, Any]) -> Rule:
    kind = RELATIVE.get(name)
    allowed = {field.name for field in fields(kind)} if kind else {"at_least", "at_most"}
    if unknown := sorted(set(limits) - allowed):
        known = " and ".join(sorted(allowed))
        raise RegistryError(f"the gate rule {name} has no setting {unknown[0]!r}; it has {known}")
    return kind(**limits) if kind else Threshold(name, **limits)


def _refuse_confidence(rule: str, confidence: float) -> None:
    if not 0.5 <= confidence < 1:
        raise RegistryError(
            f"{rule}.confidence is {confidence}, but 0.5 <= confidence < 1 must hold (0.95 is usual)"
        )
