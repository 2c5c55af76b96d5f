"""Evaluates, registers and promotes the best trial of a study."""

import statistics
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from transfer_model.classifier import FILES, Classifier, ClassifierOutput
from transfer_platform import databases
from transfer_platform.commands._ten_crops import CROPS, ten_crop_probabilities
from transfer_platform.commands.run_report import log_evaluation, log_thresholds, validation_predictions
from transfer_platform.data.splits import Splits
from transfer_platform.evaluation.calibration import expected_calibration_error, remove_temperature
from transfer_platform.evaluation.metrics import cross_entropy
from transfer_platform.evaluation.model_card import FILE as CARD_FILE
from transfer_platform.evaluation.model_card import model_card
from transfer_platform.evaluation.predictions import Predictions
from transfer_platform.progress import Say
from transfer_platform.recipe.promotion_schema import PromotionConfig
from transfer_platform.recipe.resolve import resolve, study_identity
from transfer_platform.recipe.schema import Recipe
from transfer_platform.search.study import Study
from transfer_platform.tracking import Run
from transfer_platform.training.loop import objective
from transfer_registry.candidate import Candidate, Evaluation
from transfer_registry.mlflow_registry import ARTIFACT_TAG, TRIAL_TAG, is_registered
from transfer_registry.packaging import artifact_digest, find_logged_model, log_model
from transfer_registry.promote import PromotionResult, promote_candidate
from transfer_registry.verdict import Verdict

ATTRIBUTE = "conclusion"
"""Name of the study attribute that stores the conclusion."""
MODEL_TAG = "platform.model"
"""Tag on a logged model; this tag, `TRIAL_TAG` and `ARTIFACT_TAG` identify the model when a run is resumed."""
TIMED_IMAGES = 16
"""Number of test images used to measure latency."""


@dataclass(frozen=True)
class Conclusion:
    """The best trial's evaluation, and the gate's decision.

    Attributes:
        metrics: Values by metric name: the test metrics, and the latency and size of the served model.
        promotion: Decision of the gate; None if the recipe has no `promotion:`.
    """

    metrics: dict[str, float]
    promotion: PromotionResult | None


def load_conclusion(study: Study, recipe: Recipe, parent: Run, model: Path) -> Conclusion | None:
    """Returns the stored conclusion of a study.

    Returns:
        The conclusion, or None if there is none or it is outdated. It is outdated if the best trial, `promotion:` or
        the MLflow run has changed, or if the registered version or a model file no longer exists.
    """
    stored = study.user_attrs.get(ATTRIBUTE)
    if stored is None or stored["inputs"] != _inputs(study, recipe, parent):
        return None
    if not all((model / name).exists() for name in FILES):
        return None
    promotion = stored["promotion"]
    if promotion is not None:
        if not is_registered(promotion["model"], promotion["version"], parent.run_id):
            return None
        promotion = PromotionResult(**{**promotion, "verdict": Verdict.from_json(promotion["verdict"])})
    return Conclusion(stored["metrics"], promotion)


def conclude(
    model: Path, recipe: Recipe, splits: Splits, study: Study, parent: Run, best: Run | None, logits: Tensor, say: Say
) -> Conclusion:
    """Evaluates a model on the test images, logs the results and submits the model to the gate.

    Args:
        model: Folder with the best trial's model, as it will be served.
        recipe: Recipe of the study.
        splits: Dataset splits. During a study, only this function runs a model on the test images.
        study: Study in which the conclusion is stored.
        parent: MLflow run of the study.
        best: MLflow run of the best trial; None if the tracking server has no such run.
        logits: Validation logits (N, C) of the best trial, used to choose thresholds.
        say: Called with each message that should stay on the screen.
    """
    say("Evaluating the best trial on the test set")
    # On the CPU, like the pyfunc: GPU results would not be bit-identical to those of the served model.
    classifier = Classifier.load(model)
    output = classifier.predict([image.path for image in splits.test])
    predictions = _predictions(classifier, output, splits)
    metrics = log_evaluation(parent, best, predictions, study.best, objective(recipe).metric)
    validation = validation_predictions(splits, logits, classifier.config.temperature)
    log_thresholds(parent, validation, predictions)
    more = _calibration_metrics(classifier, predictions, output) | _serving_cost(classifier, model, splits)
    if recipe.evaluation.crops == CROPS:
        say(f"Evaluating the best trial on {CROPS} crops of each test image")
        more |= _ten_crop_metrics(classifier, predictions)
    parent.log_latest(more, study.best.number)
    metrics |= more
    _write_model_card(model, recipe, splits, study, classifier, predictions, metrics)
    promotion = None
    if recipe.promotion is not None:
        say("Registering the model, checking served predictions and running promotion checks")
        candidate = _candidate(model, recipe, recipe.promotion, splits, study, parent, classifier)
        evaluation = _evaluation(classifier, output, splits, metrics)
        promotion = _promote(recipe.promotion, candidate, evaluation)
    conclusion = Conclusion(metrics, promotion)
    study.set_user_attr(ATTRIBUTE, _as_json(conclusion, _inputs(study, recipe, parent)))
    return conclusion


def _inputs(study: Study, recipe: Recipe, parent: Run) -> dict[str, Any]:
    """Returns the values that a stored conclusion depends on: the best trial, `promotion:` and the MLflow run."""
    best = study.best
    promotion = recipe.promotion.model_dump(mode="json", by_alias=True) if recipe.promotion else None
    crops = {"crops": recipe.evaluation.crops} if recipe.evaluation.crops > 1 else {}
    seeds = {"seeds": [*best.seed_values]} if best.seed_values else {}
    return {"trial": best.number, "promotion": promotion, "run": parent.run_id, **crops, **seeds}


def _as_json(conclusion: Conclusion, inputs: dict[str, Any]) -> dict[str, Any]:
    promotion = conclusion.promotion
    return {
        "inputs": inputs,
        "metrics": conclusion.metrics,
        "promotion": promotion and {**vars(promotion), "verdict": promotion.verdict.to_json()},
    }


def _predictions(classifier: Classifier, output: ClassifierOutput, splits: Splits) -> Predictions:
    labels = [classifier.classes.index(image.label) for image in splits.test]
    files = [image.path for image in splits.test]
    intensity = classifier.config.preprocessing.intensity
    return Predictions(classifier.classes, files, np.array(labels), output.probabilities, intensity)


def _calibration_metrics(
    classifier: Classifier, predictions: Predictions, output: ClassifierOutput
) -> dict[str, float]:
    """Returns the share of test images flagged as unknown, and the loss and calibration error before calibration."""
    config = classifier.config
    before = remove_temperature(predictions.probabilities, config.temperature)
    return {
        "test/unknown": float(np.mean(output.ood_scores > config.unknown.threshold)),
        "test/ece_uncalibrated": expected_calibration_error(predictions.labels, before),
        "test/loss_uncalibrated": cross_entropy(predictions.labels, before),
    }


def _ten_crop_metrics(classifier: Classifier, predictions: Predictions) -> dict[str, float]:
    """Returns the accuracy and loss of the probabilities that are averaged over 10 crops of each test image."""
    averaged = replace(predictions, probabilities=ten_crop_probabilities(classifier, predictions.paths))
    return {f"{name}_{CROPS}_crops": averaged.scores("test")[name] for name in ("test/accuracy", "test/loss")}


def _serving_cost(classifier: Classifier, model: Path, splits: Splits) -> dict[str, float]:
    """Returns the median time to classify an image file on this machine, and the model's size on disk."""
    milliseconds = []
    for image in splits.test[:TIMED_IMAGES]:
        start = time.perf_counter()
        classifier.predict_proba([image.path])
        milliseconds.append(1000 * (time.perf_counter() - start))
    size = sum((model / name).stat().st_size for name in FILES)
    return {"served/latency_ms": statistics.median(milliseconds), "served/size_mb": size / 1e6}


def _write_model_card(
    model: Path,
    recipe: Recipe,
    splits: Splits,
    study: Study,
    classifier: Classifier,
    predictions: Predictions,
    metrics: dict[str, float],
) -> None:
    images = {split: (len(held), splits.fingerprints[split]) for split, held in splits.by_name.items()}
    best, metric = study.best, objective(recipe).metric
    card = model_card(
        resolve(recipe, best.params), classifier.config, images, predictions, metrics, f"{metric} {best.score}"
    )
    (model / CARD_FILE).write_text(card, encoding="utf-8")


def _candidate(
    model: Path,
    recipe: Recipe,
    promotion: PromotionConfig,
    splits: Splits,
    study: Study,
    parent: Run,
    classifier: Classifier,
) -> Candidate:
    trial, digest = study.best.number, artifact_digest(model)
    tags = {TRIAL_TAG: str(trial), MODEL_TAG: promotion.model, ARTIFACT_TAG: digest}
    logged = find_logged_model(parent.run_id, tags)
    return Candidate(
        model=promotion.model,
        model_uri=logged or log_model(model, promotion.model, parent.run_id, tags=tags).model_uri,
        run_id=parent.run_id,
        trial=trial,
        artifact_digest=digest,
        recipe_fingerprint=study_identity(recipe),
        train_fingerprint=splits.fingerprints["train"],
        precision=classifier.config.precision,
        training_sha256=tuple(image.sha256 for image in splits.development),
    )


def _evaluation(
    classifier: Classifier, output: ClassifierOutput, splits: Splits, metrics: dict[str, float]
) -> Evaluation:
    return Evaluation(
        metrics=metrics,
        classes=splits.classes,
        images=tuple(image.path for image in splits.test),
        sha256=tuple(image.sha256 for image in splits.test),
        labels=tuple(image.label for image in splits.test),
        probabilities=output.probabilities,
        fingerprint=splits.fingerprints["test"],
        ood_scores=output.ood_scores,
        threshold=classifier.config.unknown.threshold,
    )


def _promote(promotion: PromotionConfig, candidate: Candidate, evaluation: Evaluation) -> PromotionResult:
    with databases.open_ledger() as ledger:
        return promote_candidate(candidate, evaluation, promotion.gate.rules, ledger)
