"""Versions, ledger history and comparisons as plain values for tables and JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from transfer_registry import mlflow_registry
from transfer_registry.alias import verdict_for_version
from transfer_registry.errors import RegistryError
from transfer_registry.mlflow_registry import ALIAS, RUN_TAG

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

    from transfer_registry.ledger import Ledger, LedgerEntry


@dataclass(frozen=True)
class VersionInfo:
    """A version of a registered model.

    Attributes:
        champion: True if the champion alias points to this version.
        registered: Creation time, ISO 8601 in UTC.
        run_id: Run that created the version; empty if another tool registered the version.
        verdict: `passed`, `failed`, or `none` if the gate never judged the version.
        rule_results: Results of the last verdict, one per rule.
        description: Markdown description in MLflow.
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
    """A difference between the runs of two versions.

    Attributes:
        kind: `parameter` (from the recipe), `metric` or `data`.
        one: Value for the first version; None if missing.
        other: Value for the second version; None if missing.
    """

    kind: str
    name: str
    one: str | float | None
    other: str | float | None


def list_versions(ledger: Ledger) -> tuple[VersionInfo, ...]:
    """Returns all versions of all registered models, newest first within each model."""
    client = MlflowClient()
    return tuple(
        _version_info(version, model.aliases.get(ALIAS), ledger)
        for model in mlflow_registry.registered_models(client)
        for version in reversed(mlflow_registry.model_versions(client, model.name))
    )


def describe_version(ledger: Ledger, model: str, number: int) -> VersionInfo:
    """Returns the properties of a version, which must exist."""
    client = MlflowClient()
    alias = client.get_registered_model(model).aliases.get(ALIAS)
    return _version_info(client.get_model_version(model, str(number)), alias, ledger)


def history(ledger: Ledger, model: str) -> tuple[dict[str, Any], ...]:
    """Returns all ledger entries of a registered model, oldest first, with parsed verdicts.

    Raises:
        RegistryError: The ledger has no entries for this model.
    """
    entries = ledger.entries(model)
    if not entries:
        models = ", ".join(sorted({entry.model for entry in ledger.entries()})) or "none"
        raise RegistryError(f"the ledger has no entries for {model}; models with entries: {models}")
    return tuple(_entry_values(entry) for entry in entries)


def compare_versions(one: VersionInfo, other: VersionInfo) -> tuple[VersionDifference, ...]:
    """Returns the differences in parameters, data and metrics between the runs of two versions.

    Raises:
        RegistryError: A run does not exist, or both versions come from the same run.
    """
    if one.run_id == other.run_id:
        raise RegistryError(
            f"cannot compare versions {one.version} and {other.version}: both come from the same study, whose run "
            "describes only the best trial; use `platform models show` to see the verdict on each version"
        )
    first, second = _run_values(one), _run_values(other)
    return tuple(
        VersionDifference(kind, name, first[kind].get(name), second[kind].get(name))
        for kind in first
        for name in sorted(first[kind].keys() | second[kind].keys())
        if first[kind].get(name) != second[kind].get(name)
    )


def _version_info(version: ModelVersion, alias: str | None, ledger: Ledger) -> VersionInfo:
    entry = verdict_for_version(ledger, version)
    created = datetime.fromtimestamp(version.creation_timestamp / 1000, UTC)
    results = entry.parse_verdict().results if entry else ()
    return VersionInfo(
        model=version.name,
        version=int(version.version),
        champion=alias is not None and int(alias) == int(version.version),
        registered=created.isoformat(timespec="seconds"),
        run_id=version.tags.get(RUN_TAG, ""),
        verdict=("passed" if entry.passed else "failed") if entry else "none",
        rule_results=tuple(asdict(result) for result in results),
        description=version.description or "",
    )


def _run_values(version: VersionInfo) -> dict[str, dict[str, Any]]:
    try:
        data = MlflowClient().get_run(version.run_id).data
    except MlflowException as error:
        raise RegistryError(
            f"the run that created {version.model} version {version.version} cannot be read: {error.message}"
        ) from error
    fingerprints = {tag: value for tag, value in data.tags.items() if tag.startswith("platform.dataset")}
    return {"parameter": data.params, "data": fingerprints, "metric": data.metrics}


def _entry_values(entry: LedgerEntry) -> dict[str, Any]:
    columns = {name: value for name, value in vars(entry).items() if not name.startswith("_")}
    return {
        **columns,
        "at": entry.at.isoformat(timespec="seconds"),
        "kind": entry.kind.value,
        "verdict": json.loads(entry.verdict) if entry.verdict else None,
    }
