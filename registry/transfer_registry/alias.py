"""Champion alias: applies ledger entries to MLflow and detects discrepancies.

A move (promotion or rollback) is written to the ledger, then applied to MLflow. If the process is killed in between,
the next run, promotion or rollback applies the move. `audit` reports manual alias changes but does not undo them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from transfer_registry.ledger import LedgerEntry
from transfer_registry.mlflow_registry import ALIAS, RUN_TAG, champion_version, model_versions
from transfer_registry.version_page import HASH_TAG, version_description, version_tags

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.tracking import MlflowClient

    from transfer_registry.ledger import EntryKind, Ledger


def create_move(
    version: ModelVersion, kind: EntryKind, verdict: LedgerEntry | None, previous: int | None, reason: str
) -> LedgerEntry:
    """Returns an unsaved ledger entry for a move that replaces the champion `previous` with `version`."""
    return LedgerEntry(
        kind=kind,
        model=version.name,
        version=int(version.version),
        previous_version=previous,
        run_id=verdict.run_id if verdict else version.tags.get(RUN_TAG),
        recipe_fingerprint=verdict.recipe_fingerprint if verdict else None,
        train_fingerprint=verdict.train_fingerprint if verdict else None,
        test_fingerprint=verdict.test_fingerprint if verdict else None,
        reason=reason,
    )


def apply_move(client: MlflowClient, verdict: LedgerEntry | None, move: LedgerEntry | None) -> None:
    """Updates a version's alias, description and tags from a ledger entry unless the entry has already been applied.

    The tag with the entry's hash is written last, so its presence shows that the entry was applied. `verdict` is the
    last verdict on the version, or None if it was never judged. `move` is None if the gate rejected the version.
    """
    entry = move or verdict
    assert entry is not None, "there is nothing to apply"
    model, version = entry.model, str(entry.version)
    if is_applied(entry, client.get_model_version(model, version)):
        return
    if move:
        client.set_registered_model_alias(model, ALIAS, version)
    client.update_model_version(model, version, description=version_description(verdict, move))
    for tag, value in version_tags(verdict, entry).items():
        client.set_model_version_tag(model, version, tag, value)


def is_applied(entry: LedgerEntry, version: ModelVersion) -> bool:
    """Returns True if a version has a tag with this entry's id and hash. The id alone is not unique across ledgers."""
    return bool(version.tags.get(f"{HASH_TAG}{entry.id}") == entry.hash)


def finish_interrupted_move(client: MlflowClient, ledger: Ledger, model: str) -> None:
    """Applies a model's last move if it was recorded but not applied; does nothing if the champion was deleted."""
    champion = ledger_champion(client, ledger, model)
    if champion:
        apply_move(client, verdict_for_version(ledger, champion), ledger.last_move(model))


def matches_version(entry: LedgerEntry, version: ModelVersion) -> bool:
    """Returns True if an entry belongs to this version, not to a deleted version with the same number.

    After a model is deleted, MLflow reuses its version numbers. The same run may even have created both versions.
    """
    same = (entry.version, entry.run_id) == (int(version.version), version.tags.get(RUN_TAG))
    return same and entry.at.timestamp() * 1000 >= version.creation_timestamp


def verdict_for_version(ledger: Ledger, version: ModelVersion) -> LedgerEntry | None:
    """Returns the last verdict on a version; None if it was never judged."""
    entry = ledger.last_verdict(version.name, int(version.version), version.tags.get(RUN_TAG, ""))
    return entry if entry and matches_version(entry, version) else None


def ledger_champion(client: MlflowClient, ledger: Ledger, model: str) -> ModelVersion | None:
    """Returns the champion according to the ledger; None if there is no champion or it was deleted."""
    move = ledger.last_move(model)
    if move is None:
        return None
    return next((version for version in model_versions(client, model) if matches_version(move, version)), None)


def alias_discrepancy(client: MlflowClient, ledger: Ledger, model: str) -> str:
    """Describes how the alias differs from the ledger; returns an empty string if they agree.

    A deleted champion, whose alias MLflow also deletes, is no discrepancy; nor is an alias of a model without entries.
    """
    champion, alias = ledger_champion(client, ledger, model), champion_version(model)
    expected = int(champion.version) if champion else None
    if expected == alias or (expected is None and not ledger.entries(model)):
        return ""
    actual = f"points to version {alias}" if alias else "does not exist"
    recorded = f"the champion in the ledger is version {expected}" if expected else "the ledger has no champion"
    return f"the alias {ALIAS!r} of {model} {actual}, but {recorded}: the alias was changed by hand"
