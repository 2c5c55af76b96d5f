"""`platform models`: what is registered, why, and who is champion."""

from __future__ import annotations

import click

from transfer_platform.cli.output import show as show_answer

JSON = click.option("--json", "as_json", is_flag=True, help="For programs.")


@click.group()
def models() -> None:
    """Registered models: what was decided about them, and who is champion.

    A version is named NAME/3; NAME alone is the champion.
    """


@models.command(name="list")
@JSON
def list_versions(as_json: bool) -> None:
    """List every version of every registered model."""
    from transfer_platform.commands import models as registered

    show_answer(registered.list_models(as_json=as_json))


@models.command()
@click.argument("version")
@JSON
def show(version: str, as_json: bool) -> None:
    """Show what the gate said of VERSION, rule by rule."""
    from transfer_platform.commands import models as registered

    show_answer(registered.show_version(version, as_json=as_json))


@models.command()
@click.argument("model")
@JSON
def history(model: str, as_json: bool) -> None:
    """Show every verdict and every change of champion of MODEL: who, when, why."""
    from transfer_platform.commands import models as registered

    show_answer(registered.history(model, as_json=as_json))


@models.command()
@click.argument("one")
@click.argument("other")
@JSON
def diff(one: str, other: str, as_json: bool) -> None:
    """Compare the recipes, the data and the figures of two versions."""
    from transfer_platform.commands import models as registered

    show_answer(registered.compare(one, other, as_json=as_json))


@models.command()
@click.argument("version")
@click.option("--override", default="", metavar="REASON", help="Past a gate that said no; kept for ever.")
def promote(version: str, override: str) -> None:
    """Make VERSION champion: one that passed the gate, or any for a reason."""
    from transfer_platform.commands import models as registered

    click.echo(registered.promote(version, override))


@models.command()
@click.argument("model")
@click.option("--reason", default="", help="Why, for the ledger.")
def rollback(model: str, reason: str) -> None:
    """Make the champion before today's of MODEL champion again."""
    from transfer_platform.commands import models as registered

    click.echo(registered.rollback(model, reason))


@models.command()
def verify() -> None:
    """Check that nobody has changed the ledger, the hashes in the versions' tags, or an alias."""
    from transfer_platform.commands import models as registered

    click.echo(registered.verify())
