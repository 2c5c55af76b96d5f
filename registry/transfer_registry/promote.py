"""The door of the registry: a candidate is registered, judged, written down, and made champion if it passed.

Every step can be repeated. Killed between any two of them, the same call goes on and ends in the same state:

    register the version        found again by its tags: run, trial, false alarms
    keep its test predictions   replaced by equal ones
    verdict                     in the ledger; not given again while the question is the same
    promotion                   in the ledger; at most one after a verdict
    alias, description, tags    written again until the tag `platform.ledger_entry`, the last, names the entry

The ledger is written before the alias, so what is served was always decided; a move that was written down but
not carried out is finished by the next call for the same registered model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import mlflow
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from transfer_registry import gate, lineage
from transfer_registry.alias import apply_move, finish_interrupted_move
from transfer_registry.champion import evaluate_champion
from transfer_registry.entry import EntryKind, LedgerEntry
from transfer_registry.errors import RegistryError
from transfer_registry.ledger import Ledger
from transfer_registry.mlflow_registry import ALIAS, ARTIFACT_TAG, RUN_TAG, TRIAL_TAG, model_versions
from transfer_registry.parity import PARITY_RULE as PARITY
from transfer_registry.parity import parity
from transfer_registry.predictions import save_predictions
from transfer_registry.serving.smoke_test import (
    PARITY_IMAGES,
    predict_over_http,
    predict_proba_over_http,
)
from transfer_registry.standing import alias_discrepancy, verdict_for_version
from transfer_registry.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlflow.entities.model_registry import ModelVersion

    from transfer_registry.candidate import Candidate, Evaluation, Predict, Serve
    from transfer_registry.gate import ChampionPredictions
    from transfer_registry.rules import Rule


@dataclass(frozen=True)
class PromotionResult:
    """How it ended.

    Attributes:
        model: The registered model.
        version: The candidate's version.
        verdict: The gate's, parity first.
        promoted: Whether the version was made champion after this verdict (it may have been succeeded since).
        champion_before: The version it was compared with and would succeed; None where there was none.
    """

    model: str
    version: int
    verdict: Verdict
    promoted: bool
    previous_champion: int | None


def promote_candidate(
    candidate: Candidate,
    evaluation: Evaluation,
    rules: Sequence[Rule],
    ledger: Ledger,
    serve: Serve = predict_over_http,
    predict: Predict = predict_proba_over_http,
) -> PromotionResult:
    """Registers a candidate, asks the gate, writes the ledger, and moves the alias `champion` if it passed.

    The registry is that of MLflow's current tracking URI. Asked again about the same candidate, it answers
    from the ledger, unless the rules, the test images or the champion have changed since.

    Args:
        candidate: A model that has been logged.
        evaluation: Its answers on the test images, in the form that is served.
        rules: The gate's.
        ledger: Where verdict and promotion are recorded.
        serve: Serves the registered version, and asks it about a sample of the test images.
        predict: Lets the champion classify test images that are new to it, by its own code.

    Raises:
        RegistryError: A rule names a metric that was not measured, a model cannot be loaded by a stranger, or
            MLflow's registry refuses. Nothing is decided then; the same call can be made again.
    """
    gate.require_metrics(rules, evaluation.metrics)
    try:
        # Two that are judged at once would both succeed the same champion.
        with ledger.exclusive(candidate.model):
            return _promote(_Context(MlflowClient(), ledger, serve, predict), candidate, evaluation, rules)
    except MlflowException as error:
        raise RegistryError(
            f"MLflow's registry at {mlflow.get_registry_uri()} refused: {error.message}; "
            "when that is mended, the same command goes on from here"
        ) from error


@dataclass(frozen=True)
class _Context:
    """What every step needs."""

    client: MlflowClient
    ledger: Ledger
    serve: Serve
    predict: Predict


def _promote(
    door: _Context, candidate: Candidate, evaluation: Evaluation, rules: Sequence[Rule]
) -> PromotionResult:
    version = _register_once(door.client, candidate)
    finish_interrupted_move(door.client, door.ledger, candidate.model)
    before, seen = _champion_before(door.client, version), door.ledger.last_move(candidate.model)
    decision = _standing_verdict(door.ledger, version, evaluation, rules, before)
    if decision is None:
        decision = _decide(door, candidate, version, evaluation, rules, before)
    move = _promotion_after(door.ledger, decision)
    if decision.passed and move is None:
        move = door.ledger.append_move(_promotion_entry(decision), seen=seen)
    apply_move(door.client, decision, move)
    return PromotionResult(
        model=candidate.model,
        version=decision.version,
        verdict=Verdict.from_json(decision.verdict or ""),
        promoted=move is not None,
        previous_champion=decision.previous_version,
    )


def _register_once(client: MlflowClient, candidate: Candidate) -> ModelVersion:
    """`register_model` makes a new version at every call, so the tags are asked first."""
    own = {
        RUN_TAG: candidate.run_id,
        TRIAL_TAG: str(candidate.trial),
        ARTIFACT_TAG: candidate.artifact_digest,
    }
    if found := [
        each for each in model_versions(client, candidate.model) if own.items() <= each.tags.items()
    ]:
        return found[0]
    return mlflow.register_model(candidate.model_uri, candidate.model, tags=own)


def _champion_before(client: MlflowClient, version: ModelVersion) -> int | None:
    """The version that the alias points at; None where there is none, or it is the candidate itself."""
    champion = client.get_registered_model(version.name).aliases.get(ALIAS)
    return None if champion is None or int(champion) == int(version.version) else int(champion)


def _standing_verdict(
    ledger: Ledger, version: ModelVersion, evaluation: Evaluation, rules: Sequence[Rule], before: int | None
) -> LedgerEntry | None:
    """The last verdict on a version, while it still answers today's question.

    A champion's stands: it is not compared with itself. Any other stands on the same test images and rules,
    if it was given against today's champion: one that has been succeeded is asked whether it is better.
    """
    last = verdict_for_version(ledger, version)
    if last is None:
        return None
    move = _promotion_after(ledger, last)
    if move is not None and move == ledger.last_move(version.name):
        return last
    asked = [finding.rule for finding in Verdict.from_json(last.verdict or "").results]
    same_question = last.test_fingerprint == evaluation.fingerprint and asked == [PARITY, *map(str, rules)]
    return last if same_question and last.previous_version == before else None


def _promotion_after(ledger: Ledger, decision: LedgerEntry) -> LedgerEntry | None:
    promotions = (
        entry
        for entry in ledger.entries(decision.model)
        if entry.kind == EntryKind.PROMOTION
        and (entry.version, entry.run_id) == (decision.version, decision.run_id)
        and entry.id > decision.id
    )
    return next(promotions, None)


def _decide(
    door: _Context,
    candidate: Candidate,
    version: ModelVersion,
    evaluation: Evaluation,
    rules: Sequence[Rule],
    before: int | None,
) -> LedgerEntry:
    """Gives a verdict, and writes it into the ledger."""
    save_predictions(door.client, version, evaluation.fingerprint, evaluation.stored_predictions)
    lineage.save_training_hashes(door.client, version, candidate.training_sha256)
    sample = list(evaluation.sample(PARITY_IMAGES))
    served = door.serve(
        f"models:/{version.name}/{version.version}",
        [evaluation.images[index] for index in sample],
        evaluation.classes,
    )
    champion = None if before is None else _champion(door, version.name, before, evaluation)
    answers = gate.evaluate_rules(
        evaluation.metrics, evaluation.labels, evaluation.predicted, rules, champion
    )
    same = parity(evaluation.served_output(sample), served, candidate.precision)
    looks = door.ledger.count_verdicts(evaluation.fingerprint) + 1
    remark = alias_discrepancy(door.client, door.ledger, version.name)
    verdict = Verdict((same, *answers.results), looks, remark)
    return door.ledger.append(
        LedgerEntry(
            kind=EntryKind.VERDICT,
            model=version.name,
            version=int(version.version),
            previous_version=before,
            run_id=candidate.run_id,
            recipe_fingerprint=candidate.recipe_fingerprint,
            train_fingerprint=candidate.train_fingerprint,
            test_fingerprint=evaluation.fingerprint,
            passed=verdict.passed,
            verdict=verdict.to_json(),
            reason="; ".join(verdict.reasons),
        )
    )


def _champion(door: _Context, model: str, number: int, evaluation: Evaluation) -> ChampionPredictions:
    version = door.client.get_model_version(model, str(number))
    judged = verdict_for_version(door.ledger, version)
    gated_on = judged.test_fingerprint if judged else None
    return evaluate_champion(door.client, version, gated_on, evaluation, door.predict)


def _promotion_entry(decision: LedgerEntry) -> LedgerEntry:
    return LedgerEntry(
        kind=EntryKind.PROMOTION,
        model=decision.model,
        version=decision.version,
        previous_version=decision.previous_version,
        run_id=decision.run_id,
        recipe_fingerprint=decision.recipe_fingerprint,
        train_fingerprint=decision.train_fingerprint,
        test_fingerprint=decision.test_fingerprint,
        reason=f"passed the gate, ledger entry {decision.id}",
    )
