"""Registered models for people: tables and sentences of what `transfer_registry` knows and does.

Each function answers one command of `platform models`; none of them loads torch.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.markdown import Markdown
from rich.table import Table

from transfer_platform import paths
from transfer_registry import audit, manual, mlflow_server, overview
from transfer_registry.errors import RegistryError
from transfer_registry.ledger import Ledger
from transfer_registry.model_uri import parse_version


def list_models(*, as_json: bool = False) -> RenderableType | str:
    """Every version of every registered model, and which of them is champion."""
    with _ledger() as ledger:
        versions = overview.list_versions(ledger)
    if as_json:
        return _json([asdict(version) for version in versions])
    rows = [
        (each.model, str(each.version), "champion" if each.champion else "", each.verdict, each.registered)
        for each in versions
    ]
    return _table(("model", "version", "", "gate", "registered"), rows)


def show_version(name: str, *, as_json: bool = False) -> RenderableType | str:
    """One version with its verdict, rule by rule; the champion where only a model is named."""
    with _ledger() as ledger:
        model, number = parse_version(name)
        version = overview.describe_version(ledger, model, number)
    if as_json:
        return _json(asdict(version))
    standing = "champion" if version.champion else "not champion"
    facts = f"{version.model} version {version.version}: {standing}, registered {version.registered}"
    return Group(facts, f"run {version.run_id or 'unknown'}", "", Markdown(version.description))


def history(model: str, *, as_json: bool = False) -> str:
    """What was decided about a registered model, the oldest first: what, when, by whom, and why."""
    with _ledger() as ledger:
        entries = overview.history(ledger, model)
    if as_json:
        return _json(entries)
    return "\n".join(
        f"{entry['id']:>4}  {_what(entry)}, {entry['at']}, {entry['actor']}\n      {entry['reason']}"
        for entry in entries
    )


def compare(one: str, other: str, *, as_json: bool = False) -> RenderableType | str:
    """What two versions were not made from alike, and how their figures differ."""
    with _ledger() as ledger:
        pair = [overview.describe_version(ledger, *parse_version(name)) for name in (one, other)]
    found = overview.compare_versions(*pair)
    if as_json:
        return _json([asdict(difference) for difference in found])
    rows = [(each.kind, each.name, _cell(each.one), _cell(each.other)) for each in found]
    return _table(("", "", one, other), rows) if rows else "no difference"


def promote(name: str, override: str) -> str:
    """Makes a version champion; see `by_hand.promote_version`."""
    model, number = parse_version(name)
    with _ledger() as ledger:
        move = manual.promote_version(model, number, ledger, override)
    return f"{model} version {move.version} is champion; ledger entry {move.id}: {move.reason}"


def rollback(model: str, reason: str) -> str:
    """Makes the champion before today's champion again; see `by_hand.roll_back`."""
    with _ledger() as ledger:
        move = manual.roll_back(model, ledger, reason)
    return f"{model} version {move.version} is champion again; ledger entry {move.id}: {move.reason}"


def verify() -> str:
    """Says that ledger and registry fit together.

    Raises:
        RegistryError: They do not; the message has everything that was found.
    """
    with _ledger() as ledger:
        complaints = audit.verify(ledger)
        count = len(ledger.entries())
    if complaints:
        raise RegistryError(
            "ledger and registry do not fit together:\n" + "\n".join(f"  {c}" for c in complaints)
        )
    return f"{count} entries of the ledger, the tags of the versions and the aliases fit together"


@contextmanager
def _ledger() -> Iterator[Ledger]:
    """The ledger of this folder or team, and MLflow's registry to go with it."""
    mlflow_server.require_registry()
    with Ledger.open(paths.ledger_url()) as ledger:
        yield ledger


def _what(entry: Mapping[str, Any]) -> str:
    if entry["kind"] == "verdict":
        return f"version {entry['version']} {'passed' if entry['passed'] else 'failed'}"
    before = f" after {entry['previous_version']}" if entry["previous_version"] else ""
    return f"{entry['kind']}: version {entry['version']}{before}"


def _table(columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> Table:
    table = Table(box=box.SIMPLE)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def _cell(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _json(content: object) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False)
