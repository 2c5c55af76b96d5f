"""Verdict of the gate on one candidate: the result of every rule."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

Figure = float | int | str | None
"""Value on which a rule's result is based. None represents a non-finite number, because JSON has no such numbers."""


@dataclass(frozen=True)
class RuleResult:
    """Result of one rule.

    Attributes:
        rule: Text of the rule; identical rules have identical texts.
        passed: True if the candidate passes the rule, or if the rule does not apply.
        applicable: False if the rule had nothing to compare with, for example because there was no champion.
        figures: Values on which the reason is based, by name.
    """

    rule: str
    passed: bool
    applicable: bool
    reason: str
    figures: Mapping[str, Figure] = field(default_factory=dict)

    def __str__(self) -> str:
        outcome = ("passed" if self.passed else "failed") if self.applicable else "n/a"
        return f"{outcome:<6}  {self.rule}: {self.reason}"


@dataclass(frozen=True)
class Verdict:
    """Results of all rules; `str` returns one line per rule, followed by any notes.

    Attributes:
        results: One per rule, in the order of the rules.
        evaluations: Number of verdicts on this test set, including this one; 0 if unknown.
        note: Description of how the champion alias differed from the ledger; empty if the two agreed.
    """

    results: tuple[RuleResult, ...]
    evaluations: int = 0
    note: str = ""

    @property
    def passed(self) -> bool:
        """True if the candidate passes every rule."""
        return all(result.passed for result in self.results)

    @property
    def reasons(self) -> tuple[str, ...]:
        """Texts and reasons of the failed rules, or of all rules if none failed."""
        return tuple(f"{result.rule}: {result.reason}" for result in self.results if result.passed == self.passed)

    def __str__(self) -> str:
        notes = [f"        {note}" for note in (self.note, self.reuse_warning) if note]
        return "\n".join([*map(str, self.results), *notes])

    @property
    def reuse_warning(self) -> str:
        """Warning about repeated verdicts on one test set; empty for the first verdict."""
        if self.evaluations < 2:
            return ""
        return f"{_ordinal(self.evaluations)} evaluation on this test set; reuse raises the risk of a false promotion"

    def to_json(self) -> str:
        """Returns one line of JSON, which `from_json` parses into an equal verdict."""
        return json.dumps({"passed": self.passed, **asdict(self)}, allow_nan=False, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Verdict:
        """Parses the output of `to_json`."""
        content = json.loads(text)
        results = tuple(RuleResult(**result) for result in content["results"])
        return cls(results, content["evaluations"], content["note"])


def _ordinal(number: int) -> str:
    suffix = {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{'th' if number % 100 in (11, 12, 13) else suffix}"
