"""Included recipes are found by name."""

from __future__ import annotations

from pathlib import Path

from transfer_platform.recipe.shipped import recipe_path, shipped_recipes


def test_shipped_recipes_have_names() -> None:
    assert {"ants_bees", "digits"} <= shipped_recipes().keys()
    assert recipe_path(Path("digits")) == shipped_recipes()["digits"]


def test_a_file_goes_before_a_name(isolated: Path) -> None:
    Path("digits").write_text("name: mine")
    assert recipe_path(Path("digits")) == Path("digits")


def test_paths_are_left_as_they_are() -> None:
    for path in ("recipes/digits", "digits.yaml", "no-such-recipe"):
        assert recipe_path(Path(path)) == Path(path)
