"""Trial trainer of a recipe, shared by `platform run` and `platform data`."""

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
    """Returns a trainer for the trials of a recipe, search ranges included."""
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
    """Fetches the pretrained weights of every backbone that the recipe may use, by backbone name."""
    name = recipe.backbone.name
    names = name.choices if isinstance(name, Choice) else (name,)
    return {each: fetch_weights(each, recipe.backbone.weights, folder, progress) for each in names}


def feature_store() -> Store | None:
    """Returns the store of extracted features; None if `PLATFORM_CACHE_LIMIT` is 0."""
    limit = paths.cache_limit()
    return Store(paths.features_folder(), limit) if limit else None


def trial_count(recipe: Recipe) -> int:
    """Number of trials; 1 without a search."""
    return recipe.search.trials if recipe.search else 1


def first_values(recipe: Recipe) -> Recipe:
    """Returns the recipe with the first of every choice and the low end of every range."""
    values = {
        field: space.choices[0] if isinstance(space, Choice) else space.low
        for field, space in search_ranges(recipe).items()
    }
    return resolve(recipe, values)
