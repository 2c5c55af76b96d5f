"""Today's champion on today's test images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from transfer_registry import lineage
from transfer_registry.errors import RegistryError
from transfer_registry.gate import ChampionPredictions
from transfer_registry.mlflow_registry import ALIAS
from transfer_registry.predictions import StoredPredictions, load_predictions, save_predictions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlflow.entities.model_registry import ModelVersion
    from mlflow.tracking import MlflowClient

    from transfer_registry.candidate import Evaluation, Predict

_UNKNOWN = (
    "it does not say which classes it knows, as models logged by this platform do; "
    f"without the alias {ALIAS!r} a candidate is judged by the absolute rules alone"
)
_SEEN = (
    "it was taught with {seen} of the {images} test images, which would flatter it; "
    "take these out of the test images, or split the data as it was split for it"
)
_UNKNOWN_LINEAGE = "which images taught the champion is not known, so that it may have seen some of these"


def evaluate_champion(
    client: MlflowClient,
    version: ModelVersion,
    gated_on: str | None,
    evaluation: Evaluation,
    predict: Predict,
) -> ChampionPredictions:
    """The champion's labels for today's test images, from what was kept with it, or else by its own code.

    Classes are matched by name, so their order may differ.

    Args:
        client: Of the registry.
        version: The champion.
        gated_on: Fingerprint of the test images that its own verdict was given on; None where it has none.
        evaluation: The candidate's.
        predict: Called only where an image is new to the champion; what it answers is kept.

    Raises:
        RegistryError: The champion cannot be loaded, or does not answer with its own classes.
    """
    number = int(version.version)
    known = load_predictions(client, version, gated_on) if gated_on else None
    classes = known.classes if known else _described_classes(version)
    if not classes:
        return ChampionPredictions(number, None, _UNKNOWN)
    if set(classes) != set(evaluation.classes):
        return ChampionPredictions(number, None, _other_classes(classes, evaluation.classes))
    taught = lineage.load_training_hashes(client, version)
    if seen := len(set(evaluation.sha256) & (taught or frozenset())):
        return ChampionPredictions(number, None, _SEEN.format(seen=seen, images=len(evaluation.images)))
    labels = known.labels(evaluation.sha256) if known else None
    if labels is None:
        labels = _today(client, version, classes, evaluation, predict).labels(evaluation.sha256)
    return ChampionPredictions(number, labels, warning=_UNKNOWN_LINEAGE if taught is None else "")


def _described_classes(version: ModelVersion) -> tuple[str, ...]:
    """The classes that a version's `MLmodel` file lists; empty where it was not packaged by this platform."""
    # loads torch; few champions need it, those that were not gated here or whose run was deleted
    from mlflow.models import get_model_info

    from transfer_registry.packaging import CLASSES_KEY

    described = get_model_info(f"models:/{version.name}/{version.version}").metadata or {}
    return tuple(described.get(CLASSES_KEY, ()))


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
) -> StoredPredictions:
    """The champion on a test set that it was not gated on, computed once."""
    kept = load_predictions(client, version, evaluation.fingerprint)
    if kept and kept.labels(evaluation.sha256):
        return kept
    probabilities = predict(f"models:/{version.name}/{version.version}", evaluation.images)
    if probabilities.shape != (len(evaluation.images), len(classes)):
        raise RegistryError(
            f"the champion, {version.name} version {version.version}, has {len(classes)} classes, but "
            f"answered {probabilities.shape} probabilities for {len(evaluation.images)} images"
        )
    predictions = StoredPredictions(classes, evaluation.sha256, probabilities)
    save_predictions(client, version, evaluation.fingerprint, predictions)
    return predictions
