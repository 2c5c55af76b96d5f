"""Loading of recipes, with all problems reported at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from transfer_platform.errors import RecipeError, RecipeProblem
from transfer_platform.recipe.compose import read_recipe_tree
from transfer_platform.recipe.messages import validation_errors
from transfer_platform.recipe.schema import Recipe
from transfer_platform.recipe.validate import ValidFields, consistency_errors, reference_errors
from transfer_platform.recipe.yaml_tree import Node, Place, format_path

if TYPE_CHECKING:
    import os

    from transfer_platform.recipe.messages import FieldError


def load_recipe(path: str | os.PathLike[str], overrides: Sequence[str] = ()) -> Recipe:
    """Loads a recipe file, the recipes that it extends, and overrides from the command line, without downloads.

    Relative paths, also in overrides, are relative to the file and are not changed; those of a base recipe are
    relative to the base and become absolute.

    Args:
        path: A YAML 1.2 file. `extends: base.yaml` in it names a recipe to build on.
        overrides: FIELD=VALUE, such as `training.epochs=3`; values are YAML, including sections and ranges.

    Returns:
        The valid recipe with all defaults filled in; ranges are unresolved.

    Raises:
        RecipeError: The recipe is invalid; the error holds all problems.
    """
    path = Path(path)
    tree = read_recipe_tree(path, overrides)
    recipe: Recipe | None = None
    errors: list[FieldError] = []
    try:
        recipe = Recipe.model_validate(tree.plain())
    except ValidationError as error:
        errors = validation_errors(error, tree)
    fields = ValidFields(tree, [error.path for error in errors])
    errors = [*errors, *consistency_errors(fields), *reference_errors(fields, path.parent)]
    if errors or recipe is None:
        raise _recipe_error(tree, errors)
    return recipe


def _recipe_error(tree: Node, errors: Iterable[FieldError]) -> RecipeError:
    """Sorts errors by line: those of the recipe itself first, then those of its bases, then overrides."""

    def order(located: tuple[Place, FieldError]) -> tuple[bool, bool, str, int]:
        place = located[0]
        return place.line is None, place.source != tree.place.source, place.source, place.line or 0

    located = sorted(((tree.place_of(error.path), error) for error in errors), key=order)
    return RecipeError([RecipeProblem(str(place), format_path(error.path), error.message) for place, error in located])
