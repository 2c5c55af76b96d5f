"""What a run refuses at its start."""

from __future__ import annotations

from pathlib import Path

import pytest

from transfer_platform.commands.run import run
from transfer_platform.errors import RecipeError
from transfer_platform.recipe.schema import Recipe


def test_overrides_of_a_recipe_that_was_loaded_before_are_refused(isolated: Path) -> None:
    recipe = Recipe.model_validate(
        {
            "name": "digits",
            "dataset": {"source": "embedded:digits", "splits": {"train": ".", "test": 0.2}},
            "backbone": {"name": "resnet18"},
        }
    )
    with pytest.raises(RecipeError, match="overrides cannot be applied to a loaded recipe"):
        run(recipe, overrides=["training.epochs=1"])
