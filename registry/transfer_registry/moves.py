"""Moves of the champion: what the ledger says is carried out in MLflow's registry, by the next if need be.

The ledger is written first, so what is served was always decided. Each entry is carried out once: an alias
that somebody moves by hand afterwards is left where it is, and `audit` tells.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST, ErrorCode

from transfer_registry.champion import ALIAS, RUN_TAG, current, versions
from transfer_registry.story import HASH_TAG, LEDGER_TAG, story, tags

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.tracking import MlflowClient

    from transfer_registry.entry import Entry
    from transfer_registry.ledger import Ledger


def carry_out(client: MlflowClient, decision: Entry | None, move: Entry | None) -> None:
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
    if is_carried_out(entry, client.get_model_version(model, version)):
        return
    if move:
        client.set_registered_model_alias(model, ALIAS, version)
    client.update_model_version(model, version, description=story(decision, move))
    for tag, value in tags(decision, entry).items():
        client.set_model_version_tag(model, version, tag, value)


def is_carried_out(entry: Entry, version: ModelVersion) -> bool:
    """Whether a version tells of this very entry, and not of another ledger's of the same number."""
    if entry.hash is not None:
        return bool(version.tags.get(f"{HASH_TAG}{entry.id}") == entry.hash)
    told = version.tags.get(LEDGER_TAG, "")  # an entry of before there were hashes
    return told.isdecimal() and int(told) >= entry.id


def decided_champion(client: MlflowClient, ledger: Ledger, model: str) -> int | None:
    """The version that the ledger made champion; None where there is none, or it was deleted since."""
    move = ledger.last_move(model)
    there = (v for v in versions(client, model) if move and int(v.version) == move.version)
    same = (v for v in there if move and v.tags.get(RUN_TAG) == move.run_id and not is_older(move, v))
    return next((int(version.version) for version in same), None)


def moved_by_hand(client: MlflowClient, ledger: Ledger, model: str) -> str:
    """Where the alias is, in words, if it is not where the ledger put it; empty where it is.

    A champion that was deleted took its alias along, and a model that the ledger does not know is not its.
    """
    decided, alias = decided_champion(client, ledger, model), current(model)
    if decided == alias or (decided is None and not ledger.entries(model)):
        return ""
    now = f"at version {alias}" if alias else "gone"
    said = f"made version {decided} champion" if decided else "made none of its versions champion"
    return f"the alias {ALIAS!r} of {model} is {now}, but the ledger {said}: it was moved by hand"


def finish_interrupted(client: MlflowClient, ledger: Ledger, model: str) -> None:
    """Carries out the last move of the ledger, if whoever wrote it was killed before it could.

    Nothing is left to finish where the version was deleted, or where its number is another one's by now.
    """
    move = ledger.last_move(model)
    if move is None:
        return
    try:
        version = client.get_model_version(model, str(move.version))
        if version.tags.get(RUN_TAG) == move.run_id and not is_older(move, version):
            carry_out(client, ledger.verdict_of(model, move.version, move.run_id), move)
    except MlflowException as error:
        if error.error_code != ErrorCode.Name(RESOURCE_DOES_NOT_EXIST):
            raise


def is_older(entry: Entry, version: ModelVersion) -> bool:
    """Whether an entry was written before a version was made, and so about another one of the same number.

    A later trial of the same run can take the number of an earlier one that was deleted.
    """
    return bool(entry.at.timestamp() * 1000 < version.creation_timestamp)
