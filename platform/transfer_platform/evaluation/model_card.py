"""The model card that travels inside a registered version: what it is for, made from, and worth.

After "Model Cards for Model Reporting" (Mitchell et al., 2019), as far as a recipe and a test set can tell.
"""

from __future__ import annotations

from collections.abc import Mapping

from transfer_model.config import MAX_OOD_SCORE, ModelConfig
from transfer_platform.evaluation.predictions import Predictions
from transfer_platform.evaluation.report import class_table, table
from transfer_platform.recipe.schema import Recipe

FILE = "README.md"


def model_card(
    recipe: Recipe,
    description: ModelConfig,
    images: Mapping[str, tuple[int, str]],
    predictions: Predictions,
    metrics: Mapping[str, float],
) -> str:
    """Markdown.

    Args:
        recipe: With the best trial's values in place of ranges.
        description: Of the served form.
        images: By role (train, validation, test): how many there were, and their fingerprint.
        predictions: Of the served form on the test images.
        metrics: By name.
    """
    title = recipe.promotion.model if recipe.promotion else recipe.name
    sections = {
        f"# {title}": _purpose(description),
        "## What it is worth": _worth(predictions, metrics),
        "## What it was made from": _origin(recipe, images),
        "## What it does with an image": _processing(description),
        "## What it does not know": _limits(description),
    }
    return "\n\n".join(part for heading, body in sections.items() for part in (heading, body)) + "\n"


def _purpose(description: ModelConfig) -> str:
    return (
        f"Tells {len(description.classes)} classes of photographs apart: {', '.join(description.classes)}. "
        "It was made for images like those that it learned from, and for nothing else."
    )


def _worth(predictions: Predictions, metrics: Mapping[str, float]) -> str:
    figures = table({"on the test images": list(metrics), "value": list(metrics.values())})
    return "\n".join([*figures, "", *table(class_table(predictions))])


def _origin(recipe: Recipe, images: Mapping[str, tuple[int, str]]) -> str:
    backbone = recipe.backbone
    rows = [f"- {count} {role} images, fingerprint `{digest}`" for role, (count, digest) in images.items()]
    made = (
        f"- `{backbone.name}`, weights `{backbone.weights}`, frozen through `{backbone.freeze_through}`; "
        f"a new head, trained by the recipe `{recipe.name}`, seed {recipe.seed}"
    )
    return "\n".join([f"- data: {recipe.dataset.source}", *rows, made])


def _processing(description: ModelConfig) -> str:
    preparing = description.preprocessing
    side = preparing.image_size
    return (
        f"The centre square, {preparing.crop:g} of the shorter side, is resized to {side} x {side} pixels "
        f"({preparing.interpolation}); channels are scaled by mean {preparing.mean} and deviation "
        f"{preparing.std}. It computes in {description.precision}. Logits are divided by the temperature "
        f"{description.temperature:.4g} before they become probabilities."
    )


def _limits(description: ModelConfig) -> str:
    unknown = description.unknown
    if unknown.threshold == MAX_OOD_SCORE:
        return (
            "It calls no image unknown: there were too few held-out images to keep false alarms at "
            f"{unknown.false_alarms:.1%}."
        )
    return (
        f"An image is called unknown where its novelty is above {unknown.threshold:.4g}, which was set so "
        f"that {unknown.false_alarms:.1%} of images like the training images are called so by mistake. "
        "Anything that looks like the training images and is none of the classes is still given one."
    )
