"""Heads that are solved exactly on the features of a frozen backbone.

Unlike a head that is trained step by step, such a head does not depend on a learning rate or a number of epochs. A
solver returns the heads for all values of its hyperparameter and all folds in one go; in a trial, each value takes the
place of an epoch.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from transfer_platform.errors import TrainingError
from transfer_platform.evaluation.calibration import fit_temperature
from transfer_platform.evaluation.metrics import scores
from transfer_platform.recipe.schema import TrainingConfig
from transfer_platform.solvers.discriminant import lda_path, prototype_path
from transfer_platform.solvers.linear_path import LinearPath
from transfer_platform.solvers.logistic import logistic_path
from transfer_platform.solvers.ridge import ridge_path
from transfer_platform.training.batches import TrialData
from transfer_platform.training.class_weights import balanced_weights
from transfer_platform.training.loop import EpochResult, FitResult, Objective


@dataclass(frozen=True)
class HeadSolver:
    """One way to solve a linear head.

    Attributes:
        solve: Takes features (N, F), class probabilities (N, C), image weights (K, N) and V values of the
            hyperparameter; returns the heads for all values and all K weightings.
        hyperparameter: Name in metrics and messages.
        values: Values of the hyperparameter for features whose mean squared distance from their mean is 1.
        power: The value for features that are s times as large is `value * s**power`.
        sharpness: Factor that brings the scores into the range of logits, so that temperature scaling can calibrate
            them; None if the scores are calibrated logits already.
        needs_all_classes: Whether every class needs a training image in every fold.
    """

    solve: Callable[[Tensor, Tensor, Tensor, Sequence[float]], LinearPath]
    hyperparameter: str
    values: tuple[float, ...]
    power: int
    sharpness: float | None = None
    needs_all_classes: bool = False


def _prototypes(features: Tensor, targets: Tensor, weights: Tensor, _values: Sequence[float]) -> LinearPath:
    return prototype_path(features, targets, weights)


SOLVERS: Mapping[str, HeadSolver] = {
    "logistic": HeadSolver(logistic_path, "C", tuple(10 ** (step / 4) for step in range(-4, 17)), power=-2),
    "ridge": HeadSolver(ridge_path, "alpha", tuple(10 ** (step / 4) for step in range(-12, 13)), 2, sharpness=10),
    "lda": HeadSolver(
        lda_path, "shrinkage", tuple(2**-step for step in range(12)), 0, sharpness=0.1, needs_all_classes=True
    ),
    "prototype": HeadSolver(_prototypes, "none", (1.0,), 0, sharpness=10, needs_all_classes=True),
}
"""Solver of each `head.kind`, apart from `linear`, which is trained."""


class SolvedHead:
    """Linear classification problem on fixed features.

    Args:
        kind: A key of `SOLVERS`.
        features: Inputs of the head (N, F).
        classes: Class names.
        config: Only `class_weights` (not `auto`) and `label_smoothing` are used.
    """

    def __init__(self, kind: str, features: Tensor, classes: Sequence[str], config: TrainingConfig) -> None:
        self._kind, self._solver, self._classes, self._config = kind, SOLVERS[kind], classes, config
        rows = features.to("cpu", torch.float64)
        self._scale = float((rows - rows.mean(dim=0)).square().sum(dim=1).mean().sqrt()) or 1.0
        self._features = rows / self._scale

    def fit(
        self, folds: Sequence[TrialData], objective: Objective, after_value: Callable[[EpochResult], None]
    ) -> FitResult:
        """Solves the head for every value and every fold; returns the value with the best metric on held-out images.

        Args:
            folds: Training and validation images of each fold; a single item if there is a validation split.
            objective: Metric that ranks the values.
            after_value: Called for each value, as for an epoch.

        Returns:
            The result, without weights. Its logits are those of all held-out images in ascending order of position.

        Raises:
            TrainingError: The head cannot be solved.
        """
        start = time.perf_counter()
        path = self._solve(folds, self._solver.values)
        positions = torch.tensor(sorted(position for fold in folds for position in fold.validation))
        labels = folds[0].labels[positions]
        all_logits = self._held_out_logits(path, folds)[:, positions]
        seconds = (time.perf_counter() - start) / len(all_logits)
        results = []
        for number, logits in enumerate(all_logits, start=1):
            results.append(EpochResult(number, {**self._metrics(number, logits, labels), "seconds": seconds}))
            after_value(results[-1])
        best = results[0]
        for result in results[1:]:
            if objective.is_better(result.metrics[objective.metric], best.metrics[objective.metric]):
                best = result
        return FitResult(tuple(results), best, all_logits[best.number - 1].float())

    def refit(self, data: TrialData, number: int) -> tuple[Tensor, Tensor]:
        """Solves the head on the training images of `data` for one value, counted from 1.

        Returns:
            Weights (C, F) and biases (C,) for the original features.
        """
        path = self._solve([data], self._solver.values[number - 1 : number])
        return path.weight[0, 0] / self._scale, path.bias[0, 0]

    def _solve(self, folds: Sequence[TrialData], values: Sequence[float]) -> LinearPath:
        targets = functional.one_hot(folds[0].labels, len(self._classes)).double()
        smoothing = self._config.label_smoothing
        targets = (1 - smoothing) * targets + smoothing / len(self._classes)
        weights = torch.stack([self._image_weights(fold) for fold in folds])
        try:
            path = self._solver.solve(self._features, targets, weights, values)
        except ArithmeticError as error:
            raise TrainingError(f"head.kind: {self._kind}: {error}") from error
        factor = self._solver.sharpness or 1.0
        return LinearPath(path.weight * factor, path.bias * factor)

    def _image_weights(self, fold: TrialData) -> Tensor:
        """Returns the weight of each image in the loss (N,), with a mean of 1 over training images and 0 elsewhere."""
        train = torch.tensor(fold.train)
        labels = fold.labels[train]
        if self._solver.needs_all_classes:
            self._require_all_classes(labels)
        used = torch.ones(len(train)) if fold.weights is None else fold.weights[train]
        if self._config.class_weights == "balanced":
            used = used * balanced_weights(labels, len(self._classes))[labels]
        weights = torch.zeros(len(fold.labels), dtype=torch.float64)
        weights[train] = used.double() / used.double().mean()
        return weights

    def _require_all_classes(self, labels: Tensor) -> None:
        counts = torch.bincount(labels, minlength=len(self._classes))
        if not counts.all():
            missing = self._classes[int(counts.argmin())]
            raise TrainingError(
                f"head.kind: {self._kind} requires training images of every class in every fold, but a fold has none of "
                f"{missing!r}; use head.kind: logistic, or add images of this class"
            )

    def _held_out_logits(self, path: LinearPath, folds: Sequence[TrialData]) -> Tensor:
        """Returns logits (V, N, C) of all images; those of an image that no fold holds out are 0."""
        logits = torch.zeros(len(path.weight), len(self._features), len(self._classes), dtype=torch.float64)
        for index, fold in enumerate(folds):
            held_out = list(fold.validation)
            products = self._features[held_out] @ path.weight[:, index].mT
            logits[:, held_out] = products + path.bias[:, index, None]
        return logits

    def _metrics(self, number: int, logits: Tensor, labels: Tensor) -> dict[str, float]:
        """Returns the validation metrics, after temperature scaling if the scores are not logits."""
        solver = self._solver
        temperature = 1.0 if solver.sharpness is None else fit_temperature(logits.numpy(), labels.numpy())
        probabilities = functional.softmax(logits / temperature, dim=1)
        metrics = {f"validation/{name}": value for name, value in scores(labels.numpy(), probabilities.numpy()).items()}
        if len(solver.values) > 1:
            metrics[f"head/{solver.hyperparameter}"] = solver.values[number - 1] * self._scale**solver.power
        return metrics
