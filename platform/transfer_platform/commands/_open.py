"""Opens a recipe: loads it, resolves its splits and inspects its images."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

# Imported first: pydantic takes seconds to find field docstrings once torch and MLflow are loaded.
import transfer_platform.recipe.schema  # noqa: F401 - for its effect on the import time

# isort: split
from transfer_model.catalog import BackboneInfo, backbone_info
from transfer_platform.data.dataset import open_dataset
from transfer_platform.data.splits import Splits
from transfer_platform.errors import RecipeError, RecipeProblem
from transfer_platform.inspection.inspection import Inspection
from transfer_platform.inspection.preflight import preflight, require_valid
from transfer_platform.progress import Progress, Say, silent
from transfer_platform.recipe.label_map import require_classes
from transfer_platform.recipe.load import load_recipe
from transfer_platform.recipe.schema import Recipe
from transfer_platform.recipe.shipped import recipe_path
from transfer_platform.recipe.variants import variant_recipe


@dataclass(frozen=True)
class OpenedRecipe:
    """A recipe and its dataset.

    Attributes:
        recipe: Recipe with its splits and `dataset.intensity` resolved.
        folder: Base folder for relative paths in the recipe.
        experiment: Name of the MLflow experiment; all variants of a recipe belong to one experiment.
        inspection: Result of the preflight checks.
        splits: Train, validation and test images; None if the dataset cannot be split, in which case
            the inspection contains an error.
        split_notes: Messages explaining how any splits not set in the recipe were resolved.
    """

    recipe: Recipe
    folder: Path
    experiment: str
    inspection: Inspection
    splits: Splits | None
    split_notes: tuple[str, ...]

    def trainable_splits(self) -> Splits:
        """Returns the splits.

        Raises:
            DataError: The preflight checks found errors; the message lists all of them.
            RecipeError: `head.label_map` has other classes than the dataset.
        """
        splits = require_valid(self.inspection, self.splits)
        require_classes(self.recipe.head.label_map, splits.classes)
        return splits


def open_recipe(
    recipe: Recipe | Path | str,
    overrides: Sequence[str] = (),
    progress: Progress = silent,
    say: Say = silent,
    check: Callable[[Recipe], None] | None = None,
    variant: str | None = None,
) -> OpenedRecipe:
    """Loads a recipe, opens its dataset and runs the preflight checks.

    Args:
        recipe: Recipe file, name of a shipped recipe, or loaded recipe. Relative paths in a loaded recipe are
            resolved against the current folder.
        overrides: Overrides such as `training.epochs=3`; only supported for a file or a shipped recipe.
        progress: Called while data is downloaded, unpacked and read.
        say: Called with each message that explains how a split was resolved.
        variant: Name of the variant to open; None for the recipe without its variants.
        check: Called with the loaded recipe before any data is read. It should raise an error to reject the recipe.

    Raises:
        RecipeError: The recipe is invalid, or overrides were given for a loaded recipe.
        DataError: The dataset cannot be opened.
    """
    folder, loaded = load(recipe, overrides)
    experiment = loaded.name
    if variant is not None:
        loaded = variant_recipe(loaded, variant)
    if check:
        check(loaded)
    dataset = open_dataset(loaded.dataset, folder, progress, say)
    inspection, splits = preflight(dataset, _smallest_crop(loaded))
    inspection = inspection.with_split_notes(dataset.split_messages)
    config = dataset.resolved_config.model_copy(update={"intensity": inspection.intensity})
    resolved = loaded.model_copy(update={"dataset": config})
    return OpenedRecipe(resolved, folder, experiment, inspection, splits, dataset.split_messages)


def backbones(recipe: Recipe) -> Iterator[BackboneInfo]:
    """Yields the backbone of a recipe, or every candidate if the recipe searches over backbones."""
    yield from map(backbone_info, recipe.backbone.architectures)


def _smallest_crop(recipe: Recipe) -> float:
    return min(info.preprocessing_for(recipe.backbone.weights).crop for info in backbones(recipe))


def load(recipe: Recipe | Path | str, overrides: Sequence[str]) -> tuple[Path, Recipe]:
    """Loads the recipe, unless it is already loaded; returns it with the base folder for its relative paths."""
    if not isinstance(recipe, Recipe):
        path = recipe_path(Path(recipe))
        return path.parent, load_recipe(path, overrides)
    if overrides:
        message = "overrides cannot be applied to a loaded recipe; pass a recipe file instead"
        raise RecipeError([RecipeProblem("recipe", "", message)])
    return Path(), recipe
