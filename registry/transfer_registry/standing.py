"""Where ledger and registry meet: the entries about a version, and whether the alias is where they say."""

from __future__ import annotations

from typing import TYPE_CHECKING

from transfer_registry.mlflow_registry import ALIAS, RUN_TAG, champion_version, model_versions

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.tracking import MlflowClient

    from transfer_registry.entry import LedgerEntry
    from transfer_registry.ledger import Ledger


def concerns(entry: LedgerEntry, version: ModelVersion) -> bool:
    """Whether an entry is about this version, and not about an earlier one of the same number.

    A deleted model's numbers are given again, also to a later trial of the same run.
    """
    same = (entry.version, entry.run_id) == (int(version.version), version.tags.get(RUN_TAG))
    return same and entry.at.timestamp() * 1000 >= version.creation_timestamp


def verdict_for_version(ledger: Ledger, version: ModelVersion) -> LedgerEntry | None:
    """The last verdict on a version; None where it was never judged."""
    found = ledger.last_verdict(version.name, int(version.version), version.tags.get(RUN_TAG, ""))
    return found if found and concerns(found, version) else None


def ledger_champion(client: MlflowClient, ledger: Ledger, model: str) -> ModelVersion | None:
    """The version that the ledger made champion; None where there is none, or it was deleted since."""
    move = ledger.last_move(model)
    return next((each for each in model_versions(client, model) if move and concerns(move, each)), None)


def alias_discrepancy(client: MlflowClient, ledger: Ledger, model: str) -> str:
    """Where the alias is, in words, if it is not where the ledger put it; empty where it is.

    A champion that was deleted took its alias along, and a model that the ledger does not know is not its.
    """
    champion, alias = ledger_champion(client, ledger, model), champion_version(model)
    decided = int(champion.version) if champion else None
    if decided == alias or (decided is None and not ledger.entries(model)):
        return ""
    now = f"at version {alias}" if alias else "gone"
    said = f"made version {decided} champion" if decided else "made none of its versions champion"
    return f"the alias {ALIAS!r} of {model} is {now}, but the ledger {said}: it was moved by hand"
