"""Loads recipes and reports all problems at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from transfer_platform.errors import RecipeError, RecipeProblem
from transfer_platform.recipe.compose import read_recipe_tree
from transfer_platform.recipe.error_messages import FieldError, validation_errors
from transfer_platform.recipe.schema import Recipe
from transfer_platform.recipe.valid_fields import ValidFields
from transfer_platform.recipe.validate import consistency_errors, reference_errors
from transfer_platform.recipe.variants import misplaced_fields, variant_trees
from transfer_platform.recipe.yaml_tree import Node, Place, format_path

if TYPE_CHECKING:
    import os


def load_recipe(path: str | os.PathLike[str], overrides: Sequence[str] = ()) -> Recipe:
    """Loads a recipe, merges it with its base recipes and overrides, and validates it without downloading anything.

    Paths in the recipe file and in overrides are relative to the recipe's folder and are not changed.
    Paths in a base recipe are relative to the base recipe's folder and are made absolute.

    Args:
        path: A YAML 1.2 file, which may specify a base recipe with `extends: base.yaml`.
        overrides: Strings such as `training.epochs=3`; the value is parsed as YAML and may be a section or range.

    Returns:
        The validated recipe with all defaults filled in; search ranges are not resolved.

    Raises:
        RecipeError: The recipe is invalid; the error lists all problems.
    """
    path = Path(path)
    tree = read_recipe_tree(path, overrides)
    recipe, errors = _validate(tree, path.parent)
    errors += [(tree.place_of(field), FieldError(field, message)) for field, message in misplaced_fields(tree)]
    for variant in variant_trees(tree):
        errors += _validate(variant, path.parent)[1]
    if errors or recipe is None:
        raise _recipe_error(tree, dict.fromkeys(errors))
    return recipe


def _validate(tree: Node, folder: Path) -> tuple[Recipe | None, list[tuple[Place, FieldError]]]:
    """Returns the recipe, or None if the schema rejects it, and all errors with their locations."""
    recipe: Recipe | None = None
    errors: list[FieldError] = []
    try:
        recipe = Recipe.model_validate(tree.plain())
    except ValidationError as error:
        errors = validation_errors(error, tree)
    fields = ValidFields(tree, [error.path for error in errors])
    errors = [*errors, *consistency_errors(fields), *reference_errors(fields, folder)]
    return recipe, [(tree.place_of(error.path), error) for error in errors]


def _recipe_error(tree: Node, errors: Iterable[tuple[Place, FieldError]]) -> RecipeError:
    """Creates an error that lists the problems in the recipe file, then those in its bases, then those in overrides."""

    def order(located: tuple[Place, FieldError]) -> tuple[bool, bool, str, int]:
        place = located[0]
        return place.line is None, place.source != tree.place.source, place.source, place.line or 0

    located = sorted(errors, key=order)
    return RecipeError([RecipeProblem(str(place), format_path(error.path), error.message) for place, error in located])
