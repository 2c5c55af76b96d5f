"""Checks that the ledger and the MLflow model registry are consistent.

The checks use the ledger's hash chain, the hashes copied to version tags, and the champion alias.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from mlflow.tracking import MlflowClient

from transfer_registry.alias import alias_discrepancy, is_applied, ledger_champion, matches_version
from transfer_registry.ledger import MOVES
from transfer_registry.mlflow_registry import model_versions, registered_models
from transfer_registry.version_page import HASH_TAG

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

    from transfer_registry.ledger import Ledger, LedgerEntry


def verify(ledger: Ledger) -> tuple[str, ...]:
    """Returns one sentence per inconsistency in the ledger or between the ledger and MLflow; changes nothing."""
    client = MlflowClient()
    entries = ledger.entries()
    errors = list(_check_chain(entries))
    for model in registered_models(client):
        moves = [entry for entry in entries if entry.model == model.name and entry.kind in MOVES]
        for version in model_versions(client, model.name):
            errors += _check_tags(version, entries)
            errors += _find_missing_tags(version, moves)
        errors += _check_alias(client, ledger, model.name)
    return tuple(errors)


def _check_chain(entries: Sequence[LedgerEntry]) -> Iterator[str]:
    previous: LedgerEntry | None = None
    for entry in entries:
        expected = previous.id + 1 if previous else 1
        if entry.id == expected + 1:
            yield f"entry {expected} is missing from the ledger"
        elif entry.id != expected:
            yield f"entries {expected} to {entry.id - 1} are missing from the ledger"
        if entry.hash != entry.digest(previous.hash if previous else None):
            yield (
                f"entry {entry.id} ({entry.kind}, {entry.model} version {entry.version}) or the previous "
                "entry was modified after it was written"
            )
        previous = entry


def _check_tags(version: ModelVersion, entries: Sequence[LedgerEntry]) -> Iterator[str]:
    hashes = {str(entry.id): entry.hash for entry in entries}
    for tag, value in sorted(version.tags.items()):
        if not tag.startswith(HASH_TAG):
            continue
        number = tag.removeprefix(HASH_TAG)
        if number not in hashes:
            yield (f"{version.name} version {version.version} has a tag for entry {number}, which is not in the ledger")
        elif hashes[number] != value:
            yield (
                f"{version.name} version {version.version} has a different hash for entry {number} than "
                "the ledger: the ledger was rewritten or replaced"
            )


def _find_missing_tags(version: ModelVersion, moves: Sequence[LedgerEntry]) -> Iterator[str]:
    """Yields one message per move whose tag is missing: the move was interrupted, or the tag was removed."""
    for move in moves:
        if not matches_version(move, version) or f"{HASH_TAG}{move.id}" in version.tags:
            continue
        interrupted = f"the {move.kind} was interrupted; the next run, promotion or rollback will complete it"
        yield (
            f"{version.name} version {version.version} has no tag for entry {move.id} ({move.kind}): "
            f"{interrupted if move is moves[-1] else 'the tag was removed'}"
        )


def _check_alias(client: MlflowClient, ledger: Ledger, model: str) -> Iterator[str]:
    champion, last = ledger_champion(client, ledger, model), ledger.last_move(model)
    interrupted = champion is not None and last is not None and not is_applied(last, champion)
    if not interrupted and (discrepancy := alias_discrepancy(client, ledger, model)):
        yield discrepancy
