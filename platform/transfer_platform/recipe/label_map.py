"""Label maps, which define each class by labels of the pretrained weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from transfer_platform.errors import RecipeError, RecipeProblem
from transfer_platform.suggest import did_you_mean

if TYPE_CHECKING:
    from transfer_model.architecture import Architecture
    from transfer_platform.recipe.schema import Recipe

LabelMap = Mapping[str, Sequence[str]]


def pretrained_labels(architecture: Architecture, weights: str) -> tuple[str, ...]:
    """Returns the labels of pretrained weights in the order of the logits, or an empty tuple if they are unknown.

    Args:
        architecture: Architecture of the network that the weights belong to.
        weights: Value of `backbone.weights`. A file is assumed to have the labels of the default weights.
    """
    from transfer_model import catalog
    from transfer_model.backbones import class_names, preprocessings

    backbone = catalog.resolve(architecture)
    published = preprocessings(backbone)
    name = weights if weights in published else next(iter(published))
    return class_names(backbone, name) if name and weights != "none" else ()


def label_problems(label_map: LabelMap, labels: Sequence[str]) -> Iterator[tuple[tuple[str, int], str]]:
    """Yields the position (class, index) and an error message for each label that is unknown or listed twice."""
    seen: set[str] = set()
    for name, members in label_map.items():
        for index, label in enumerate(members):
            if label not in labels:
                yield (name, index), f"the pretrained weights have no label {label!r}{did_you_mean(label, labels)}"
            elif label in seen:
                yield (name, index), f"the label {label!r} is listed twice; remove one"
            seen.add(label)


def label_rows(label_map: LabelMap, labels: Sequence[str], classes: Sequence[str]) -> tuple[tuple[int, ...], ...]:
    """Returns the positions of each class's labels; a label may have several positions (for example, `crane`)."""
    return tuple(
        tuple(position for position, label in enumerate(labels) if label in label_map[name]) for name in classes
    )


def head_rows(recipe: Recipe, classes: Sequence[str]) -> tuple[tuple[int, ...], ...]:
    """Returns, for each class, the rows of the pretrained classifier that form it; empty without a label map.

    The recipe must not contain search ranges.
    """
    if recipe.head.label_map is None:
        return ()
    labels = pretrained_labels(recipe.backbone.architecture, recipe.backbone.weights)
    return label_rows(recipe.head.label_map, labels, classes)


def require_classes(label_map: LabelMap | None, classes: Sequence[str]) -> None:
    """Raises a `RecipeError` unless a label map has exactly the classes of the dataset."""
    if label_map is not None and set(label_map) != set(classes):
        message = f"the label map must have the classes of the dataset ({', '.join(classes)})"
        raise RecipeError([RecipeProblem("recipe", "head.label_map", f"{message}, but has {', '.join(label_map)}")])
