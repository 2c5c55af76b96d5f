"""Heads that are solved exactly on the features of a frozen backbone.

Unlike a head that is trained step by step, such a head does not depend on a learning rate or a number of epochs. A
solver returns the heads for all values of its hyperparameter and all folds at once; in a trial, each value counts as
an epoch.
"""

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional

from transfer_model.neighbors import NeighborClassifier
from transfer_platform.errors import TrainingError
from transfer_platform.evaluation.calibration import fit_temperature
from transfer_platform.evaluation.metrics import scores
from transfer_platform.recipe.schema import TrainingConfig
from transfer_platform.solvers.discriminant import lda_path, prototype_path
from transfer_platform.solvers.linear_path import LinearPath
from transfer_platform.solvers.logistic import logistic_path
from transfer_platform.solvers.neighbors import held_out_logits, neighbor_classifier
from transfer_platform.solvers.out_of_fold import out_of_fold_path
from transfer_platform.solvers.ridge import ridge_path
from transfer_platform.training.batches import TrialData
from transfer_platform.training.class_weights import balanced_weights
from transfer_platform.training.loop import EpochResult, FitResult, Objective

SCORE_SCALE = 3.0
"""Root mean square to which scores that are not logits are scaled; temperature scaling then finds the final factor."""
TEMPERATURE = "head/temperature"
"""Metric of a trial with a solved head: the temperature by which its logits are divided."""

Solution = tuple[Tensor, Tensor] | NeighborClassifier
"""Weights (C, F) and biases (C,) of a linear head, or a nearest-neighbor head."""


@dataclass(frozen=True)
class Problem:
    """Classification of N images with F features and C classes in K folds.

    Attributes:
        features: Features (N, F).
        labels: Class indices (N,).
        classes: Number of classes C.
        label_smoothing: Share of each image's label that is spread evenly over all classes.
        weights: Weights (K, N) of the images in each fold's training set; 0 for images that are held out.
        folds: Index (N,) of the fold that holds out each image; -1 for images that are never held out.
    """

    features: Tensor
    labels: Tensor
    classes: int
    label_smoothing: float
    weights: Tensor
    folds: Tensor

    @cached_property
    def targets(self) -> Tensor:
        """Class probabilities (N, C) of the labels."""
        hard = functional.one_hot(self.labels, self.classes).double()
        return (1 - self.label_smoothing) * hard + self.label_smoothing / self.classes


@dataclass(frozen=True)
class HeadSolver(ABC):
    """Method of solving a head.

    Attributes:
        hyperparameter: Name of the hyperparameter in metrics and parameters; None if there is no hyperparameter.
        values: Values of the hyperparameter to compare, for features whose mean squared distance from their mean is 1.
        power: If the features are multiplied by s, the equivalent of a value is `value * s**power`.
        needs_all_classes: Whether every class needs a training image in every fold.
    """

    hyperparameter: str | None
    values: tuple[float, ...]
    power: int = 0
    needs_all_classes: bool = False

    @abstractmethod
    def held_out_logits(self, problem: Problem) -> Tensor:
        """Returns the held-out logits (V, N, C) of all images for each value; 0 for images that are never held out."""

    @abstractmethod
    def solve_one(self, problem: Problem, value: float, scale: float) -> Solution:
        """Returns the head for one value and the first fold.

        Args:
            problem: Its features are those of the backbone, divided by `scale`.
            value: Value of the hyperparameter.
            scale: Factor by which the head's inputs are larger than the problem's features.
        """


@dataclass(frozen=True)
class LinearSolver(HeadSolver):
    """Method of solving a linear head.

    Attributes:
        solve: Returns the heads for V values of the hyperparameter and all folds.
        has_logits: Whether the scores are logits. If not, they are scaled so that their root mean square over training
            images and classes is `SCORE_SCALE`.
    """

    solve: Callable[[Problem, Sequence[float]], LinearPath] = field(kw_only=True)
    has_logits: bool = False

    def solve_scaled(self, problem: Problem, values: Sequence[float]) -> LinearPath:
        """Returns heads whose scores are logits, or are centered over classes and scaled for each value and fold."""
        path = self.solve(problem, values)
        if self.has_logits:
            return path
        weight, bias = path.weight - path.weight.mean(dim=2, keepdim=True), path.bias - path.bias.mean(-1, keepdim=True)
        for fold, used in enumerate(problem.weights > 0):
            rows = problem.features[used]
            scores = rows @ weight[:, fold].mT + bias[:, fold, None]
            size = scores.square().mean(dim=(1, 2)).sqrt().clamp(min=1e-300)
            weight[:, fold] *= (SCORE_SCALE / size)[:, None, None]
            bias[:, fold] *= (SCORE_SCALE / size)[:, None]
        return LinearPath(weight, bias)

    def held_out_logits(self, problem: Problem) -> Tensor:
        """Applies the heads of each fold to the images that it holds out."""
        path = self.solve_scaled(problem, self.values)
        logits = problem.features.new_zeros(len(self.values), *problem.targets.shape)
        for fold in range(len(problem.weights)):
            held_out = problem.folds == fold
            logits[:, held_out] = problem.features[held_out] @ path.weight[:, fold].mT + path.bias[:, fold, None]
        return logits

    def solve_one(self, problem: Problem, value: float, scale: float) -> tuple[Tensor, Tensor]:
        """Returns weights (C, F) and biases (C,)."""
        path = self.solve_scaled(problem, [value])
        return path.weight[0, 0] / scale, path.bias[0, 0]


class _LogisticSolver(LinearSolver):
    def held_out_logits(self, problem: Problem) -> Tensor:
        """Interpolates between the solutions for some of the values, which is faster than solving for all of them."""
        path = out_of_fold_path(problem.features, problem.targets, problem.folds, self.values, problem.weights)
        logits = problem.features.new_zeros(len(self.values), *problem.targets.shape)
        for index in range(len(self.values)):
            logits[index, path.held_out] = path.logits(index).double()
        return logits


class _NeighborSolver(HeadSolver):
    def held_out_logits(self, problem: Problem) -> Tensor:
        """Votes with all numbers of neighbors that the smallest fold has."""
        numbers, votes = [int(value) for value in self.values], problem.weights
        return held_out_logits(
            problem.features, problem.labels, votes, problem.folds, numbers, problem.classes, problem.label_smoothing
        )

    def solve_one(self, problem: Problem, value: float, scale: float) -> NeighborClassifier:  # noqa: ARG002 - directions have no scale
        """Returns a head that stores the training images."""
        votes, smoothing = problem.weights[0], problem.label_smoothing
        return neighbor_classifier(problem.features, problem.labels, votes, int(value), problem.classes, smoothing)


SOLVERS: Mapping[str, HeadSolver] = {
    "logistic": _LogisticSolver(
        "C",
        tuple(10 ** (step / 8) for step in range(-8, 33)),
        power=-2,
        solve=lambda given, values: logistic_path(given.features, given.targets, given.weights, values),
        has_logits=True,
    ),
    "ridge": LinearSolver(
        "alpha",
        tuple(10 ** (step / 8) for step in range(-24, 25)),
        power=2,
        solve=lambda given, values: ridge_path(given.features, given.targets, given.weights, values),
    ),
    "lda": LinearSolver(
        "shrinkage",
        tuple(2**-step for step in range(12)),
        needs_all_classes=True,
        solve=lambda given, values: lda_path(given.features, given.targets, given.weights, values),
    ),
    "prototype": LinearSolver(
        None,
        (1.0,),
        needs_all_classes=True,
        solve=lambda given, _values: prototype_path(given.features, given.targets, given.weights),
    ),
    "knn": _NeighborSolver("k", (1, 2, 3, 5, 7, 10, 15, 20, 30, 50, 100)),
}
"""Solver for each `head.kind` except `linear`, which is trained."""


class SolvedHead:
    """Solves the head of one trial.

    Args:
        kind: A key of `SOLVERS`.
        features: Inputs (N, F) of the head.
        classes: Class names.
        config: Only `class_weights` (which must not be `auto`) and `label_smoothing` are used.
    """

    def __init__(self, kind: str, features: Tensor, classes: Sequence[str], config: TrainingConfig) -> None:
        self._kind, self._solver, self._classes, self._config = kind, SOLVERS[kind], classes, config
        rows = features.to("cpu", torch.float64)
        self._scale = float((rows - rows.mean(dim=0)).square().sum(dim=1).mean().sqrt())
        if not 0 < self._scale < math.inf:
            state = "equal for all images" if self._scale == 0 else "not finite"
            raise TrainingError(f"head.kind: {kind}: the backbone's features are {state}; check backbone.weights")
        self._features = rows / self._scale

    def fit(
        self, folds: Sequence[TrialData], objective: Objective, after_value: Callable[[EpochResult], None]
    ) -> FitResult:
        """Solves the head for every value and fold, and selects the value with the best metric on held-out images.

        Args:
            folds: Training and validation images of each fold; a single item if there are no folds.
            objective: Metric that ranks the values.
            after_value: Called after each value, which counts as an epoch.

        Returns:
            The result, without weights. Its logits are those of all held-out images in ascending order of position.

        Raises:
            TrainingError: The head cannot be solved.
        """
        start = time.perf_counter()
        problem = self._problem(folds)
        held_out = problem.folds >= 0
        labels = folds[0].labels[held_out]
        try:
            all_logits = self._solver.held_out_logits(problem)[:, held_out]
        except ArithmeticError as error:
            raise self._failure(error) from error
        if not all_logits.isfinite().all():
            raise self._failure(ArithmeticError("a solution is not finite"))
        seconds = (time.perf_counter() - start) / len(all_logits)
        results = []
        for number, logits in enumerate(all_logits, start=1):
            results.append(EpochResult(number, {**self._metrics(number, logits, labels), "seconds": seconds}))
            after_value(results[-1])
        best = min(results, key=lambda result: _rank(result, objective))
        return FitResult(tuple(results), best, all_logits[best.number - 1].float())

    def refit(self, data: TrialData, number: int) -> Solution:
        """Solves the head on the training images of `data` for the value with this number, counted from 1.

        Raises:
            TrainingError: The head cannot be solved.
        """
        try:
            return self._solver.solve_one(self._problem([data]), self._solver.values[number - 1], self._scale)
        except ArithmeticError as error:
            raise self._failure(error) from error

    def _problem(self, folds: Sequence[TrialData]) -> Problem:
        labels, smoothing = folds[0].labels, self._config.label_smoothing
        numbers = torch.full_like(labels, -1)
        for number, fold in enumerate(folds):
            numbers[list(fold.validation)] = number
        weights = torch.stack([self._image_weights(fold) for fold in folds])
        return Problem(self._features, labels, len(self._classes), smoothing, weights, numbers)

    def _image_weights(self, fold: TrialData) -> Tensor:
        """Returns the loss weights (N,) of all images: 1 on average for training images, and 0 for other images."""
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
                f"head.kind: {self._kind} requires training images of every class in every fold, but a fold has none "
                f"of {missing!r}; use head.kind: logistic, or add images of this class"
            )

    def _failure(self, error: ArithmeticError) -> TrainingError:
        return TrainingError(f"head.kind: {self._kind}: {error}")

    def _metrics(self, number: int, logits: Tensor, labels: Tensor) -> dict[str, float]:
        """Returns the validation metrics after temperature scaling, which the served model also applies."""
        solver = self._solver
        temperature = fit_temperature(logits.numpy(), labels.numpy())
        probabilities = functional.softmax(logits / temperature, dim=1)
        metrics = {f"validation/{name}": value for name, value in scores(labels.numpy(), probabilities.numpy()).items()}
        metrics[TEMPERATURE] = temperature
        if solver.hyperparameter:
            metrics[f"head/{solver.hyperparameter}"] = solver.values[number - 1] * self._scale**solver.power
        return metrics


def _rank(result: EpochResult, objective: Objective) -> tuple[float, float]:
    """Returns a key that is smaller for better results; results with equal metrics are ranked by their loss."""
    value = result.metrics[objective.metric]
    return (value if objective.minimizes else -value), result.metrics["validation/loss"]
