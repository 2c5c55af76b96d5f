"""Command-line output."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.console import RenderableType


def show(result: RenderableType | str) -> None:
    """Prints text unchanged; fits tables to the width of the terminal."""
    if isinstance(result, str):
        click.echo(result)
        return
    from rich.console import Console

    Console().print(result)
