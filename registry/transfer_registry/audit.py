"""Whether the ledger is what was written, and whether MLflow says what the ledger says.

Three things would show a change: the chain of hashes within the ledger; each entry's hash in the tags of its
version, out of reach of whoever rewrites the whole chain; and the alias, which anybody may move by hand.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlflow.tracking import MlflowClient

from transfer_registry.champion import ALIAS, RUN_TAG
from transfer_registry.story import HASH_TAG

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mlflow.entities.model_registry import ModelVersion, RegisteredModel

    from transfer_registry.entry import Entry
    from transfer_registry.ledger import Ledger


def verify(ledger: Ledger) -> tuple[str, ...]:
    """What does not fit together, one sentence each; empty where everything does.

    Nothing is mended: which side is right is for a person to say.
    """
    client = MlflowClient()
    entries = ledger.entries()
    complaints = list(_chain(entries))
    for model in client.search_registered_models():
        versions = client.search_model_versions(f"name = '{model.name}'")
        complaints += _mirrored(versions, entries)
        complaints += _alias(model, versions, ledger.last_move(model.name))
    return tuple(complaints)


def _chain(entries: Sequence[Entry]) -> Iterator[str]:
    before: Entry | None = None
    for entry in entries:
        expected = before.id + 1 if before else 1
        if entry.id != expected:
            missing = (
                f"entry {expected} is"
                if entry.id == expected + 1
                else f"entries {expected} to {entry.id - 1} are"
            )
            yield f"{missing} missing from the ledger"
        if entry.hash is None:
            if before and before.hash:
                yield f"entry {entry.id} has lost its hash"
        elif entry.hash != entry.digest(before.hash if before else None):
            yield (
                f"entry {entry.id}, a {entry.kind} of {entry.model} version {entry.version}, was changed "
                "after it was written, or the one before it was"
            )
        before = entry


def _mirrored(versions: Sequence[ModelVersion], entries: Sequence[Entry]) -> Iterator[str]:
    """Compares the hashes that versions were given when they were decided on."""
    known = {entry.id: entry for entry in entries}
    for version in versions:
        for tag, digest in sorted(version.tags.items()):
            if not tag.startswith(HASH_TAG) or not digest:
                continue
            number = int(tag.removeprefix(HASH_TAG))
            entry = known.get(number)
            told = f"{version.name} version {version.version} tells of"
            if entry is None:
                yield f"{told} entry {number}, which the ledger has not"
            elif entry.hash != digest:
                yield (
                    f"{told} another entry {number} than the ledger has: the ledger was rewritten, or "
                    "another one is in its place"
                )


def _alias(model: RegisteredModel, versions: Sequence[ModelVersion], move: Entry | None) -> Iterator[str]:
    alias = model.aliases.get(ALIAS)
    decided = _still_there(versions, move)
    if (alias is None or int(alias) != decided) and (alias is not None or decided is not None):
        now = f"at version {alias}" if alias else "gone"
        said = f"made version {decided} champion" if decided else "made none champion"
        yield f"the alias {ALIAS!r} of {model.name} is {now}, but the ledger {said}: it was moved by hand"


def _still_there(versions: Sequence[ModelVersion], move: Entry | None) -> int | None:
    """The version of the ledger's last move; None where it was deleted, or another has its number."""
    if move is None:
        return None
    there = (v for v in versions if int(v.version) == move.version and v.tags.get(RUN_TAG) == move.run_id)
    return next((int(version.version) for version in there), None)
