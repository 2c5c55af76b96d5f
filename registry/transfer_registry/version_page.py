"""Tags and description of a version in the MLflow UI."""

from __future__ import annotations

from typing import TYPE_CHECKING

from transfer_registry.ledger import EntryKind

if TYPE_CHECKING:
    from transfer_registry.ledger import LedgerEntry
    from transfer_registry.verdict import RuleResult

LEDGER_TAG = "platform.ledger_entry"
"""Tag with the ID of the last ledger entry for a version."""
HASH_TAG = "platform.ledger_hash."
"""Prefix of a tag name that ends with a ledger entry's ID. The tag's value is the hash of this entry."""

_MAX_LENGTH = 5000  # maximum characters in a tag or description accepted by every MLflow store


def version_tags(verdict: LedgerEntry | None, last: LedgerEntry) -> dict[str, str]:
    """Returns the tags of a version in the order in which they must be written.

    `last` is the promotion or rollback that followed the verdict, or the verdict itself if there was no such move. The
    tag with the hash of `last` is written last, so a version that has this tag also has all the others.
    """
    tags = {}
    if verdict:
        tags["platform.verdict"] = "passed" if verdict.passed else "failed"
        tags["platform.reasons"] = verdict.reason[:_MAX_LENGTH]
    return tags | {
        "platform.recipe_fingerprint": last.recipe_fingerprint or "",
        "platform.train_fingerprint": last.train_fingerprint or "",
        "platform.test_fingerprint": last.test_fingerprint or "",
        LEDGER_TAG: str(last.id),
        **{f"{HASH_TAG}{entry.id}": entry.hash for entry in (verdict, last) if entry},
    }


def version_description(verdict: LedgerEntry | None, move: LedgerEntry | None) -> str:
    """Returns a version's description in Markdown, with status, rule results and fingerprints; see `apply_move`."""
    entry = move or verdict
    assert entry is not None, "the ledger has no entry for the version"
    lines = [
        _describe_status(verdict, move),
        *(_describe_verdict(verdict) if verdict else ["", "Never judged by the gate."]),
        f"Recipe `{entry.recipe_fingerprint}`, training images `{entry.train_fingerprint}`, "
        f"test images `{entry.test_fingerprint}`.",
    ]
    return "\n".join(lines)[:_MAX_LENGTH]


def _describe_status(verdict: LedgerEntry | None, move: LedgerEntry | None) -> str:
    if move:
        before = f"replaces version {move.previous_version}" if move.previous_version else "first champion"
        status = "Champion again" if move.kind == EntryKind.ROLLBACK else "Made champion"
        return f"**{status}** {move.at:%Y-%m-%d %H:%M} UTC by {move.actor}, {before}: {move.reason}."
    champion = verdict.previous_version if verdict else None
    return "**Rejected by the gate**" + (f"; version {champion} remains champion." if champion else ".")


def _describe_verdict(entry: LedgerEntry) -> list[str]:
    verdict = entry.parse_verdict()
    results = [f"- `{result.rule}` {_outcome(result)}: {result.reason}" for result in verdict.results]
    notes = ["", f"{verdict.reuse_warning}."] if verdict.reuse_warning else []
    notes += ["", f"At the time of the verdict: {verdict.note}."] if verdict.note else []
    judged = f"Judged {entry.at:%Y-%m-%d %H:%M} UTC by {entry.actor}; ledger entry {entry.id}."
    return ["", *results, *notes, "", judged]


def _outcome(result: RuleResult) -> str:
    if not result.applicable:
        return "does not apply"
    return "passed" if result.passed else "**failed**"
