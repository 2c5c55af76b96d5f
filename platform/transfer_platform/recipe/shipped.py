"""The recipes that come with the install, by name: `digits` in place of a path."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).parents[1]


def shipped_recipes() -> dict[str, Path]:
    """Their files by name; in a checkout those of the repository."""
    installed = _PACKAGE / "recipes"
    folder = installed if installed.is_dir() else _PACKAGE.parents[1] / "recipes"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def recipe_path(given: Path) -> Path:
    """A file as it is; the name of a shipped recipe as its file, unless a file has that name."""
    if given.exists() or given.suffix or len(given.parts) > 1:
        return given
    return shipped_recipes().get(given.name, given)
