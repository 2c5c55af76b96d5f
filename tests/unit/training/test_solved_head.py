"""Solved heads on the digits' pixels, compared with scikit-learn."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from transfer_model.neighbors import NeighborClassifier
from transfer_platform.errors import TrainingError
from transfer_platform.evaluation.calibration import MAX_TEMPERATURE, MIN_TEMPERATURE, fit_temperature
from transfer_platform.recipe.schema import TrainingConfig
from transfer_platform.training.batches import TrialData
from transfer_platform.training.loop import EpochResult, FitResult, Objective
from transfer_platform.training.solved_head import SOLVERS, Solution, SolvedHead

COUNT, FOLDS = 300, 3
CLASSES = tuple("0123456789")
LOSS = Objective("validation/loss", True)


def digits(count: int = COUNT) -> tuple[torch.Tensor, torch.Tensor]:
    pixels, labels = load_digits(return_X_y=True)
    return torch.tensor(pixels[:count]).float(), torch.tensor(labels[:count]).long()


def make_folds(labels: torch.Tensor, count: int = FOLDS, **changes: Any) -> list[TrialData]:
    every = range(len(labels))
    no_inputs: Any = None  # a solved head is given the features
    return [
        TrialData(
            no_inputs,
            labels,
            tuple(i for i in every if i % count != fold),
            tuple(i for i in every if i % count == fold),
            batch_size=8,
            seed=0,
            **changes,
        )
        for fold in range(count)
    ]


def solve(kind: str, folds: list[TrialData], **training: Any) -> tuple[SolvedHead, FitResult, list[EpochResult]]:
    seen: list[EpochResult] = []
    head = SolvedHead(kind, digits(len(folds[0].labels))[0], CLASSES, TrainingConfig(**training))
    return head, head.fit(folds, LOSS, seen.append), seen


def logits_of(solution: Solution, features: torch.Tensor) -> torch.Tensor:
    if isinstance(solution, NeighborClassifier):
        return solution(features)
    weight, bias = solution
    return (features.double() @ weight.T + bias).float()


def test_the_logits_are_those_of_scikit_learn_for_images_that_were_held_out() -> None:
    features, labels = digits()
    folds = make_folds(labels)
    _, result, _ = solve("logistic", folds)
    expected = np.empty((COUNT, 10))
    for fold in folds:
        model = LogisticRegression(C=result.best.metrics["head/C"], solver="newton-cholesky", tol=1e-10)
        model.fit(features[list(fold.train)], labels[list(fold.train)])
        expected[list(fold.validation)] = model.predict_proba(features[list(fold.validation)])
    np.testing.assert_allclose(result.logits.softmax(dim=1), expected, atol=1e-4)
    calibrated = (result.logits.double() / fit_temperature(result.logits.numpy(), labels.numpy())).softmax(dim=1)
    assert result.best.metrics["validation/loss"] == pytest.approx(log_loss(labels, calibrated), abs=1e-6)


@pytest.mark.parametrize("kind", SOLVERS)
def test_the_best_value_is_chosen_and_refitted_to_all_images(kind: str) -> None:
    features, labels = digits()
    head, result, seen = solve(kind, make_folds(labels))
    losses = [epoch.metrics["validation/loss"] for epoch in seen]
    assert [epoch.number for epoch in seen] == [*range(1, len(SOLVERS[kind].values) + 1)]
    assert result.best.metrics["validation/loss"] == min(losses) < 0.5
    held_out = torch.arange(0, COUNT, FOLDS)  # the first fold: its head was solved on the same images
    logits = logits_of(head.refit(make_folds(labels)[0], result.best.number), features[held_out])
    torch.testing.assert_close(logits.softmax(dim=1), result.logits[held_out].softmax(dim=1), rtol=0, atol=1e-4)


@pytest.mark.parametrize("kind", [kind for kind, solver in SOLVERS.items() if len(solver.values) > 1])
def test_the_best_value_does_not_lie_at_an_end_of_the_path(kind: str) -> None:
    _, result, seen = solve(kind, make_folds(digits()[1]))
    assert 1 < result.best.number < len(seen)


@pytest.mark.parametrize("kind", SOLVERS)
def test_larger_features_give_the_same_results(kind: str) -> None:
    features, labels = digits()
    folds = make_folds(labels)
    first, second = (
        SolvedHead(kind, scale * features, CLASSES, TrainingConfig()).fit(folds, LOSS, lambda _: None)
        for scale in (1, 1000)
    )
    torch.testing.assert_close(first.logits, second.logits, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("kind", SOLVERS)
def test_wrong_labels_of_almost_no_weight_do_less_harm(kind: str) -> None:
    features, labels = digits()
    wrong = labels.clone()
    wrong[:100] = (labels[:100] + 1) % 10
    losses = []
    for weight in (1.0, 1e-6):
        weights = torch.ones(COUNT)
        weights[:100] = weight
        head = SolvedHead(kind, features, CLASSES, TrainingConfig())
        folds = make_folds(wrong, weights=weights)
        logits = head.fit(folds, LOSS, lambda _: None).logits
        losses.append(float((logits.argmax(dim=1) != labels).float()[100:].mean()))
    assert losses[1] < losses[0]


@pytest.mark.parametrize("kind", SOLVERS)
def test_the_temperature_of_the_best_value_is_not_at_a_bound(kind: str) -> None:
    _, labels = digits()
    _, result, _ = solve(kind, make_folds(labels))
    temperature = fit_temperature(result.logits.numpy(), labels.numpy())
    assert 2 * MIN_TEMPERATURE < temperature < MAX_TEMPERATURE / 2


@pytest.mark.parametrize("kind", SOLVERS)
@pytest.mark.parametrize(("value", "state"), [(0.0, "equal for all images"), (float("nan"), "not finite")])
def test_features_that_distinguish_nothing_are_refused(kind: str, value: float, state: str) -> None:
    with pytest.raises(TrainingError, match=f"features are {state}; check backbone.weights"):
        SolvedHead(kind, torch.full((COUNT, 8), value), CLASSES, TrainingConfig())


@pytest.mark.parametrize("kind", SOLVERS)
def test_images_that_are_equal_within_each_class_are_classified(kind: str) -> None:
    _, labels = digits()
    features = torch.randn(10, 16, generator=torch.Generator().manual_seed(0))[labels]
    head = SolvedHead(kind, features, CLASSES, TrainingConfig())
    result = head.fit(make_folds(labels), LOSS, lambda _: None)
    assert torch.equal(result.logits.argmax(dim=1), labels)


def test_of_equally_accurate_values_the_one_with_the_smallest_loss_is_chosen() -> None:
    _, labels = digits()
    features = torch.randn(10, 16, generator=torch.Generator().manual_seed(0))[labels]
    head = SolvedHead("ridge", features, CLASSES, TrainingConfig())
    seen: list[EpochResult] = []
    result = head.fit(make_folds(labels), Objective("validation/accuracy", False), seen.append)
    equal = [epoch for epoch in seen if epoch.metrics["validation/accuracy"] == 1]
    assert len(equal) > 1
    assert result.best.metrics["validation/loss"] == min(epoch.metrics["validation/loss"] for epoch in equal)


def test_a_common_offset_of_the_features_does_not_change_the_prototypes() -> None:
    features, labels = digits()
    every = make_folds(labels)[0]
    solutions = [
        SolvedHead("prototype", features + offset, CLASSES, TrainingConfig()).refit(every, 1) for offset in (0, 3000)
    ]
    logits = [logits_of(solution, features + offset) for offset, solution in zip((0, 3000), solutions, strict=True)]
    torch.testing.assert_close(logits[0], logits[1], rtol=0, atol=0.02)


def test_balanced_class_weights_raise_the_recall_of_a_rare_class() -> None:
    features, labels = digits(600)
    rare = [i for i in range(600) if labels[i] != 8 or i % 10 == 0]
    recalls = []
    for weights in ("none", "balanced"):
        data = make_folds(labels[rare])
        head = SolvedHead("ridge", features[rare], CLASSES, TrainingConfig(class_weights=weights))
        predicted = head.fit(data, LOSS, lambda _: None).logits.argmax(dim=1)
        recalls.append(float((predicted == 8)[labels[rare] == 8].float().mean()))
    assert recalls[1] > recalls[0]


@pytest.mark.parametrize("kind", [kind for kind, solver in SOLVERS.items() if solver.needs_all_classes])
def test_a_class_without_training_images_in_a_fold_is_named(kind: str) -> None:
    labels = digits()[1]
    folds = make_folds(torch.where(labels == 9, 0, labels))
    with pytest.raises(TrainingError, match=r"none of '9'; use head.kind: logistic"):
        solve(kind, folds)


@pytest.mark.parametrize("kind", ["logistic", "ridge", "knn"])
def test_a_class_without_training_images_in_a_fold_is_never_predicted(kind: str) -> None:
    labels = digits()[1]
    _, result, _ = solve(kind, make_folds(torch.where(labels == 9, 0, labels)))
    assert not (result.logits.argmax(dim=1) == 9).any()
