"""Moves of the champion that a person decides: back to the one before, or to a version of their choice."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from transfer_registry.alias import apply_move, finish_interrupted_move
from transfer_registry.entry import EntryKind, LedgerEntry
from transfer_registry.errors import RegistryError
from transfer_registry.mlflow_registry import RUN_TAG, champion_version, model_versions
from transfer_registry.standing import alias_discrepancy, concerns, verdict_for_version
from transfer_registry.verdict import Verdict

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

    from transfer_registry.ledger import Ledger


def roll_back(model: str, ledger: Ledger, reason: str = "") -> LedgerEntry:
    """Makes the version champion again that was champion before today's.

    Rolled back twice, it goes back two promotions.

    Args:
        model: The registered model.
        ledger: Gets the move.
        reason: Why, for the ledger.

    Returns:
        The move, which has been carried out.

    Raises:
        RegistryError: There is none before, it was deleted, or the alias is not where the ledger put it.
        ChampionMovedError: Somebody else has moved the champion meanwhile.
    """
    client = MlflowClient()
    with ledger.exclusive(model):
        finish_interrupted_move(client, ledger, model)
        last = ledger.last_move(model)
        if last is None:
            raise RegistryError(f"nothing to roll back: the ledger has no promotion of {model}")
        if moved := alias_discrepancy(client, ledger, model):
            raise RegistryError(f"{moved}; `platform models promote` with --override settles which it is")
        before = _succeeded(client, ledger, model)
        if before is None:
            raise RegistryError(
                f"nothing to roll back to: {model} version {last.version} is the first champion"
            )
        version = _version(client, model, before)
        said = f"rolled back from version {last.version}" + (f": {reason}" if reason else "")
        return _move(
            client, ledger, version, EntryKind.ROLLBACK, seen=last, previous=last.version, reason=said
        )


def promote_version(model: str, number: int, ledger: Ledger, override: str = "") -> LedgerEntry:
    """Makes a version champion that passed the gate against today's champion, or any with a reason.

    Args:
        model: The registered model.
        number: Of the version.
        ledger: Gets the move, and keeps the reason.
        override: Why, where the gate did not let the version through.

    Returns:
        The move, which has been carried out.

    Raises:
        RegistryError: There is no such version, it is champion already, or it needs a reason and has none.
        ChampionMovedError: Somebody else has moved the champion meanwhile.
    """
    client = MlflowClient()
    with ledger.exclusive(model):
        finish_interrupted_move(client, ledger, model)
        version = _version(client, model, number)
        alias, last = champion_version(model), ledger.last_move(model)
        if alias == number and last and last.version == number:
            raise RegistryError(f"version {number} of {model} is champion already")
        verdict = verdict_for_version(ledger, version)
        before = last.version if last else alias
        obstacle = alias_discrepancy(client, ledger, model) or _obstacle(verdict, before)
        if obstacle and not override.strip():
            raise RegistryError(
                f"version {number} of {model}: {obstacle}; --override makes it champion nevertheless, for a "
                "reason that the ledger keeps"
            )
        passed = f"passed the gate, ledger entry {verdict.id if verdict else '?'}"
        said = f"overridden: {override.strip()} ({obstacle})" if obstacle else passed
        return _move(client, ledger, version, EntryKind.PROMOTION, seen=last, previous=before, reason=said)


def _obstacle(verdict: LedgerEntry | None, champion: int | None) -> str:
    """Why the gate does not let a version through today; empty where it does."""
    if verdict is None:
        return "it was never judged by the gate"
    if not verdict.passed:
        failed = [
            str(finding.rule)
            for finding in Verdict.from_json(verdict.verdict or "").results
            if not finding.passed
        ]
        return f"it did not pass the gate (ledger entry {verdict.id}: {', '.join(failed)})"
    if verdict.previous_version != champion:
        against = f"version {verdict.previous_version}" if verdict.previous_version else "no champion"
        return f"it was judged against {against}, which is not today's champion"
    return ""


def _succeeded(client: MlflowClient, ledger: Ledger, model: str) -> int | None:
    """The champion before today's: a promotion puts one on top of those before, a rollback takes some off.

    What was decided about a deleted version says nothing of one that has its number today.
    """
    today = {int(version.version): version for version in model_versions(client, model)}
    standing: list[LedgerEntry] = []
    for entry in ledger.entries(model):
        if entry.version in today and not concerns(entry, today[entry.version]):
            continue
        put_back = bool(standing) and standing[-1].version == entry.version
        if entry.kind == EntryKind.PROMOTION and not put_back:
            standing.append(entry)
        while entry.kind == EntryKind.ROLLBACK and standing and standing[-1].version != entry.version:
            standing.pop()
    return standing[-2].version if len(standing) > 1 else None


def _version(client: MlflowClient, model: str, number: int) -> ModelVersion:
    try:
        return client.get_model_version(model, str(number))
    except MlflowException as error:
        known = [each.version for each in model_versions(client, model)]
        there_is = f"it has {', '.join(map(str, known))}" if known else "there is no such registered model"
        raise RegistryError(f"{model} has no version {number}; {there_is}") from error


def _move(
    client: MlflowClient,
    ledger: Ledger,
    version: ModelVersion,
    kind: EntryKind,
    *,
    seen: LedgerEntry | None,
    previous: int | None,
    reason: str,
) -> LedgerEntry:
    verdict = verdict_for_version(ledger, version)
    move = LedgerEntry(
        kind=kind,
        model=version.name,
        version=int(version.version),
        previous_version=previous,
        run_id=version.tags.get(RUN_TAG),
        recipe_fingerprint=verdict.recipe_fingerprint if verdict else None,
        train_fingerprint=verdict.train_fingerprint if verdict else None,
        test_fingerprint=verdict.test_fingerprint if verdict else None,
        reason=reason,
    )
    ledger.append_move(move, seen=seen)
    apply_move(client, verdict, move)
    return move
