"""Reading a recipe: all that is wrong with it is reported at once, with lines and the nearest valid names."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from transfer_platform.errors import RecipeError, RecipeProblem
from transfer_platform.recipe import compose, messages, targets, validate
from transfer_platform.recipe.schema import Recipe
from transfer_platform.recipe.sound import ValidFields
from transfer_platform.recipe.tree import Node, Place, format_path

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Mapping, Sequence

    from transfer_platform.recipe.messages import FieldError


def load_recipe(path: str | os.PathLike[str], overrides: Sequence[str] = ()) -> Recipe:
    """Reads a recipe file, what it extends, and overrides from the command line.

    Relative paths stay as they are written, relative to the file, in overrides too; those of a base recipe
    become absolute, since they are relative to the base. Nothing is fetched.

    Args:
        path: A YAML 1.2 file. `extends: base.yaml` lays it on another one.
        overrides: `training.epochs=3`; values are YAML, whole sections and ranges too.

    Returns:
        The valid recipe, ranges included, with every default filled in.

    Raises:
        RecipeError: The recipe cannot be used; it holds every problem that was found.
    """
    path = Path(path)
    return _validated(compose.read_recipe_tree(path, overrides), path.parent)


def from_mapping(
    values: Mapping[str, object], folder: str | os.PathLike[str] = ".", overrides: Sequence[str] = ()
) -> Recipe:
    """Makes a recipe from nested dicts, as `load` does from a file.

    Args:
        values: The fields; `Range` and `Choice` objects may stand beside plain mappings.
        folder: What relative paths in it are relative to.
        overrides: As in `load`.

    Raises:
        RecipeError: As in `load`; problems have no lines.
    """
    folder = Path(folder)
    return _validated(compose.read_mapping(values, folder, overrides), folder)


def _validated(tree: Node, folder: Path) -> Recipe:
    try:
        recipe = Recipe.model_validate(tree.plain())
    except ValidationError as error:
        refused = messages.validation_errors(error, tree)
        raise _problems(tree, [*refused, *_contradictions(tree, refused, folder)]) from error
    if found := _contradictions(tree, [], folder):
        raise _problems(tree, found)
    return recipe


def _contradictions(tree: Node, refused: Iterable[FieldError], folder: Path) -> list[FieldError]:
    said = ValidFields(tree, [finding.path for finding in refused])
    return [*validate.consistency_errors(said), *targets.reference_errors(said, folder)]


def _problems(tree: Node, found: Iterable[FieldError]) -> RecipeError:
    """Puts findings on their lines: the recipe's own first, then its bases', then overrides."""

    def order(placed: tuple[Place, FieldError]) -> tuple[bool, bool, str, int]:
        place = placed[0]
        return place.line is None, place.source != tree.place.source, place.source, place.line or 0

    placed = sorted(((tree.place_of(finding.path), finding) for finding in found), key=order)
    return RecipeError(
        [RecipeProblem(str(place), format_path(finding.path), finding.message) for place, finding in placed]
    )
