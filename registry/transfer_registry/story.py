"""What MLflow's own pages say of a version, so that they alone tell how it was decided."""

from __future__ import annotations

from typing import TYPE_CHECKING

from transfer_registry.verdict import Verdict

if TYPE_CHECKING:
    from transfer_registry.ledger import Entry

LEDGER_TAG = "platform.ledger_entry"
"""The last entry of the ledger that a version's tags and description tell of."""

_LONGEST = 5000  # characters in a tag or description that every store of MLflow takes


def tags(decision: Entry, last: Entry) -> dict[str, str]:
    """The tags of a version, in the order in which they are to be written.

    Args:
        decision: The verdict.
        last: The promotion that followed it, or the verdict itself.

    Returns:
        `LEDGER_TAG` comes last: where it names `last`, all of them have been written.
    """
    return {
        "platform.verdict": "passed" if decision.passed else "failed",
        "platform.reasons": decision.reason[:_LONGEST],
        "platform.recipe_fingerprint": decision.recipe_fingerprint or "",
        "platform.train_fingerprint": decision.train_fingerprint or "",
        "platform.test_fingerprint": decision.test_fingerprint or "",
        LEDGER_TAG: str(last.id),
    }


def story(decision: Entry, move: Entry | None) -> str:
    """A short markdown page: what became of a version, every rule's reason, and what it was made from."""
    findings = Verdict.from_json(decision.verdict or "").findings
    lines = [
        _outcome(decision, move),
        "",
        *(
            f"- `{finding.rule}` {_answer(finding.passed, finding.applicable)}: {finding.reason}"
            for finding in findings
        ),
        "",
        f"Judged {decision.at:%Y-%m-%d %H:%M} UTC by {decision.actor}; ledger entry {decision.id}.",
        f"Recipe `{decision.recipe_fingerprint}`, training images `{decision.train_fingerprint}`, "
        f"test images `{decision.test_fingerprint}`.",
    ]
    return "\n".join(lines)[:_LONGEST]


def _outcome(decision: Entry, move: Entry | None) -> str:
    if move is None:
        stays = (
            ""
            if decision.previous_version is None
            else f"; version {decision.previous_version} stayed champion"
        )
        return f"**Refused by the gate**{stays}."
    succeeds = (
        "the first champion" if move.previous_version is None else f"after version {move.previous_version}"
    )
    return f"**Made champion** {move.at:%Y-%m-%d %H:%M} UTC, {succeeds}."


def _answer(passed: bool, applicable: bool) -> str:
    if not applicable:
        return "does not apply"
    return "passed" if passed else "**failed**"
