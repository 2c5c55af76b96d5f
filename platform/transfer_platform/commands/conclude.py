"""What comes after the search: the best checkpoint is tested in its served form, registered, and judged.

A conclusion is noted with its study and not drawn twice from the same best trial and the same `promotion:`.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from transfer_model.classifier import FILES, Classifier, ClassifierOutput
from transfer_model.config import ModelConfig
from transfer_platform import paths
from transfer_platform.commands.run_report import log_evaluation, log_thresholds, validation_predictions
from transfer_platform.data.splits import Splits
from transfer_platform.evaluation.calibration import remove_temperature
from transfer_platform.evaluation.metrics import cross_entropy, expected_calibration_error
from transfer_platform.evaluation.model_card import FILE as CARD_FILE
from transfer_platform.evaluation.model_card import model_card
from transfer_platform.evaluation.predictions import Predictions
from transfer_platform.progress import Say
from transfer_platform.recipe.resolve import resolve, study_identity
from transfer_platform.recipe.schema import PromotionConfig as PromotionSection
from transfer_platform.recipe.schema import Recipe
from transfer_platform.search.study import Study
from transfer_platform.tracking import Run
from transfer_registry.candidate import Candidate, Evaluation
from transfer_registry.ledger import Ledger
from transfer_registry.mlflow_registry import ARTIFACT_TAG, TRIAL_TAG, is_registered
from transfer_registry.packaging import artifact_digest, find_logged_model, log_model
from transfer_registry.promote import PromotionResult, promote_candidate
from transfer_registry.verdict import Verdict

NOTE = "conclusion"
MODEL_TAG = "platform.model"
"""With a version's tags those of a logged model, by which it is found again after an interruption."""
TIMED_IMAGES = 16
"""Test images whose latency is measured."""


@dataclass(frozen=True)
class Conclusion:
    """What the best checkpoint is worth, and what the gate said to it.

    Attributes:
        metrics: On the test images, and what the served form costs, by name.
        promotion: None where the recipe has no `promotion:`.
    """

    metrics: dict[str, float]
    promotion: PromotionResult | None


def load_conclusion(study: Study, recipe: Recipe, parent: Run) -> Conclusion | None:
    """The conclusion that was drawn from a study before; None where there is none, or things have changed."""
    note = study.attrs.get(NOTE)
    if note is None or note["question"] != _question(study, recipe, parent):
        return None
    answer = note["promotion"]
    if answer is not None:
        if not is_registered(answer["model"], answer["version"], parent.run_id):
            return None
        answer = PromotionResult(**{**answer, "verdict": Verdict.from_json(answer["verdict"])})
    return Conclusion(note["metrics"], answer)


def conclude(
    model: Path,
    recipe: Recipe,
    splits: Splits,
    study: Study,
    parent: Run,
    best: Run | None,
    logits: Tensor,
    say: Say,
) -> Conclusion:
    """Tests a model once, reports, and offers it to the gate where the recipe asks for that.

    Args:
        model: Folder of the best checkpoint in the form in which it is served.
        recipe: Of the study.
        splits: Their test images are read here and nowhere else.
        study: Whose best trial it comes from; the conclusion is noted with it.
        parent: The study's run.
        best: The best trial's run, where this MLflow has it.
        logits: The best trial's, of the images that ranked it (N, C); thresholds are chosen on them.
        say: Given what happens next.
    """
    say("testing the best checkpoint in its served form")
    # On the CPU, where the pyfunc runs: a GPU's arithmetic would differ from the stranger's.
    classifier = Classifier.load(model)
    predictions, answers = _test(classifier, splits)
    metrics = log_evaluation(parent, best, predictions, study.best.number)
    ranked = validation_predictions(splits, logits, classifier.config.temperature)
    log_thresholds(parent, ranked, predictions)
    further = _calibration(classifier, predictions, answers) | _costs(classifier, model, splits)
    parent.log_metrics(further, study.best.number)
    metrics |= further
    images = {role: (len(held), splits.fingerprints[role]) for role, held in splits.by_name.items()}
    best_recipe = resolve(recipe, study.best.params)
    card = model_card(best_recipe, classifier.config, images, predictions, metrics)
    (model / CARD_FILE).write_text(card, encoding="utf-8")
    promotion = None
    if recipe.promotion is not None:
        say("registering it, asking it about test photographs over HTTP, and then the gate")
        promotion = _promote(model, recipe, recipe.promotion, splits, study, parent, answers, metrics)
    conclusion = Conclusion(metrics, promotion)
    study.set_attr(NOTE, _noted(conclusion, _question(study, recipe, parent)))
    return conclusion


def _question(study: Study, recipe: Recipe, parent: Run) -> dict[str, Any]:
    """What a conclusion answers; another best trial, other rules or another MLflow are another question."""
    promotion = recipe.promotion.model_dump(mode="json", by_alias=True) if recipe.promotion else None
    return {"trial": study.best.number, "promotion": promotion, "run": parent.run_id}


def _noted(conclusion: Conclusion, question: dict[str, Any]) -> dict[str, Any]:
    answer = conclusion.promotion
    return {
        "question": question,
        "metrics": conclusion.metrics,
        "promotion": answer and {**vars(answer), "verdict": answer.verdict.to_json()},
    }


def _test(classifier: Classifier, splits: Splits) -> tuple[Predictions, ClassifierOutput]:
    images = [image.path for image in splits.test]
    labels = [classifier.classes.index(image.label) for image in splits.test]
    answers = classifier.predict(images)
    return Predictions(classifier.classes, images, np.array(labels), answers.probabilities), answers


def _calibration(
    classifier: Classifier, predictions: Predictions, answers: ClassifierOutput
) -> dict[str, float]:
    """What calibration changed, and how many of the test images are called unknown though they are none."""
    description = classifier.config
    before = remove_temperature(predictions.probabilities, description.temperature)
    return {
        "test/unknown": float(np.mean(answers.ood_scores > description.unknown.threshold)),
        "test/ece_uncalibrated": expected_calibration_error(predictions.labels, before),
        "test/loss_uncalibrated": cross_entropy(predictions.labels, before),
    }


def _costs(classifier: Classifier, model: Path, splits: Splits) -> dict[str, float]:
    """What the served form costs here: the time of one image, from its file to its answer, and its size."""
    milliseconds = []
    for image in splits.test[:TIMED_IMAGES]:
        start = time.perf_counter()
        classifier.predict_proba([image.path])
        milliseconds.append(1000 * (time.perf_counter() - start))
    size = sum((model / name).stat().st_size for name in FILES)
    return {"served/latency_ms": statistics.median(milliseconds), "served/size_mb": size / 1e6}


def _promote(
    model: Path,
    recipe: Recipe,
    section: PromotionSection,
    splits: Splits,
    study: Study,
    parent: Run,
    answers: ClassifierOutput,
    metrics: dict[str, float],
) -> PromotionResult:
    trial, form, description = study.best.number, artifact_digest(model), ModelConfig.read(model)
    origin = {TRIAL_TAG: str(trial), MODEL_TAG: section.model, ARTIFACT_TAG: form}
    logged = find_logged_model(parent.run_id, origin)
    candidate = Candidate(
        model=section.model,
        model_uri=logged or log_model(model, section.model, parent.run_id, tags=origin).model_uri,
        run_id=parent.run_id,
        trial=trial,
        artifact_digest=form,
        recipe_fingerprint=study_identity(recipe),
        train_fingerprint=splits.fingerprints["train"],
        precision=description.precision,
        training_sha256=tuple(image.sha256 for image in splits.development),
    )
    evaluation = Evaluation(
        metrics=metrics,
        classes=splits.classes,
        images=tuple(image.path for image in splits.test),
        sha256=tuple(image.sha256 for image in splits.test),
        labels=tuple(image.label for image in splits.test),
        probabilities=answers.probabilities,
        fingerprint=splits.fingerprints["test"],
        ood_scores=answers.ood_scores,
        threshold=description.unknown.threshold,
    )
    with Ledger.open(paths.ledger_url()) as ledger:
        return promote_candidate(candidate, evaluation, section.gate.rules, ledger)
