"""`platform models`: shows and promotes registered models without loading torch."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.markdown import Markdown
from rich.table import Table

from transfer_platform import databases
from transfer_platform.plurals import counted
from transfer_registry import audit, manual, mlflow_server, overview
from transfer_registry.errors import RegistryError
from transfer_registry.ledger import Ledger
from transfer_registry.model_uri import parse_version


def list_models(*, as_json: bool = False) -> RenderableType | str:
    """Returns every version of every registered model."""
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
    """Returns a version and its verdict; a model name without a version number refers to the champion."""
    with _ledger() as ledger:
        model, number = parse_version(name)
        version = overview.describe_version(ledger, model, number)
    if as_json:
        return _json(asdict(version))
    status = "champion" if version.champion else "not champion"
    facts = f"{version.model} version {version.version}: {status}, registered {version.registered}"
    return Group(facts, f"run {version.run_id or 'unknown'}", "", Markdown(version.description))


def history(model: str, *, as_json: bool = False) -> str:
    """Returns all ledger entries of a model, oldest first."""
    with _ledger() as ledger:
        entries = overview.history(ledger, model)
    if as_json:
        return _json(entries)
    return "\n".join(
        f"{entry['id']:>4}  {_event(entry)}, {entry['at']}, {entry['actor']}\n      {entry['reason']}"
        for entry in entries
    )


def compare(one: str, other: str, *, as_json: bool = False) -> RenderableType | str:
    """Returns the differences between the recipes, data and metrics of two versions."""
    with _ledger() as ledger:
        pair = [overview.describe_version(ledger, *parse_version(name)) for name in (one, other)]
    differences = overview.compare_versions(*pair)
    if as_json:
        return _json([asdict(difference) for difference in differences])
    rows = [(each.kind, each.name, _cell(each.one), _cell(each.other)) for each in differences]
    return _table(("", "", one, other), rows) if rows else "no differences"


def promote(name: str, override: str) -> str:
    """Makes a version the champion (see `manual.promote_version`)."""
    model, number = parse_version(name)
    with _writable_ledger() as ledger:
        move = manual.promote_version(model, number, ledger, override)
    return f"{model} version {move.version} is champion; ledger entry {move.id}: {move.reason}"


def rollback(model: str, reason: str) -> str:
    """Restores the previous champion (see `manual.roll_back`)."""
    with _writable_ledger() as ledger:
        move = manual.roll_back(model, ledger, reason)
    return f"{model} version {move.version} is champion again; ledger entry {move.id}: {move.reason}"


def verify() -> str:
    """Checks that the ledger and the registry are consistent and that the files of all versions are unchanged.

    Raises:
        RegistryError: The ledger and the registry are inconsistent, or files are damaged; the message lists every
            difference and every damaged version.
    """
    with _ledger() as ledger:
        differences = audit.verify(ledger)
        entries = counted(len(ledger.entries()), "ledger entry", "ledger entries")
    files = audit.verify_files()
    if problems := (*differences, *files.damage):
        lines = "\n".join(f"  {problem}" for problem in problems)
        raise RegistryError(f"the ledger and the registry are inconsistent, or model files are damaged:\n{lines}")
    unchecked = f"; not checked (no recorded checksums): {', '.join(files.unchecked)}" if files.unchecked else ""
    return (
        f"verified {entries}: consistent with the version tags and aliases\n"
        f"verified the files of {counted(files.checked, 'version')}: unchanged{unchecked}"
    )


@contextmanager
def _ledger() -> Iterator[Ledger]:
    mlflow_server.require_registry()
    with databases.open_ledger() as ledger:
        yield ledger


@contextmanager
def _writable_ledger() -> Iterator[Ledger]:
    with _ledger() as ledger:
        mlflow_server.require_original()
        databases.require_ledger()
        yield ledger


def _event(entry: Mapping[str, Any]) -> str:
    if entry["kind"] == "verdict":
        return f"version {entry['version']} {'passed' if entry['passed'] else 'failed'}"
    previous = f" replaces version {entry['previous_version']}" if entry["previous_version"] else ""
    return f"{entry['kind']}: version {entry['version']}{previous}"


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
