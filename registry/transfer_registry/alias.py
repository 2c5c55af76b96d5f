"""Moves of the champion: what the ledger says is carried out in MLflow's registry, by the next if need be.

The ledger is written first, so what is served was always decided. Each entry is carried out once: an alias
that somebody moves by hand afterwards is left where it is, and `audit` tells.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from transfer_registry.mlflow_registry import ALIAS
from transfer_registry.standing import ledger_champion, verdict_for_version
from transfer_registry.version_page import HASH_TAG, LEDGER_TAG, version_description, version_tags

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.tracking import MlflowClient

    from transfer_registry.entry import LedgerEntry
    from transfer_registry.ledger import Ledger


def apply_move(client: MlflowClient, decision: LedgerEntry | None, move: LedgerEntry | None) -> None:
    """Makes the registry say what the ledger says: alias, description, tags.

    The tag with the entry's hash is written last: where it stands, nothing is left to do.

    Args:
        client: Of the registry.
        decision: The last verdict on the version; None where it never had one.
        move: The promotion or rollback that followed; None where the verdict was a refusal.
    """
    entry = move or decision
    assert entry is not None, "there is nothing to carry out"
    model, version = entry.model, str(entry.version)
    if is_applied(entry, client.get_model_version(model, version)):
        return
    if move:
        client.set_registered_model_alias(model, ALIAS, version)
    client.update_model_version(model, version, description=version_description(decision, move))
    for tag, value in version_tags(decision, entry).items():
        client.set_model_version_tag(model, version, tag, value)


def is_applied(entry: LedgerEntry, version: ModelVersion) -> bool:
    """Whether a version tells of this very entry, and not of another ledger's of the same number."""
    if entry.hash is not None:
        return bool(version.tags.get(f"{HASH_TAG}{entry.id}") == entry.hash)
    told = version.tags.get(LEDGER_TAG, "")  # an entry of before there were hashes
    return told.isdecimal() and int(told) >= entry.id


def finish_interrupted_move(client: MlflowClient, ledger: Ledger, model: str) -> None:
    """Carries out the last move of the ledger, if whoever wrote it was killed before it could.

    Nothing is left to finish where the version was deleted, or where its number is another one's by now.
    """
    champion = ledger_champion(client, ledger, model)
    if champion:
        apply_move(client, verdict_for_version(ledger, champion), ledger.last_move(model))
