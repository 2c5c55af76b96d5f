"""Command-line interface of `platform models`."""

import click

from transfer_platform.cli.output import show as print_result

JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group()
def models() -> None:
    """Manage registered models, verdicts and champions.

    Specify a version as NAME/NUMBER, such as ants-bees/3; NAME alone refers to the champion.
    """


@models.command(name="list")
@JSON
def list_versions(as_json: bool) -> None:
    """List all versions of all registered models."""
    from transfer_platform.commands import models

    print_result(models.list_models(as_json=as_json))


@models.command()
@click.argument("version")
@JSON
def show(version: str, as_json: bool) -> None:
    """Show the gate's verdict on VERSION, rule by rule."""
    from transfer_platform.commands import models

    print_result(models.show_version(version, as_json=as_json))


@models.command()
@click.argument("model")
@JSON
def history(model: str, as_json: bool) -> None:
    """Show all verdicts and champion changes for MODEL, with the user, time and reason of each."""
    from transfer_platform.commands import models

    print_result(models.history(model, as_json=as_json))


@models.command()
@click.argument("one")
@click.argument("other")
@JSON
def diff(one: str, other: str, as_json: bool) -> None:
    """Compare the recipes, data and metrics of two versions."""
    from transfer_platform.commands import models

    print_result(models.compare(one, other, as_json=as_json))


@models.command()
@click.argument("version")
@click.option("--override", default="", metavar="REASON", help="Promote a failed version; REASON is recorded.")
def promote(version: str, override: str) -> None:
    """Make VERSION the champion. VERSION must have passed the gate unless --override is given."""
    from transfer_platform.commands import models

    click.echo(models.promote(version, override))


@models.command()
@click.argument("model")
@click.option("--reason", default="", help="Reason recorded in the ledger.")
def rollback(model: str, reason: str) -> None:
    """Restore the previous champion of MODEL."""
    from transfer_platform.commands import models

    click.echo(models.rollback(model, reason))


@models.command()
def verify() -> None:
    """Verify that the ledger, version tags and aliases are consistent and that the model files are unchanged."""
    from transfer_platform.commands import models

    click.echo(models.verify())
