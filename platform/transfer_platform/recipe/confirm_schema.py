"""Schema of the recipe section `search.confirm`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from transfer_platform.recipe.search_space import Section


class ConfirmConfig(Section):
    """Training of the best trials with further seeds, so that no trial wins by luck."""

    top: Annotated[int, Field(ge=2, le=100)] = 3
    """Number of completed trials to confirm: those with the best values in the search."""

    seeds: Annotated[int, Field(ge=2, le=100)] = 5
    """Number of seeds per trial: `seed`, which is the seed of the search, and the whole numbers after it."""
