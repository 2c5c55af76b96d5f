"""Rollback and manual promotion of registered versions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from transfer_registry.alias import (
    alias_discrepancy,
    apply_move,
    create_move,
    finish_interrupted_move,
    matches_version,
    verdict_for_version,
)
from transfer_registry.errors import RegistryError
from transfer_registry.ledger import EntryKind
from transfer_registry.mlflow_registry import champion_version, is_missing, model_versions

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

    from transfer_registry.ledger import Ledger, LedgerEntry


def roll_back(model: str, ledger: Ledger, reason: str = "") -> LedgerEntry:
    """Restores the previous champion and returns the ledger entry. Repeated calls go back one promotion at a time.

    Raises:
        RegistryError: There is no previous champion, it was deleted, or the alias differs from the ledger.
        ChampionMovedError: Another process changed the champion at the same time.
    """
    client = MlflowClient()
    with ledger.exclusive(model):
        finish_interrupted_move(client, ledger, model)
        last = ledger.last_move(model)
        if last is None:
            raise RegistryError(f"nothing to roll back: the ledger contains no promotion of {model}")
        if discrepancy := alias_discrepancy(client, ledger, model):
            raise RegistryError(f"{discrepancy}; choose a champion with `platform models promote --override`")
        previous = _previous_champion(client, ledger, model)
        if previous is None:
            raise RegistryError(f"nothing to roll back to: {model} version {last.version} is the first champion")
        version = _get_version(client, model, previous)
        text = f"rolled back from version {last.version}" + (f": {reason}" if reason else "")
        verdict = verdict_for_version(ledger, version)
        move = create_move(version, EntryKind.ROLLBACK, verdict, last.version, text)
        return _write_move(client, ledger, verdict, move, last)


def promote_version(model: str, number: int, ledger: Ledger, override: str = "") -> LedgerEntry:
    """Makes a version the champion if it passed the gate against the current champion, and returns the ledger entry.

    `override` is the reason for promoting a version that did not pass; it is recorded in the ledger.

    Raises:
        RegistryError: The version does not exist, is already the champion, or needs an override.
        ChampionMovedError: Another process changed the champion at the same time.
    """
    client = MlflowClient()
    with ledger.exclusive(model):
        finish_interrupted_move(client, ledger, model)
        version = _get_version(client, model, number)
        alias, last = champion_version(model), ledger.last_move(model)
        if alias == number and last and last.version == number:
            raise RegistryError(f"version {number} of {model} is already the champion")
        verdict = verdict_for_version(ledger, version)
        previous = last.version if last else alias
        obstacle = alias_discrepancy(client, ledger, model) or _obstacle(verdict, previous)
        if obstacle and not override.strip():
            raise RegistryError(
                f"version {number} of {model} cannot be promoted: {obstacle}; to promote it anyway, use "
                "--override with a reason, which is recorded in the ledger"
            )
        passed = f"passed the gate (ledger entry {verdict.id if verdict else '?'})"
        reason = f"override: {override.strip()} ({obstacle})" if obstacle else passed
        move = create_move(version, EntryKind.PROMOTION, verdict, previous, reason)
        return _write_move(client, ledger, verdict, move, last)


def _obstacle(verdict: LedgerEntry | None, champion: int | None) -> str:
    """Returns the reason why the gate does not allow a promotion, or an empty string if the gate allows it."""
    if verdict is None:
        return "it was never judged by the gate"
    if not verdict.passed:
        failed = ", ".join(result.rule for result in verdict.parse_verdict().results if not result.passed)
        return f"it did not pass the gate (ledger entry {verdict.id}: {failed})"
    if verdict.previous_version != champion:
        comparison = f"against version {verdict.previous_version}" if verdict.previous_version else "without a champion"
        return f"it was judged {comparison}, not against the current champion"
    return ""


def _previous_champion(client: MlflowClient, ledger: Ledger, model: str) -> int | None:
    """Returns the champion before the current one, ignoring promotions that were rolled back.

    Entries for deleted versions whose numbers have been reused are skipped.
    """
    versions = {int(version.version): version for version in model_versions(client, model)}
    champions: list[int] = []
    for entry in ledger.entries(model):
        if entry.version in versions and not matches_version(entry, versions[entry.version]):
            continue
        if entry.kind == EntryKind.PROMOTION and champions[-1:] != [entry.version]:
            champions.append(entry.version)
        while entry.kind == EntryKind.ROLLBACK and champions and champions[-1] != entry.version:
            champions.pop()
    return champions[-2] if len(champions) > 1 else None


def _get_version(client: MlflowClient, model: str, number: int) -> ModelVersion:
    try:
        return client.get_model_version(model, str(number))
    except MlflowException as error:
        if not is_missing(error):
            raise
        numbers = ", ".join(str(version.version) for version in model_versions(client, model))
        existing = f"available versions: {numbers}" if numbers else "there is no registered model with this name"
        raise RegistryError(f"{model} has no version {number}; {existing}") from error


def _write_move(
    client: MlflowClient, ledger: Ledger, verdict: LedgerEntry | None, move: LedgerEntry, last: LedgerEntry | None
) -> LedgerEntry:
    ledger.append_move(move, expected_last=last)
    apply_move(client, verdict, move)
    return move
