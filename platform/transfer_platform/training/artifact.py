"""Serving artifact: weights, calibration and out-of-distribution scorer."""

import math
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from transfer_model.classifier import save
from transfer_model.model_json import MAX_OOD_SCORE, ModelConfig, OodThreshold
from transfer_model.network import Network
from transfer_model.ood import OodScorer, ood_threshold
from transfer_platform.evaluation.calibration import fit_temperature
from transfer_platform.progress import Say, silent
from transfer_platform.recipe.promotion_schema import FALSE_ALARM_RATE
from transfer_platform.recipe.schema import Recipe
from transfer_platform.training.loop import FitResult
from transfer_platform.training.trial_trainer import TrialTrainer

MAX_REFERENCE = 2000
"""Maximum number of reference images for the scorer; more images bring little benefit but slow down serving."""


def write_artifact(
    trainer: TrialTrainer, recipe: Recipe, result: FitResult, network: Network, folder: Path, say: Say = silent
) -> Path:
    """Writes a trial's network to a folder that `Classifier.load` can read, and returns the folder.

    `network` comes from `TrialTrainer.finalize`. If unknown images cannot be detected, `say` is called with the reason.
    """
    folder.mkdir(parents=True, exist_ok=True)
    splits = trainer.splits
    scorer, threshold = _fit_ood_scorer(trainer, recipe, result, network, say)
    labels = np.array(splits.labels(splits.selection))
    config = served_config(trainer, recipe, network, fit_temperature(result.logits.numpy(), labels), threshold)
    save(folder, config, network, scorer)
    return folder


def served_config(
    trainer: TrialTrainer, recipe: Recipe, network: Network, temperature: float, unknown: OodThreshold
) -> ModelConfig:
    """Returns the configuration of a trial's served model."""
    return ModelConfig(
        replace(trainer.network_spec(recipe), neighbors=network.spec.neighbors),
        trainer.splits.classes,
        trainer.preprocessing(recipe),
        # Models are served on the CPU by default, where a precision selected for an accelerator would be slow.
        precision=trainer.precision if trainer.device.type == "cpu" else "float32",
        temperature=temperature,
        unknown=unknown,
    )


def _fit_ood_scorer(
    trainer: TrialTrainer, recipe: Recipe, result: FitResult, network: Network, say: Say
) -> tuple[OodScorer, OodThreshold]:
    rate = recipe.promotion.false_alarms if recipe.promotion else FALSE_ALARM_RATE
    required = math.ceil(1 / rate) - 1
    scorer, scores = _held_out_scores(trainer, recipe, result, network, required)
    threshold = OodThreshold(ood_threshold(scores, rate), rate)
    if threshold.threshold == MAX_OOD_SCORE:
        say(f"out-of-distribution detection is disabled: {_missing_for_threshold(scores, rate, required)}")
    return scorer, threshold


def _missing_for_threshold(scores: Tensor, rate: float, required: int) -> str:
    if len(scores) < required:
        return (
            f"a false-alarm rate of {rate:.1%} needs at least {required} held-out images, but there are {len(scores)}"
        )
    return (
        "the network's features do not distinguish the images (the features are equal, zero or not finite); if this is "
        "unexpected, check backbone.weights or try a lower training.learning_rate"
    )


def _held_out_scores(
    trainer: TrialTrainer, recipe: Recipe, result: FitResult, network: Network, required: int
) -> tuple[OodScorer, Tensor]:
    """Returns a network's out-of-distribution scorer and the scores of held-out images.

    With cross-validation, the validation images are scored fold by fold until there are at least `required` scores.
    """
    development, train = range(len(trainer.splits.development)), range(len(trainer.splits.train))
    if network.frozen == len(network.stages):
        # The backbone was not trained, so its features do not depend on any image, and all images count as held out.
        scorer = _scorer(trainer, recipe, network, development)
        return scorer, scorer.leave_one_out()
    scorer = _scorer(trainer, recipe, network, train)
    if not trainer.splits.folds:
        held_out = _reference_positions(trainer, development[len(train) :])
        return scorer, scorer(trainer.features(recipe, network, held_out))
    scores: list[Tensor] = []
    with closing(trainer.out_of_fold_networks(recipe, result)) as fold_networks:
        for fold_network, fold in fold_networks:
            fold_scorer = _scorer(trainer, recipe, fold_network, fold.train)
            held_out = _reference_positions(trainer, fold.validation)
            scores.append(fold_scorer(trainer.features(recipe, fold_network, held_out)))
            if sum(map(len, scores)) >= required:
                break
    return scorer, torch.cat(scores)


def _scorer(trainer: TrialTrainer, recipe: Recipe, network: Network, positions: Iterable[int]) -> OodScorer:
    return OodScorer(trainer.features(recipe, network, _reference_positions(trainer, positions)))


def _reference_positions(trainer: TrialTrainer, positions: Iterable[int]) -> Sequence[int]:
    """Returns the positions of up to `MAX_REFERENCE` distinct images. The choice depends only on image content.

    Duplicates are excluded because distances of 0 would make the threshold too strict.
    """
    images = trainer.splits.development
    distinct = {images[position].sha256: position for position in positions}
    return [distinct[digest] for digest in sorted(distinct)[:MAX_REFERENCE]]
