"""How the command line prints an answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.console import RenderableType


def show(answer: RenderableType | str) -> None:
    """Text as it is; tables as wide as the terminal."""
    if isinstance(answer, str):
        click.echo(answer)
        return
    from rich.console import Console

    Console().print(answer)
