"""Creates the trial trainer for `platform run` and `platform data`."""

from collections.abc import Mapping
from pathlib import Path

from transfer_platform import paths
from transfer_platform.data.splits import Splits
from transfer_platform.progress import Progress, Say
from transfer_platform.recipe.resolve import resolve, search_ranges
from transfer_platform.recipe.schema import Recipe
from transfer_platform.recipe.search_space import Choice, largest
from transfer_platform.sources.weights import PretrainedWeights, fetch_weights
from transfer_platform.tensor_store.store import Store
from transfer_platform.training.device import choose_device
from transfer_platform.training.trial_trainer import TrialTrainer


def make_trainer(
    recipe: Recipe,
    splits: Splits,
    weights: Mapping[str, PretrainedWeights],
    device: str,
    store: Store | None,
    progress: Progress,
    say: Say,
) -> TrialTrainer:
    """Returns a trainer that can run every trial of a recipe. The recipe may contain search ranges."""
    return TrialTrainer(
        splits,
        {name: found.path for name, found in weights.items()},
        choose_device(device),
        trials=trial_count(recipe),
        epochs=largest(recipe.training.epochs),
        store=store,
        progress=progress,
        say=say,
    )


def fetch_all_weights(recipe: Recipe, folder: Path, progress: Progress) -> dict[str, PretrainedWeights]:
    """Downloads the pretrained weights of the recipe's backbones if needed and returns them, keyed by backbone."""
    name = recipe.backbone.name
    names = name.choices if isinstance(name, Choice) else (name,)
    return {each: fetch_weights(each, recipe.backbone.weights, folder, progress) for each in names}


def feature_store() -> Store | None:
    """Returns the store of extracted features; None if `PLATFORM_CACHE_LIMIT` is 0."""
    limit = paths.cache_limit()
    return Store(paths.features_folder(), limit) if limit else None


def trial_count(recipe: Recipe) -> int:
    """Returns the number of trials; 1 if the recipe has no `search:`."""
    return recipe.search.trials if recipe.search else 1


def first_values(recipe: Recipe) -> Recipe:
    """Returns the recipe with every search space replaced by its first choice or lower bound."""
    values = {
        field: space.choices[0] if isinstance(space, Choice) else space.low
        for field, space in search_ranges(recipe).items()
    }
    return resolve(recipe, values)
