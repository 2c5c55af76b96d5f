"""What the gate answers: one finding a rule, and the verdict they make together."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

Figure = float | int | str | None
"""One number (or name) behind a finding; a number that is not finite is kept as None, which JSON can hold."""


@dataclass(frozen=True)
class RuleResult:
    """What one rule says of a candidate.

    Attributes:
        rule: The rule in words; equal rules have equal words.
        passed: Whether it lets the candidate through; true where it does not apply.
        applicable: False where there was nothing to decide, such as no champion to compare with.
        reason: One sentence for a person.
        figures: The numbers behind the reason.
    """

    rule: str
    passed: bool
    applicable: bool
    reason: str
    figures: Mapping[str, Figure] = field(default_factory=dict)

    def __str__(self) -> str:
        answer = ("passed" if self.passed else "failed") if self.applicable else "n/a"
        return f"{answer:<6}  {self.rule}: {self.reason}"


@dataclass(frozen=True)
class Verdict:
    """The gate's answer; its text has one line a rule.

    Attributes:
        findings: One for every rule, in the order of the rules.
        remark: What else has to be known about it; empty where there is nothing.
        looks: How many verdicts the ledger has on these test images, this one included; 0: nobody counted.
    """

    results: tuple[RuleResult, ...]
    evaluations: int = 0
    note: str = ""

    @property
    def passed(self) -> bool:
        """Whether every rule lets the candidate through."""
        return all(finding.passed for finding in self.results)

    @property
    def reasons(self) -> tuple[str, ...]:
        """What every rule said, or only those that failed where any did."""
        decisive = [finding for finding in self.results if finding.passed == self.passed]
        return tuple(f"{finding.rule}: {finding.reason}" for finding in decisive)

    def __str__(self) -> str:
        notes = [f"        {note}" for note in (self.note, self.reuse_warning) if note]
        return "\n".join([*map(str, self.results), *notes])

    @property
    def reuse_warning(self) -> str:
        """What so many looks at one test set mean; empty for the first."""
        if self.evaluations < 2:
            return ""
        return (
            f"look {self.evaluations} at these test images: with every look it is likelier that chance alone lets "
            "a candidate through"
        )

    def to_json(self) -> str:
        """One line of JSON that `from_json` reads back to an equal verdict."""
        content = {
            "passed": self.passed,
            "findings": [asdict(finding) for finding in self.results],
            "looks": self.evaluations,
            "remark": self.note,
        }
        return json.dumps(content, allow_nan=False, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Verdict:
        """Reads what `to_json` wrote."""
        content = json.loads(text)
        findings = tuple(RuleResult(**finding) for finding in content["findings"])
        return cls(findings, content.get("looks", 0), content.get("remark", ""))
