"""What MLflow's own pages say of a version, so that they alone tell how it was decided."""

from __future__ import annotations

from typing import TYPE_CHECKING

from transfer_registry.entry import EntryKind
from transfer_registry.verdict import Verdict

if TYPE_CHECKING:
    from transfer_registry.entry import LedgerEntry

LEDGER_TAG = "platform.ledger_entry"
"""The last entry of the ledger that a version's tags and description tell of."""
HASH_TAG = "platform.ledger_hash."
"""With an entry's id behind it: the tag that keeps its hash, out of reach of whoever rewrites the ledger."""

_LONGEST = 5000  # characters in a tag or description that every store of MLflow takes


def version_tags(decision: LedgerEntry | None, last: LedgerEntry) -> dict[str, str]:
    """The tags of a version, in the order in which they are to be written.

    Args:
        decision: The last verdict on the version; None where it never had one.
        last: The move that followed it, or the verdict itself.

    Returns:
        The hash of `last` comes last: where that stands, all of them have been written.
    """
    judged = (
        {
            "platform.verdict": "passed" if decision.passed else "failed",
            "platform.reasons": decision.reason[:_LONGEST],
        }
        if decision
        else {}
    )
    return {
        **judged,
        "platform.recipe_fingerprint": last.recipe_fingerprint or "",
        "platform.train_fingerprint": last.train_fingerprint or "",
        "platform.test_fingerprint": last.test_fingerprint or "",
        LEDGER_TAG: str(last.id),
        **{f"{HASH_TAG}{entry.id}": entry.hash for entry in (decision, last) if entry and entry.hash},
    }


def version_description(decision: LedgerEntry | None, move: LedgerEntry | None) -> str:
    """A short markdown page: what became of a version, every rule's reason, and what it was made from.

    Args:
        decision: The last verdict on the version; None where it never had one.
        move: The promotion or rollback that followed; None where there was none.
    """
    entry = move or decision
    assert entry is not None, "a version has a story once the ledger has an entry on it"
    lines = [
        _outcome(decision, move),
        *(_judgement(decision) if decision else ["", "It was never judged by the gate."]),
        f"Recipe `{entry.recipe_fingerprint}`, training images `{entry.train_fingerprint}`, "
        f"test images `{entry.test_fingerprint}`.",
    ]
    return "\n".join(lines)[:_LONGEST]


def _outcome(decision: LedgerEntry | None, move: LedgerEntry | None) -> str:
    if move:
        succeeds = f"after version {move.previous_version}" if move.previous_version else "the first champion"
        made = "Champion again" if move.kind == EntryKind.ROLLBACK else "Made champion"
        return f"**{made}** {move.at:%Y-%m-%d %H:%M} UTC by {move.actor}, {succeeds}: {move.reason}."
    stays = decision.previous_version if decision else None
    return "**Refused by the gate**" + (f"; version {stays} stayed champion." if stays else ".")


def _judgement(decision: LedgerEntry) -> list[str]:
    verdict = Verdict.from_json(decision.verdict or "")
    findings = [
        f"- `{finding.rule}` {_answer(finding.passed, finding.applicable)}: {finding.reason}"
        for finding in verdict.results
    ]
    wear = ["", f"This was {verdict.reuse_warning}."] if verdict.reuse_warning else []
    wear += ["", f"When it was judged, {verdict.note}."] if verdict.note else []
    judged = f"Judged {decision.at:%Y-%m-%d %H:%M} UTC by {decision.actor}; ledger entry {decision.id}."
    return ["", *findings, *wear, "", judged]


def _answer(passed: bool, applicable: bool) -> str:
    if not applicable:
        return "does not apply"
    return "passed" if passed else "**failed**"
