"""What is registered, and how it came to be so, as plain values: for tables, for JSON, for programs."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from transfer_registry import mlflow_registry
from transfer_registry.errors import RegistryError
from transfer_registry.mlflow_registry import ALIAS, RUN_TAG
from transfer_registry.standing import verdict_for_version
from transfer_registry.verdict import Verdict

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

    from transfer_registry.entry import LedgerEntry
    from transfer_registry.ledger import Ledger


@dataclass(frozen=True)
class VersionInfo:
    """One version of a registered model.

    Attributes:
        model: The registered model.
        version: Its number.
        champion: Whether the alias points at it.
        registered: When, ISO 8601 in UTC.
        run_id: That made it; empty for a version from elsewhere.
        verdict: `passed`, `failed`, or `none` where the gate never judged it.
        findings: Of that verdict, rule by rule.
        description: Markdown, what MLflow's page tells of it.
    """

    model: str
    version: int
    champion: bool
    registered: str
    run_id: str
    verdict: str
    rule_results: tuple[dict[str, Any], ...]
    description: str


@dataclass(frozen=True)
class VersionDifference:
    """What two versions do not have in common.

    Attributes:
        kind: `parameter` of the recipe, `metric`, or `data`.
        name: Of it.
        one: Its value for the first version; None where it has none.
        other: For the second.
    """

    kind: str
    name: str
    one: str | float | None
    other: str | float | None


def list_versions(ledger: Ledger) -> tuple[VersionInfo, ...]:
    """Every version of every registered model, the newest of each first."""
    client = MlflowClient()
    return tuple(
        _version(version, model.aliases.get(ALIAS), ledger)
        for model in mlflow_registry.registered_models(client)
        for version in reversed(mlflow_registry.model_versions(client, model.name))
    )


def describe_version(ledger: Ledger, model: str, number: int) -> VersionInfo:
    """One version, which exists."""
    client = MlflowClient()
    alias = client.get_registered_model(model).aliases.get(ALIAS)
    return _version(client.get_model_version(model, str(number)), alias, ledger)


def history(ledger: Ledger, model: str) -> tuple[dict[str, Any], ...]:
    """Every entry of the ledger on a registered model, the oldest first, verdicts taken apart.

    Raises:
        RegistryError: The ledger has none.
    """
    entries = ledger.entries(model)
    if not entries:
        known = ", ".join(sorted({entry.model for entry in ledger.entries()})) or "none at all"
        raise RegistryError(f"the ledger has no entry on {model}; it knows {known}")
    return tuple(_told(entry) for entry in entries)


def compare_versions(one: VersionInfo, other: VersionInfo) -> tuple[VersionDifference, ...]:
    """What the runs of two versions do not have in common: recipe, images, figures.

    Raises:
        RegistryError: A run is not there, or both are of one study, whose run tells of its best trial alone.
    """
    if one.run_id == other.run_id:
        raise RegistryError(
            f"versions {one.version} and {other.version} come from two trials of one study: "
            "`platform models show` has the verdict on each"
        )
    mine, yours = _made_from(one), _made_from(other)
    return tuple(
        VersionDifference(kind, name, mine[kind].get(name), yours[kind].get(name))
        for kind in mine
        for name in sorted(mine[kind].keys() | yours[kind].keys())
        if mine[kind].get(name) != yours[kind].get(name)
    )


def _version(version: ModelVersion, alias: str | None, ledger: Ledger) -> VersionInfo:
    verdict = verdict_for_version(ledger, version)
    at = datetime.fromtimestamp(version.creation_timestamp / 1000, UTC)
    findings = Verdict.from_json(verdict.verdict or "").results if verdict else ()
    return VersionInfo(
        model=version.name,
        version=int(version.version),
        champion=alias is not None and int(alias) == int(version.version),
        registered=at.isoformat(timespec="seconds"),
        run_id=version.tags.get(RUN_TAG, ""),
        verdict=("passed" if verdict.passed else "failed") if verdict else "none",
        rule_results=tuple(asdict(finding) for finding in findings),
        description=version.description or "",
    )


def _made_from(version: VersionInfo) -> dict[str, dict[str, Any]]:
    try:
        data = MlflowClient().get_run(version.run_id).data
    except MlflowException as error:
        raise RegistryError(
            f"the run of {version.model} version {version.version} is not there: {error.message}"
        ) from error
    fingerprints = {tag: value for tag, value in data.tags.items() if tag.startswith("platform.dataset")}
    return {"parameter": data.params, "data": fingerprints, "metric": data.metrics}


def _told(entry: LedgerEntry) -> dict[str, Any]:
    fields = {name: value for name, value in vars(entry).items() if not name.startswith("_")}
    verdict = json.loads(entry.verdict) if entry.verdict else None
    return {
        **fields,
        "at": entry.at.isoformat(timespec="seconds"),
        "kind": entry.kind.value,
        "verdict": verdict,
    }
