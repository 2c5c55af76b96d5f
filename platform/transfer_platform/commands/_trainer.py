"""Creates the trial trainer for `platform run` and `platform data`."""

from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any

from transfer_model.architecture import Architecture
from transfer_platform import paths
from transfer_platform.data.splits import Splits
from transfer_platform.progress import Progress, Say
from transfer_platform.recipe.resolve import resolve, search_ranges, trial_count
from transfer_platform.recipe.schema import Recipe
from transfer_platform.recipe.search_space import Choice, Range, largest
from transfer_platform.recipe.seeds import max_confirming_trainings
from transfer_platform.sources.weights import PretrainedWeights, fetch_weights
from transfer_platform.tensor_store.store import Store
from transfer_platform.training.device import choose_device
from transfer_platform.training.trial_trainer import TrialTrainer

_NETWORK_FIELDS = ("backbone.name", "backbone.freeze_through", "head.kind")
"""Searchable fields that determine whether a network can be trained."""


def make_trainer(
    recipe: Recipe,
    splits: Splits,
    weights: Mapping[Architecture, PretrainedWeights],
    device: str,
    store: Store | None,
    progress: Progress,
    say: Say,
) -> TrialTrainer:
    """Returns a trainer for all trials of a recipe; the recipe may contain search spaces."""
    return TrialTrainer(
        splits,
        {backbone: found.path for backbone, found in weights.items()},
        choose_device(device),
        trials=trial_count(recipe) + max_confirming_trainings(recipe),
        epochs=largest(recipe.training.epochs),
        store=store,
        progress=progress,
        say=say,
    )


def fetch_all_weights(recipe: Recipe, folder: Path, progress: Progress) -> dict[Architecture, PretrainedWeights]:
    """Downloads the pretrained weights of the recipe's backbones if needed and returns them, keyed by backbone."""
    backbone = recipe.backbone
    return {each: fetch_weights(each, backbone.weights, folder, progress) for each in backbone.architectures}


def feature_store() -> Store | None:
    """Returns the store of extracted features; None if `PLATFORM_CACHE_LIMIT` is 0."""
    limit = paths.cache_limit()
    return Store(paths.features_folder(), limit) if limit else None


def first_values(recipe: Recipe) -> Recipe:
    """Returns the recipe with every search space replaced by its first choice or lower bound."""
    return resolve(recipe, {field: _first(space) for field, space in search_ranges(recipe).items()})


def network_variants(recipe: Recipe) -> list[Recipe]:
    """Returns one recipe for each combination of backbone, frozen stages and kind of head.

    Each recipe has the largest batch size, and the first choice or the lower bound of every other search space.
    """
    spaces = search_ranges(recipe)
    values = {field: _first(space) for field, space in spaces.items()}
    values |= {field: largest(spaces[field]) for field in ("training.batch_size",) if field in spaces}
    networks = {
        field: space.choices
        for field, space in spaces.items()
        if field in _NETWORK_FIELDS and isinstance(space, Choice)
    }
    return [
        resolve(recipe, values | dict(zip(networks, combination, strict=True)))
        for combination in product(*networks.values())
    ]


def _first(space: Range[Any] | Choice[Any]) -> Any:  # noqa: ANN401 - any field type
    return space.choices[0] if isinstance(space, Choice) else space.low
