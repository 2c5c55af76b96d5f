"""Today's champion on today's test images."""

from __future__ import annotations

from collections.abc import Sequence

from mlflow.entities.model_registry import ModelVersion
from mlflow.tracking import MlflowClient

from transfer_registry.candidate import Evaluation, Predict
from transfer_registry.gate import Champion
from transfer_registry.predictions import Predictions, keep, recall


def champion_today(
    client: MlflowClient,
    version: ModelVersion,
    gated_on: str | None,
    evaluation: Evaluation,
    predict: Predict,
) -> Champion:
    """The champion's labels for today's test images, from what was kept with it, or else by its own code.

    Classes are matched by name, so their order may differ.

    Args:
        client: Of the registry.
        version: The champion.
        gated_on: Fingerprint of the test images that its own verdict was given on; None where it has none.
        evaluation: The candidate's.
        predict: Called only where an image is new to the champion; what it answers is kept.
    """
    number = int(version.version)
    known = recall(client, version, gated_on) if gated_on else None
    if known is None:
        return Champion(number, None, "it did not come through this gate, so its classes are not known")
    if set(known.classes) != set(evaluation.classes):
        return Champion(number, None, _other_classes(known.classes, evaluation.classes))
    labels = known.labels(evaluation.sha256)
    if labels is None:
        labels = _today(client, version, known.classes, evaluation, predict).labels(evaluation.sha256)
    return Champion(number, labels)


def _other_classes(champion: Sequence[str], candidate: Sequence[str]) -> str:
    only_champion = ", ".join(sorted(set(champion) - set(candidate))) or "none"
    only_candidate = ", ".join(sorted(set(candidate) - set(champion))) or "none"
    return f"their classes differ (only the champion: {only_champion}; only the candidate: {only_candidate})"


def _today(
    client: MlflowClient,
    version: ModelVersion,
    classes: tuple[str, ...],
    evaluation: Evaluation,
    predict: Predict,
) -> Predictions:
    """The champion on a test set that it was not gated on, computed once."""
    kept = recall(client, version, evaluation.fingerprint)
    if kept and kept.labels(evaluation.sha256):
        return kept
    probabilities = predict(f"models:/{version.name}/{version.version}", evaluation.images)
    predictions = Predictions(classes, evaluation.sha256, probabilities)
    keep(client, version, evaluation.fingerprint, predictions)
    return predictions
