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
    help="Override a recipe value, for example -o training.epochs=3; may be repeated.",
)
DEVICE = click.option(
    "--device",
    default="auto",
    show_default=True,
    envvar="PLATFORM_DEVICE",
    show_envvar=True,
    help="Device to use: auto, cpu, cuda, cuda:1 or mps.",
)
