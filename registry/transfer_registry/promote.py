"""Registration and promotion of a candidate.

If the process is killed at any point, the call can be repeated. The repeated call finds the version by its tags, reuses
the recorded verdict, and does not promote the version twice. The ledger is written before the alias, so every champion
has a ledger entry. If the alias update is interrupted, the next call for the model completes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import mlflow
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from transfer_registry import gate
from transfer_registry.alias import (
    alias_discrepancy,
    apply_move,
    create_move,
    finish_interrupted_move,
    verdict_for_version,
)
from transfer_registry.champion import evaluate_champion
from transfer_registry.errors import RegistryError
from transfer_registry.ledger import EntryKind, Ledger, LedgerEntry
from transfer_registry.mlflow_registry import ALIAS, ARTIFACT_TAG, RUN_TAG, TRIAL_TAG, model_versions
from transfer_registry.parity import PARITY_RULE, parity
from transfer_registry.serving.smoke_test import PARITY_IMAGES, predict_over_http, predict_proba_over_http
from transfer_registry.verdict import Verdict
from transfer_registry.version_files import save_predictions, save_training_hashes

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

    from transfer_registry.candidate import Candidate, Evaluation, Predict, Serve
    from transfer_registry.gate import ChampionPredictions
    from transfer_registry.rules import Rule


@dataclass(frozen=True)
class PromotionResult:
    """Result of `promote_candidate`.

    Attributes:
        verdict: The gate's verdict; the first of its rule results is for the parity rule.
        promoted: True if this verdict made the version the champion, even if the version has since been replaced.
        previous_champion: Version that the candidate was compared with; None if there was no champion.
    """

    model: str
    version: int
    verdict: Verdict
    promoted: bool
    previous_champion: int | None


def promote_candidate(
    candidate: Candidate,
    evaluation: Evaluation,
    rules: Mapping[str, Rule],
    ledger: Ledger,
    serve: Serve = predict_over_http,
    predict: Predict = predict_proba_over_http,
) -> PromotionResult:
    """Registers a candidate, judges it, records the verdict, and makes it the champion if it passed.

    Uses the model registry at MLflow's current tracking URI. A repeated call returns the recorded verdict unless the
    rules, test images or champion have changed.

    `evaluation` must be computed with the files of the candidate's model. `serve` serves the new version and classifies
    some test images over HTTP. `predict` computes the champion's predictions if none are stored.

    Raises:
        RegistryError: A metric that a rule needs is missing, a model cannot be served or loaded, or the MLflow
            registry returned an error. The call can be repeated.
    """
    gate.require_metrics(rules, evaluation.metrics)
    try:
        # Without the lock, two candidates judged at the same time would be compared with the same champion.
        with ledger.exclusive(candidate.model):
            return _Promotion(MlflowClient(), ledger, serve, predict, candidate, evaluation, rules).run()
    except MlflowException as error:
        raise RegistryError(
            f"MLflow's registry at {mlflow.get_registry_uri()} returned an error: {error.message}; "
            "fix the cause and run the same command again to resume"
        ) from error


@dataclass(frozen=True)
class _Promotion:
    """State of a single call to `promote_candidate`."""

    client: MlflowClient
    ledger: Ledger
    serve: Serve
    predict: Predict
    candidate: Candidate
    evaluation: Evaluation
    rules: Mapping[str, Rule]

    def run(self) -> PromotionResult:
        version = self._register()
        finish_interrupted_move(self.client, self.ledger, version.name)
        champion, last_move = self._champion(version), self.ledger.last_move(version.name)
        entry = self._reusable_verdict(version, champion) or self._judge(version, champion)
        move = self._promotion_after(entry)
        if entry.passed and move is None:
            reason = f"passed the gate (ledger entry {entry.id})"
            move = create_move(version, EntryKind.PROMOTION, entry, entry.previous_version, reason)
            self.ledger.append_move(move, expected_last=last_move)
        apply_move(self.client, entry, move)
        return PromotionResult(
            version.name, entry.version, entry.parse_verdict(), move is not None, entry.previous_version
        )

    def _register(self) -> ModelVersion:
        """Returns the version with the candidate's tags; registers it if it does not exist yet."""
        tags = {
            RUN_TAG: self.candidate.run_id,
            TRIAL_TAG: str(self.candidate.trial),
            ARTIFACT_TAG: self.candidate.artifact_digest,
        }
        for version in model_versions(self.client, self.candidate.model):
            if tags.items() <= version.tags.items():
                return version
        return mlflow.register_model(self.candidate.model_uri, self.candidate.model, tags=tags)

    def _champion(self, version: ModelVersion) -> int | None:
        """Returns the champion's version number, or None if there is no champion or the champion is the candidate."""
        champion = self.client.get_registered_model(version.name).aliases.get(ALIAS)
        return None if champion is None or int(champion) == int(version.version) else int(champion)

    def _reusable_verdict(self, version: ModelVersion, champion: int | None) -> LedgerEntry | None:
        """Returns the last verdict if it led to the last move, or if rules, test images and champion are unchanged."""
        last = verdict_for_version(self.ledger, version)
        if last is None:
            return None
        move = self._promotion_after(last)
        if move is not None and move == self.ledger.last_move(version.name):
            return last
        judged = [result.rule for result in last.parse_verdict().results]
        rules = [PARITY_RULE, *(rule.describe(name) for name, rule in self.rules.items())]
        same = last.test_fingerprint == self.evaluation.fingerprint and judged == rules
        return last if same and last.previous_version == champion else None

    def _promotion_after(self, verdict: LedgerEntry) -> LedgerEntry | None:
        for entry in self.ledger.entries(verdict.model):
            same_version = (entry.version, entry.run_id) == (verdict.version, verdict.run_id)
            if entry.kind == EntryKind.PROMOTION and same_version and entry.id > verdict.id:
                return entry
        return None

    def _judge(self, version: ModelVersion, champion: int | None) -> LedgerEntry:
        candidate, evaluation = self.candidate, self.evaluation
        save_predictions(self.client, version, evaluation.fingerprint, evaluation.stored_predictions)
        save_training_hashes(self.client, version, candidate.training_sha256)
        sample = evaluation.sample(PARITY_IMAGES)
        served = self.serve(
            f"models:/{version.name}/{version.version}",
            [evaluation.images[index] for index in sample],
            evaluation.classes,
        )
        predictions = None if champion is None else self._champion_predictions(version.name, champion)
        judged = gate.evaluate_rules(
            evaluation.metrics, evaluation.labels, evaluation.predicted, self.rules, predictions
        )
        verdict = Verdict(
            results=(parity(evaluation.served_output(sample), served, candidate.precision), *judged.results),
            evaluations=self.ledger.count_verdicts(evaluation.fingerprint) + 1,
            note=alias_discrepancy(self.client, self.ledger, version.name),
        )
        return self.ledger.append(
            LedgerEntry(
                kind=EntryKind.VERDICT,
                model=version.name,
                version=int(version.version),
                previous_version=champion,
                run_id=candidate.run_id,
                recipe_fingerprint=candidate.recipe_fingerprint,
                train_fingerprint=candidate.train_fingerprint,
                test_fingerprint=evaluation.fingerprint,
                passed=verdict.passed,
                verdict=verdict.to_json(),
                reason="; ".join(verdict.reasons),
            )
        )

    def _champion_predictions(self, model: str, number: int) -> ChampionPredictions:
        version = self.client.get_model_version(model, str(number))
        verdict = verdict_for_version(self.ledger, version)
        fingerprint = verdict.test_fingerprint if verdict else None
        return evaluate_champion(self.client, version, fingerprint, self.evaluation, self.predict)
