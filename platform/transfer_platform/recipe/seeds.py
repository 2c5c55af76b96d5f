"""Seeds with which the best trials are trained if a recipe has `search.confirm`."""

from transfer_platform.recipe.resolve import trial_count
from transfer_platform.recipe.schema import Recipe

_SEEDS = 2**32


def confirming_seeds(recipe: Recipe) -> tuple[int, ...]:
    """Returns the seeds with which each of the best trials is trained, starting with the seed of the search."""
    confirm = recipe.search and recipe.search.confirm
    return tuple((recipe.seed + index) % _SEEDS for index in range(confirm.seeds if confirm else 1))


def max_confirmed(recipe: Recipe) -> int:
    """Returns the largest possible number of trials that are trained with further seeds."""
    confirm = recipe.search and recipe.search.confirm
    return min(confirm.top, trial_count(recipe)) if confirm else 0


def max_confirming_trainings(recipe: Recipe) -> int:
    """Returns the largest possible number of trainings after the search."""
    return max_confirmed(recipe) * (len(confirming_seeds(recipe)) - 1)


def depends_on_seed(recipe: Recipe) -> bool:
    """Returns whether the result of a trial can change with the seed. The recipe must not contain search ranges.

    A solved head has no random numbers, and neither has a network with pretrained weights and a label map that is
    evaluated as it is. A network or a head that is initialized randomly depends on the seed even if it is not trained.
    """
    if recipe.backbone.weights == "none":
        return True
    return recipe.head.kind == "linear" and (recipe.training.epochs > 0 or recipe.head.label_map is None)
