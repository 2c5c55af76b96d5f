"""Model card as in "Model Cards for Model Reporting" (Mitchell et al., 2019)."""

from collections.abc import Mapping

from transfer_model.intensity import describe
from transfer_model.model_json import MAX_OOD_SCORE, ModelConfig
from transfer_platform.evaluation.predictions import Predictions
from transfer_platform.evaluation.report import class_lines, table
from transfer_platform.recipe.schema import Recipe

FILE = "README.md"


def model_card(
    recipe: Recipe,
    config: ModelConfig,
    images: Mapping[str, tuple[int, str]],
    predictions: Predictions,
    metrics: Mapping[str, float],
    score: str,
) -> str:
    """Returns the model card of a registered model version as Markdown.

    Args:
        recipe: Recipe with the best trial's values in place of search ranges.
        config: Configuration of the served model.
        images: Image count and fingerprint, keyed by split (train, validation, test).
        predictions: Predictions of the served model on the test images.
        metrics: Metrics of these predictions, keyed by name.
        score: The metric that ranks the trials, and its value for the best trial.
    """
    title = recipe.promotion.model if recipe.promotion else recipe.name
    sections = {
        f"# {title}": _intended_use(config),
        "## Evaluation": _evaluation(predictions, metrics),
        "## Training": _training(recipe, images, score),
        "## Preprocessing": _preprocessing(config),
        "## Limitations": _limitations(config),
    }
    return "\n\n".join(part for heading, body in sections.items() for part in (heading, body)) + "\n"


def _intended_use(config: ModelConfig) -> str:
    return (
        f"Classifies images into {len(config.classes)} classes: {', '.join(config.classes)}. "
        "Intended only for images similar to the training images."
    )


def _evaluation(predictions: Predictions, metrics: Mapping[str, float]) -> str:
    metric_table = table({"metric": list(metrics), "value": list(metrics.values())})
    return "\n".join(["On the test images:", "", *metric_table, "", *class_lines(predictions)])


def _training(recipe: Recipe, images: Mapping[str, tuple[int, str]], score: str) -> str:
    backbone = recipe.backbone
    counts = [f"- {count} {split} images, fingerprint `{digest}`" for split, (count, digest) in images.items()]
    network = (
        f"- `{backbone.architecture}` with weights `{backbone.weights}`, frozen through `{backbone.freeze_through}`, "
        f"and a new head; recipe `{recipe.name}`, seed {recipe.seed}"
    )
    return "\n".join([f"- data: {recipe.dataset.source}", *counts, network, f"- best trial: {score}"])


def _preprocessing(config: ModelConfig) -> str:
    preprocessing = config.preprocessing
    size = preprocessing.image_size
    return (
        f"A center square whose side is {preprocessing.crop:g} times the image's shorter side is resized to "
        f"{size} x {size} pixels ({preprocessing.interpolation}) and normalized with mean {preprocessing.mean} "
        f"and standard deviation {preprocessing.std}. "
        f"{describe(preprocessing.intensity)} The network computes in {config.precision}; logits are divided "
        f"by the temperature {config.temperature:.4g} before the softmax."
    )


def _limitations(config: ModelConfig) -> str:
    unknown = config.unknown
    if unknown.threshold == MAX_OOD_SCORE:
        return (
            f"No image is flagged as unknown, because no threshold guarantees a false alarm rate of "
            f"{unknown.false_alarms:.1%}: too few images were held out, or all images have similar features."
        )
    return (
        f"An image is flagged as unknown if its out-of-distribution score exceeds {unknown.threshold:.4g}, "
        f"which corresponds to a false alarm rate of {unknown.false_alarms:.1%} on images similar to the training "
        "images. An image that resembles the training images but belongs to none of the classes is still "
        "assigned to a class."
    )
