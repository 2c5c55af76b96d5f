"""Recipes that are shipped with the package and can be used by name."""

from pathlib import Path

_PACKAGE = Path(__file__).parents[1]


def shipped_recipes() -> dict[str, Path]:
    """Returns the paths of all shipped recipes, keyed by name; in a checkout, they are in the `recipes` folder."""
    installed = _PACKAGE / "recipes"
    folder = installed if installed.is_dir() else _PACKAGE.parents[1] / "recipes"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def recipe_path(path: Path) -> Path:
    """Returns the path of the shipped recipe named `path`; returns `path` itself if it exists or there is no match."""
    if path.exists() or path.suffix or len(path.parts) > 1:
        return path
    return shipped_recipes().get(path.name, path)
