"""Recipes included in the installation, which commands accept by name."""

from pathlib import Path

_PACKAGE = Path(__file__).parents[1]


def shipped_recipes() -> dict[str, Path]:
    """Returns the files of the included recipes by name; in a checkout, those of the repository."""
    installed = _PACKAGE / "recipes"
    folder = installed if installed.is_dir() else _PACKAGE.parents[1] / "recipes"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def recipe_path(path: Path) -> Path:
    """Replaces the name of an included recipe by its file; any existing or other path is unchanged."""
    if path.exists() or path.suffix or len(path.parts) > 1:
        return path
    return shipped_recipes().get(path.name, path)
