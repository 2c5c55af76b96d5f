"""`platform data`: what a recipe learns from, and what is wrong with it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import click

from transfer_platform.cli.options import DEVICE, OVERRIDE, RECIPE


class _RecipeOrCommand(click.Group):
    """What is no command is a recipe, and `report` is what is meant."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Puts the command's name in front of a recipe or an option."""
        if args and args[0] not in {*self.commands, *ctx.help_option_names}:
            args.insert(0, "report")
        return super().parse_args(ctx, args)


@click.group(cls=_RecipeOrCommand)
def data() -> None:
    """Look at the data set of a recipe: `platform data RECIPE`."""


@data.command()
@click.argument("recipe", type=RECIPE)
@OVERRIDE
@DEVICE
@click.option(
    "--out", type=click.Path(path_type=Path), help="Write the report too: a page (.html) or markdown (.md)."
)
@click.option("--no-features", is_flag=True, help="Don't ask the backbone about labels and outliers.")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
def report(
    recipe: Path,
    overrides: Sequence[str],
    device: str,
    out: Path | None,
    no_features: bool,
    as_json: bool,
) -> None:
    """Find bad files, copies, leaks between splits and doubtful labels in the data set of RECIPE.

    The exit code is 1 where it cannot be trained on. `platform run` begins with the same, without asking the
    backbone.
    """
    from transfer_platform.commands import data
    from transfer_platform.progress import Screen

    with Screen() as screen:
        told = data.inspect_dataset(
            recipe,
            overrides,
            out=out,
            features=not no_features,
            device=device,
            progress=screen.step,
            say=screen.say,
        )
    click.echo(told.json if as_json else told.text)
    sys.exit(bool(told.inspection.errors))


@data.command()
@click.argument("run_a")
@click.argument("run_b")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def diff(run_a: str, run_b: str, as_json: bool) -> None:
    """Say which images, labels and splits changed from RUN_A to RUN_B, by content.

    Each is an MLflow run, or a registered version such as ants-bees/3.
    """
    from transfer_platform.commands import data

    click.echo(data.compare_runs(run_a, run_b, as_json=as_json))
