"""Arguments and options shared by commands."""

from pathlib import Path

import click

RECIPE = click.Path(path_type=Path)
OVERRIDE = click.option(
    "-o",
    "--override",
    "overrides",
    multiple=True,
    metavar="FIELD=VALUE",
    help="Replace a value of the recipe, e.g. -o training.epochs=3; repeatable.",
)
DEVICE = click.option(
    "--device",
    default="auto",
    show_default=True,
    envvar="PLATFORM_DEVICE",
    show_envvar=True,
    help="auto, cpu, cuda, cuda:1, mps.",
)
