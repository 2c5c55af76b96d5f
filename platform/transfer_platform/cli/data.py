"""Command-line interface of `platform data`."""

import sys
from collections.abc import Sequence
from pathlib import Path

import click

from transfer_platform.cli.options import DEVICE, OVERRIDE, RECIPE


class _RecipeOrCommand(click.Group):
    """Command group that defaults to `report`, so that `platform data RECIPE` works."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Inserts `report` unless the first argument is a command."""
        if args and args[0] not in {*self.commands, *ctx.help_option_names}:
            args.insert(0, "report")
        return super().parse_args(ctx, args)


@click.group(cls=_RecipeOrCommand)
def data() -> None:
    """Inspect the dataset of a recipe: `platform data RECIPE`."""


@data.command()
@click.argument("recipe", type=RECIPE)
@OVERRIDE
@DEVICE
@click.option("--out", type=click.Path(path_type=Path), help="Also write a report in HTML (.html) or Markdown (.md).")
@click.option("--no-features", is_flag=True, help="Do not search for label errors or outliers.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def report(
    recipe: Path, overrides: Sequence[str], device: str, out: Path | None, no_features: bool, as_json: bool
) -> None:
    """Find unreadable files, duplicates, leaks between splits and label errors in the dataset of RECIPE.

    The exit code is 1 if the dataset cannot be used for training. `platform run` performs the same checks,
    except those that use features from a neural network.
    """
    from transfer_platform.commands import data
    from transfer_platform.progress import Screen

    with Screen() as screen:
        result = data.inspect_dataset(
            recipe, overrides, out=out, features=not no_features, device=device, progress=screen.step, say=screen.say
        )
    click.echo(result.json if as_json else result.text)
    sys.exit(bool(result.inspection.errors))


@data.command()
@click.argument("run_a")
@click.argument("run_b")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def diff(run_a: str, run_b: str, as_json: bool) -> None:
    """Compare the images (by content), labels and splits of RUN_A and RUN_B.

    Specify each run as an MLflow run ID or a registered version, such as ants-bees/3.
    """
    from transfer_platform.commands import data

    click.echo(data.compare_runs(run_a, run_b, as_json=as_json))
