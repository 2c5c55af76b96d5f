"""Dry run that tests training, saving and serving before the first trial.

Without the dry run, a model that cannot be trained or saved might not cause an error until hours into training.
"""

from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from transfer_model.architecture import Architecture
from transfer_model.classifier import Classifier, save
from transfer_model.errors import ModelError, UnreadableImageError, cause
from transfer_model.model_json import MAX_OOD_SCORE, OodThreshold
from transfer_model.ood import OodScorer
from transfer_platform.errors import TrainingError
from transfer_platform.progress import Say
from transfer_platform.recipe.promotion_schema import FALSE_ALARM_RATE
from transfer_platform.recipe.schema import Recipe
from transfer_platform.training.artifact import served_config
from transfer_platform.training.trial_trainer import TrialTrainer


def dry_run_training(trainer: TrialTrainer, recipes: Iterable[Recipe], say: Say) -> list[Recipe]:
    """Computes gradients for each recipe; returns the first recipe that can be trained for each network to be served.

    These are the backbones with a linear head and with a nearest-neighbor head.

    Args:
        trainer: Trainer of the study.
        recipes: Recipes without search ranges; for example, one for each backbone and value of `freeze_through`.
        say: Receives a message for each recipe that cannot be trained.

    Raises:
        TrainingError: None of the recipes can be trained, or a recipe raised an error that would end the study. The
            message contains the reasons.
    """
    trainable: dict[tuple[Architecture, bool], Recipe] = {}
    failures: list[str] = []
    for recipe in recipes:
        backbone, stage = recipe.backbone.architecture, recipe.backbone.freeze_through
        try:
            trainer.dry_run(recipe)
            trainable.setdefault((backbone, recipe.head.kind == "knn"), recipe)
        except TrainingError as error:
            failures.append(f"{backbone}, frozen through {stage}: {error}")
        except (RuntimeError, ValueError) as error:  # would end the study in a trial, after hours
            raise TrainingError(f"{backbone}, frozen through {stage}, cannot be trained: {cause(error)}") from error
    if not trainable:
        raise TrainingError("\n  ".join(["none of the networks in the recipe can be trained:", *failures]))
    for failure in failures:
        say(f"trials with this network will fail: {failure}")
    return list(trainable.values())


def dry_run_serving(trainer: TrialTrainer, recipes: Iterable[Recipe], folder: Path) -> None:
    """Saves, loads and serves the untrained network of each recipe; temporary files are written to `folder`.

    Raises:
        TrainingError: A network cannot be served; the message names its backbone.
    """
    for recipe in recipes:
        try:
            _serve(trainer, recipe, folder)
        except UnreadableImageError:
            raise
        except (ModelError, MemoryError, RuntimeError, ValueError) as error:
            raise TrainingError(f"{recipe.backbone.architecture} cannot be served: {cause(error)}") from error


def _serve(trainer: TrialTrainer, recipe: Recipe, folder: Path) -> None:
    network, preprocessing = trainer.example_network(recipe).eval(), trainer.preprocessing(recipe)
    image = trainer.splits.development[0].path
    features: list[torch.Tensor] = []
    with torch.inference_mode(), network.register_feature_hook(features.append):
        network(preprocessing.normalize(preprocessing.load(image))[None].to(trainer.device))
    config = served_config(trainer, recipe, network, 1.0, OodThreshold(MAX_OOD_SCORE, FALSE_ALARM_RATE))
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder, prefix="dry-run-") as temporary:
        save(Path(temporary), config, network, OodScorer(features[0]))
        Classifier.load(Path(temporary)).predict([image])
