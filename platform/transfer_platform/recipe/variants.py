"""Variants: named changes to a recipe, each of which yields a separate recipe."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from transfer_platform.errors import RecipeError, RecipeProblem
from transfer_platform.recipe.compose import VARIANTS
from transfer_platform.recipe.resolve import validated
from transfer_platform.recipe.schema import Recipe
from transfer_platform.recipe.yaml_tree import FieldPath, Node, is_range, merge
from transfer_platform.suggest import did_you_mean


def variant_trees(tree: Node) -> Iterator[Node]:
    """Yields the tree of each variant: the recipe's own tree, merged with the variant's changes."""
    variants = tree.entries.get(VARIANTS)
    base = Node(tree.place, {key: node for key, node in tree.entries.items() if key != VARIANTS})
    for changes in variants.entries.values() if variants else ():
        if isinstance(changes.value, dict):
            yield merge(base, changes)


def misplaced_fields(tree: Node) -> Iterator[tuple[FieldPath, str]]:
    """Yields the path and an error message for each field that a variant must not change."""
    for name in tree.entries[VARIANTS].entries if VARIANTS in tree.entries else ():
        for field in ("name", VARIANTS):
            if tree.find(path := (VARIANTS, name, field)):
                yield path, f"a variant cannot set {field}; remove this field"


def variant_recipe(recipe: Recipe, name: str) -> Recipe:
    """Returns a variant of a recipe. Its name consists of the recipe's name, a hyphen, and the variant's name.

    Raises:
        RecipeError: The recipe has no such variant, or the variant is invalid.
    """
    variants = recipe.variants or {}
    if name not in variants:
        known = ", ".join(variants) or "none"
        message = f"the recipe has no variant {name!r} (variants: {known}){did_you_mean(name, variants)}"
        raise RecipeError([RecipeProblem("recipe", VARIANTS, message)])
    content = recipe.model_dump(by_alias=True, exclude={VARIANTS})
    return validated({**_merged(content, variants[name]), "name": f"{recipe.name}-{name}"}, f"variant {name}")


def require_no_variants(recipe: Recipe) -> None:
    """Raises a `RecipeError` if a recipe has variants, because it then describes several studies."""
    if recipe.variants:
        message = f"the recipe has variants; choose one of {', '.join(recipe.variants)}"
        raise RecipeError([RecipeProblem("recipe", VARIANTS, message)])


def _merged(base: Any, changes: Any) -> Any:  # noqa: ANN401 - any YAML value
    """Merges plain values in the same way as `yaml_tree.merge` merges trees."""
    if not isinstance(base, Mapping) or not isinstance(changes, Mapping) or is_range(changes):
        return changes
    return {**base, **{key: _merged(base.get(key), value) for key, value in changes.items()}}
