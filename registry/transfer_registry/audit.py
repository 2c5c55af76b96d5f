"""Whether the ledger is what was written, and whether MLflow says what the ledger says.

Three things would show a change: the chain of hashes within the ledger; each entry's hash in the tags of its
version, out of reach of whoever rewrites the whole chain; and the alias, which anybody may move by hand.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlflow.tracking import MlflowClient

from transfer_registry.alias import is_applied
from transfer_registry.entry import MOVES
from transfer_registry.mlflow_registry import model_versions, registered_models
from transfer_registry.standing import alias_discrepancy, concerns, ledger_champion
from transfer_registry.version_page import HASH_TAG

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mlflow.entities.model_registry import ModelVersion

    from transfer_registry.entry import LedgerEntry
    from transfer_registry.ledger import Ledger


def verify(ledger: Ledger) -> tuple[str, ...]:
    """What does not fit together, one sentence each; empty where everything does.

    Nothing is mended: which side is right is for a person to say.
    """
    client = MlflowClient()
    entries = ledger.entries()
    complaints = list(_chain(entries))
    for model in registered_models(client):
        moves = [entry for entry in entries if entry.model == model.name and entry.kind in MOVES]
        for version in model_versions(client, model.name):
            complaints += _mirrored(version, entries)
            complaints += _unmirrored(version, moves)
        complaints += _alias(client, ledger, model.name)
    return tuple(complaints)


def _chain(entries: Sequence[LedgerEntry]) -> Iterator[str]:
    before: LedgerEntry | None = None
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


def _mirrored(version: ModelVersion, entries: Sequence[LedgerEntry]) -> Iterator[str]:
    """Compares the hashes that a version was given when it was decided on."""
    known = {str(entry.id): entry for entry in entries}
    for tag, digest in sorted(version.tags.items()):
        if not tag.startswith(HASH_TAG):
            continue
        number = tag.removeprefix(HASH_TAG)
        told = f"{version.name} version {version.version} tells of"
        if number not in known:
            yield f"{told} entry {number}, which the ledger has not"
        elif known[number].hash != digest:
            yield (
                f"{told} another entry {number} than the ledger has: the ledger was rewritten, or "
                "another one is in its place"
            )


def _unmirrored(version: ModelVersion, moves: Sequence[LedgerEntry]) -> Iterator[str]:
    """Moves that the version they are about does not tell of; the model's last one may be under way."""
    for move in moves:
        if not move.hash or not concerns(move, version) or f"{HASH_TAG}{move.id}" in version.tags:
            continue
        told = f"{version.name} version {version.version} does not tell of entry {move.id}, a {move.kind}"
        if move is moves[-1]:
            yield f"{told}: it was interrupted, and the next run, promote or rollback carries it out"
        else:
            yield f"{told}: its tags were removed"


def _alias(client: MlflowClient, ledger: Ledger, model: str) -> Iterator[str]:
    champion, last = ledger_champion(client, ledger, model), ledger.last_move(model)
    under_way = champion is not None and last is not None and not is_applied(last, champion)
    if not under_way and (moved := alias_discrepancy(client, ledger, model)):
        yield moved
