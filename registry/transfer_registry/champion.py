"""Predictions of the current champion for a candidate's test images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from transfer_registry.errors import RegistryError
from transfer_registry.gate import ChampionPredictions
from transfer_registry.mlflow_registry import ALIAS
from transfer_registry.model_files import CLASSES_KEY, read_metadata
from transfer_registry.version_files import StoredPredictions, load_predictions, load_training_hashes, save_predictions

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.tracking import MlflowClient

    from transfer_registry.candidate import Evaluation, Predict

_NO_CLASSES = (
    "its metadata has no class names, so it was not logged by this platform; "
    f"remove the alias {ALIAS!r} to judge candidates by thresholds alone"
)
_TRAINED_ON_TEST_IMAGES = (
    "it was trained on {count} of the {images} test images, so its test accuracy would be overestimated; "
    "remove these images from the test set, or use the split that the champion was trained with"
)
_UNKNOWN_TRAINING_IMAGES = "the champion's training images are unknown and may include test images"


def evaluate_champion(
    client: MlflowClient,
    version: ModelVersion,
    verdict_fingerprint: str | None,
    evaluation: Evaluation,
    predict: Predict,
) -> ChampionPredictions:
    """Returns the champion's predictions for the test images, using stored predictions if they cover all images.

    Classes are matched by name, so their order may differ. `verdict_fingerprint` identifies the test images that
    the champion was judged on, or is None if it was never judged. If an image has no stored prediction, `predict` is
    called for all images, and the new predictions are stored with the version.

    Raises:
        RegistryError: The champion cannot be loaded, or returns probabilities of the wrong shape.
    """
    number = int(version.version)
    stored = load_predictions(client, version, verdict_fingerprint) if verdict_fingerprint else None
    classes = stored.classes if stored else _logged_classes(version)
    if not classes:
        return ChampionPredictions(number, None, _NO_CLASSES)
    if set(classes) != set(evaluation.classes):
        return ChampionPredictions(number, None, _describe_classes(classes, evaluation.classes))
    training = load_training_hashes(client, version)
    if count := len(set(evaluation.sha256) & (training or frozenset())):
        reason = _TRAINED_ON_TEST_IMAGES.format(count=count, images=len(evaluation.images))
        return ChampionPredictions(number, None, reason)
    labels = stored.labels(evaluation.sha256) if stored else None
    if labels is None:
        predictions = _load_or_predict(client, version, classes, evaluation, predict)
        labels = predictions.labels(evaluation.sha256)
    return ChampionPredictions(number, labels, warning=_UNKNOWN_TRAINING_IMAGES if training is None else "")


def _logged_classes(version: ModelVersion) -> tuple[str, ...]:
    """Returns the class names in a version's `MLmodel` file; empty if another tool logged the version."""
    return tuple(read_metadata(f"models:/{version.name}/{version.version}").get(CLASSES_KEY, ()))


def _describe_classes(champion: Sequence[str], candidate: Sequence[str]) -> str:
    only_champion = ", ".join(sorted(set(champion) - set(candidate))) or "none"
    only_candidate = ", ".join(sorted(set(candidate) - set(champion))) or "none"
    return f"the classes differ (only in the champion: {only_champion}; only in the candidate: {only_candidate})"


def _load_or_predict(
    client: MlflowClient, version: ModelVersion, classes: tuple[str, ...], evaluation: Evaluation, predict: Predict
) -> StoredPredictions:
    """Loads or computes the champion's predictions for a test set that it was not judged on."""
    stored = load_predictions(client, version, evaluation.fingerprint)
    if stored and stored.labels(evaluation.sha256):
        return stored
    probabilities = predict(f"models:/{version.name}/{version.version}", evaluation.images)
    if probabilities.shape != (len(evaluation.images), len(classes)):
        raise RegistryError(
            f"the champion, {version.name} version {version.version}, has {len(classes)} classes, but "
            f"returned probabilities of shape {probabilities.shape} for {len(evaluation.images)} images"
        )
    predictions = StoredPredictions(classes, evaluation.sha256, probabilities)
    save_predictions(client, version, evaluation.fingerprint, predictions)
    return predictions
