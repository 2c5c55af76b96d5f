"""Out-of-fold predictions for a path of penalties, compared with scikit-learn's and with single solutions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from torch.nn.functional import cross_entropy, one_hot

from transfer_platform.solvers.interpolation import interpolation_weights
from transfer_platform.solvers.logistic import logistic_path
from transfer_platform.solvers.logistic_problems import Curvature
from transfer_platform.solvers.out_of_fold import OutOfFoldPath, out_of_fold_path

VALUES = np.logspace(-3, 3, 98).tolist()
FOLDS = 3


def digits(classes: int, count: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    pixels, labels = load_digits(return_X_y=True)
    folds = torch.randperm(count, generator=torch.Generator().manual_seed(0)) % FOLDS
    targets = labels[:count] if classes == 10 else labels[:count] >= 5
    return torch.tensor(pixels[:count] / 16), torch.tensor(targets).long(), folds


def between_nodes(path: OutOfFoldPath, largest: float) -> list[int]:
    """Returns the indices of four values of C, up to the largest, that were interpolated."""
    distances = (path.values.log()[:, None] - path.nodes).abs().amin(dim=1)
    found = torch.nonzero((distances > 0.05) & (path.values <= largest))[:, 0]
    assert len(found) >= 4
    return found[torch.linspace(0, len(found) - 1, 4).long()].tolist()


def single_solution(path: OutOfFoldPath, index: int, problem: tuple[torch.Tensor, ...], fold: int) -> float:
    """Returns the largest difference of probabilities to an exact solution for one fold."""
    features, targets, folds = problem
    solution = logistic_path(features, targets, (folds != fold)[None], [float(path.values[index])])
    inside = folds == fold
    expected = features[inside] @ solution.weight[0, 0].T + solution.bias[0, 0]
    actual = path.logits(index)[(folds == fold)[path.held_out]]
    return float((expected.softmax(dim=1) - actual.softmax(dim=1)).abs().max())


@pytest.mark.parametrize(("classes", "count"), [(2, 300), (10, 300), (2, 60), (10, 60)])
def test_interpolated_probabilities_equal_scikit_learn(classes: int, count: int) -> None:
    features, labels, folds = digits(classes, count)
    path = out_of_fold_path(features, one_hot(labels, classes), folds, VALUES)
    for index in between_nodes(path, 10.0):
        training = folds != index % FOLDS
        expected = LogisticRegression(C=VALUES[index], tol=1e-10, solver="newton-cholesky", max_iter=1000)
        expected.fit(features[training], labels[training])
        actual = path.logits(index)[~training].softmax(dim=1)
        np.testing.assert_allclose(actual, expected.predict_proba(features[~training]), atol=1e-4)


@pytest.mark.parametrize("classes", [2, 10])
def test_interpolated_probabilities_equal_single_solutions_of_separable_classes(classes: int) -> None:
    features, labels, folds = digits(classes, 60)
    problem = features, one_hot(labels, classes), folds
    path = out_of_fold_path(*problem, np.logspace(-2, 4, 98).tolist())
    assert max(single_solution(path, index, problem, index % FOLDS) for index in between_nodes(path, 1e4)) < 1e-4


def test_images_without_a_fold_are_in_the_training_set() -> None:
    features, labels, folds = digits(10, 200)
    folds = torch.where(folds == 0, 0, -1)
    problem = features, one_hot(labels, 10), folds
    path = out_of_fold_path(*problem, [0.5, 0.1])
    assert path.held_out.tolist() == torch.nonzero(folds == 0)[:, 0].tolist()
    assert single_solution(path, 0, problem, 0) < 1e-4
    assert single_solution(path, 1, problem, 0) < 1e-4


def test_a_weight_of_two_equals_a_repeated_image() -> None:
    features, labels, folds = digits(10, 100)
    weights = torch.where(torch.arange(100) < 50, 2.0, 1.0)
    weighted = out_of_fold_path(features, one_hot(labels, 10), folds, [1.0], weights)
    again = torch.cat([torch.arange(100), torch.arange(50)])
    repeated = out_of_fold_path(features[again], one_hot(labels[again], 10), folds[again], [1.0])
    actual, expected = weighted.logits(0).softmax(dim=1), repeated.logits(0)[:100].softmax(dim=1)
    torch.testing.assert_close(actual, expected, atol=2e-5, rtol=0)


@pytest.mark.parametrize("classes", [2, 10])
def test_metrics_are_those_of_the_logits(classes: int) -> None:
    features, labels, folds = digits(classes, 100)
    path = out_of_fold_path(features, one_hot(labels, classes), folds, VALUES)
    losses, accuracies = path.metrics(one_hot(labels, classes))
    for index in (0, 20, 40):
        logits = path.logits(index)
        assert losses[index] == pytest.approx(cross_entropy(logits, labels).item(), rel=1e-5)
        assert accuracies[index] == pytest.approx((logits.argmax(dim=1) == labels).double().mean().item())


def test_a_class_may_be_absent_from_a_training_set() -> None:
    features, labels, _ = digits(10, 100)
    path = out_of_fold_path(features, one_hot(labels, 10), torch.where(labels == 3, 0, 1), [0.1, 1.0])
    assert path.logits(1)[labels == 3].softmax(dim=1)[:, 3].max() < 1e-4


def test_interpolation_is_exact_for_polynomials() -> None:
    nodes, points = torch.linspace(-2, 3, 9).double(), torch.tensor([-2.5, -2.0, 0.1, 2.9]).double()
    polynomial = [nodes**power for power in range(8)]
    expected = [points**power for power in range(8)]
    actual = interpolation_weights(nodes, points) @ torch.stack(polynomial, dim=1)
    torch.testing.assert_close(actual, torch.stack(expected, dim=1))


@pytest.mark.parametrize("largest", [0, 1, 2])
def test_curvature_is_accurate_where_a_probability_is_nearly_one(largest: int) -> None:
    probabilities = torch.full((3,), 1e-9, dtype=torch.float64)
    probabilities[largest] = 1 - 2e-9
    moved = torch.tensor([3.0, -1.0], dtype=torch.float64)
    full = torch.tensor([3.0, -1.0, 0.0], dtype=torch.float64)
    expected = probabilities * (probabilities * (full[:, None] - full)).sum(dim=1)
    curvature = Curvature.at(probabilities[:2].view(2, 1, 1), torch.ones(1, 1, dtype=torch.float64))
    actual = curvature.product(moved.float().view(2, 1, 1)).flatten()
    torch.testing.assert_close(actual.double(), expected[:2], rtol=1e-5, atol=0)
