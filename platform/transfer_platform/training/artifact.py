"""What a trial leaves, in the form in which it is served: weights, temperature, and what is familiar."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from transfer_model.classifier import save
from transfer_model.config import MAX_OOD_SCORE, ModelConfig, OodThreshold
from transfer_model.network import Network
from transfer_model.ood import OodScorer, ood_threshold
from transfer_platform.evaluation.calibration import fit_temperature
from transfer_platform.progress import Say, silent
from transfer_platform.recipe.schema import FALSE_ALARM_RATE, Recipe
from transfer_platform.training.loop import FitResult
from transfer_platform.training.trial_trainer import TrialTrainer

MAX_REFERENCE = 2000
"""Images in a reference; further ones would make the served form larger and slower, and little else."""


def write_artifact(
    bench: TrialTrainer, recipe: Recipe, fitted: FitResult, network: Network, folder: Path, say: Say = silent
) -> Path:
    """Writes what `Classifier.load` reads.

    Args:
        bench: The trial was run on.
        recipe: Of the trial.
        fitted: What it came to.
        network: As `TrialTrainer.finalize` returned it.
        folder: Made where it does not exist.
        say: Told where nothing will be called unknown.

    Returns:
        The folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    splits = bench.splits
    novelty, unknown = _familiar(bench, recipe, fitted, network, say)
    labels = np.array([splits.classes.index(image.label) for image in splits.selection])
    description = ModelConfig(
        bench.spec(recipe),
        splits.classes,
        bench.preprocessing(recipe),
        # A pyfunc runs on a CPU unless told otherwise: an accelerator's precision would be slow there.
        precision=bench.precision if bench.device.type == "cpu" else "float32",
        temperature=fit_temperature(fitted.logits.numpy(), labels),
        unknown=unknown,
    )
    save(folder, description, network, novelty)
    return folder


def _familiar(
    bench: TrialTrainer, recipe: Recipe, fitted: FitResult, network: Network, say: Say
) -> tuple[OodScorer, OodThreshold]:
    """A network's reference, and the threshold on images that are new to both."""
    false_alarms = recipe.promotion.false_alarms if recipe.promotion else FALSE_ALARM_RATE
    needed = math.ceil(1 / false_alarms) - 1
    novelty, distances = _distances(bench, recipe, fitted, network, needed)
    unknown = OodThreshold(ood_threshold(distances, false_alarms), false_alarms)
    if unknown.threshold == MAX_OOD_SCORE:
        say(
            f"no image will be called unknown: {len(distances)} held-out images are too few to keep "
            f"false alarms at {false_alarms:.1%}; {needed} would do"
        )
    return novelty, unknown


def _distances(
    bench: TrialTrainer, recipe: Recipe, fitted: FitResult, network: Network, needed: int
) -> tuple[OodScorer, Tensor]:
    """A network's reference, and the novelty of images that are new to both, `needed` of them or more."""
    teaching, train = range(len(bench.splits.development)), range(len(bench.splits.train))
    if network.frozen == len(network.stages):
        # None of them taught it anything but its head: each is new to the others.
        novelty = _reference(bench, recipe, network, teaching)
        return novelty, novelty.leave_one_out()
    novelty = _reference(bench, recipe, network, train)
    if not bench.splits.folds:
        held_out = _chosen(bench, teaching[len(train) :])
        return novelty, novelty(bench.features(recipe, network, held_out))
    distances: list[Tensor] = []
    with closing(bench.networks_without_fold(recipe, fitted)) as taught_by_others:
        for other, fold in taught_by_others:
            known, held_out = _reference(bench, recipe, other, fold.train), _chosen(bench, fold.validation)
            distances.append(known(bench.features(recipe, other, held_out)))
            if sum(map(len, distances)) >= needed:
                break
    return novelty, torch.cat(distances)


def _reference(bench: TrialTrainer, recipe: Recipe, network: Network, positions: Iterable[int]) -> OodScorer:
    return OodScorer(bench.features(recipe, network, _chosen(bench, positions)))


def _chosen(bench: TrialTrainer, positions: Iterable[int]) -> Sequence[int]:
    """Up to `MAX_REFERENCE` of some positions; which ones depends on the images' content alone.

    Of copies one: they are not new to each other, and would make the threshold too strict.
    """
    images = bench.splits.development
    distinct = {images[position].sha256: position for position in positions}
    return [distinct[digest] for digest in sorted(distinct)[:MAX_REFERENCE]]
