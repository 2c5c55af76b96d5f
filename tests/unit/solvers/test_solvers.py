"""Solved classifiers compared with scikit-learn's, on weighted folds of the digits."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid
from torch.nn.functional import one_hot

from transfer_platform.solvers.discriminant import lda_path, prototype_path
from transfer_platform.solvers.linear_path import LinearPath
from transfer_platform.solvers.logistic import logistic_path
from transfer_platform.solvers.neighbors import SMOOTHING, held_out_logits, neighbor_classifier
from transfer_platform.solvers.ridge import ridge_path

VALUES = (10.0, 0.01, 1.0)  # not sorted: results are in the order of the values


def digits(classes: int, count: int = 300) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    pixels, labels = load_digits(return_X_y=True)
    generator = np.random.default_rng(0)
    weights = generator.uniform(0.3, 2.0, count) * (generator.random((2, count)) > 0.2)
    targets = labels[:count] if classes == 10 else labels[:count] >= 5
    return torch.tensor(pixels[:count] / 16), torch.tensor(targets).long(), torch.tensor(weights)


def logits(path: LinearPath, features: torch.Tensor, value: int, fold: int) -> torch.Tensor:
    return features @ path.weight[value, fold].T + path.bias[value, fold]


@pytest.mark.parametrize(("classes", "count"), [(2, 300), (10, 300), (2, 60), (10, 60)])
def test_logistic_regression_equals_scikit_learn(classes: int, count: int) -> None:
    features, labels, weights = digits(classes, count)
    path = logistic_path(features, one_hot(labels, classes), weights, VALUES)
    for value, penalty in enumerate(VALUES):
        for fold, row in enumerate(weights):
            used = row > 0
            expected = LogisticRegression(C=penalty, tol=1e-10, solver="newton-cholesky", max_iter=1000)
            expected.fit(features[used], labels[used], sample_weight=row[used])
            actual = logits(path, features, value, fold).softmax(dim=1)
            np.testing.assert_allclose(actual, expected.predict_proba(features), atol=1e-4)


def test_a_soft_target_equals_two_weighted_images() -> None:
    features, labels, weights = digits(10, 100)
    soft = 0.7 * one_hot(labels, 10) + 0.3 * one_hot((labels + 1) % 10, 10)
    path = logistic_path(features, soft, weights, [1.0])
    hard = one_hot(torch.cat([labels, (labels + 1) % 10]), 10)
    doubled = logistic_path(features.repeat(2, 1), hard, torch.cat([0.7 * weights, 0.3 * weights], dim=1), [1.0])
    actual, expected = (logits(each, features, 0, 1).softmax(dim=1) for each in (path, doubled))
    torch.testing.assert_close(actual, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("count", [300, 40], ids=["more images than features", "fewer"])
def test_ridge_equals_scikit_learn(count: int) -> None:
    features, labels, weights = digits(10, count)
    path = ridge_path(features, one_hot(labels, 10), weights, VALUES)
    for value, penalty in enumerate(VALUES):
        expected = Ridge(alpha=penalty).fit(features, one_hot(labels, 10), sample_weight=weights[1])
        np.testing.assert_allclose(logits(path, features, value, 1), expected.predict(features), atol=1e-8)


@pytest.mark.parametrize("classes", [2, 10])
def test_discriminants_equal_scikit_learn(classes: int) -> None:
    features, labels, weights = digits(classes)
    folds, shrinkages = (weights > 0).double(), (0.9, 0.01, 0.3)
    path = lda_path(features, one_hot(labels, classes), folds, shrinkages)
    for value, shrinkage in enumerate(shrinkages):
        used = weights[1] > 0
        expected = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=shrinkage).fit(features[used], labels[used])
        actual = logits(path, features, value, 1).softmax(dim=1)
        np.testing.assert_allclose(actual, expected.predict_proba(features), atol=1e-6)


def test_prototypes_equal_scikit_learn() -> None:
    features, labels, weights = digits(10)
    features = features[:, 20:23]  # the other pixels are constant within a class, of which scikit-learn warns
    path = prototype_path(features, one_hot(labels, 10), (weights > 0).double())
    used = weights[1] > 0
    expected = NearestCentroid().fit(features[used], labels[used])
    assert logits(path, features, 0, 1).argmax(dim=1).tolist() == expected.predict(features).tolist()


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
@pytest.mark.parametrize("classes", [2, 10])
def test_nearest_neighbors_equal_scikit_learn(classes: int, label_smoothing: float) -> None:
    features, labels, _ = digits(classes)
    folds, numbers = torch.arange(300) % 3 - 1, (1, 2, 5, 20, 300)  # the last third is never held out
    weights = torch.stack([folds != fold for fold in range(2)]).double()
    actual = held_out_logits(features, labels, weights, folds, numbers, classes, label_smoothing).exp()
    assert len(actual) == 4  # a fold has only 200 training images
    for index, k in enumerate(numbers[:4]):
        for fold, row in enumerate(weights > 0):
            expected = KNeighborsClassifier(k, metric="cosine", weights=lambda distance: np.exp((1 - distance) / 0.07))
            expected.fit(features[row], labels[row])
            held_out = folds == fold
            votes = expected.predict_proba(features[held_out])
            smooth = (1 - label_smoothing) * votes + label_smoothing / classes
            smooth = (1 - SMOOTHING) * smooth + SMOOTHING / classes
            np.testing.assert_allclose(actual[index, held_out], smooth, atol=1e-5)
            assert actual[index, held_out].argmax(dim=1).tolist() == expected.predict(features[held_out]).tolist()
            classifier = neighbor_classifier(features, labels, weights[fold], k, classes, label_smoothing)
            assert classifier.features.shape == (200, 64)
            np.testing.assert_allclose(classifier(features[held_out]).exp(), smooth, atol=1e-5)


def test_a_neighbor_of_weight_2_votes_twice() -> None:
    features, labels, _ = digits(2)
    weights = torch.ones(300)
    weights[:50] = 2
    rows = features[250:] + 0.01
    heavy = neighbor_classifier(features[:250], labels[:250], weights[:250], 250, 2)
    twice = neighbor_classifier(
        torch.cat([features[:250], features[:50]]), torch.cat([labels[:250], labels[:50]]), torch.ones(300), 300, 2
    )
    torch.testing.assert_close(heavy(rows), twice(rows), atol=1e-5, rtol=0)
    equal = neighbor_classifier(features[:250], labels[:250], torch.ones(250), 250, 2)
    assert not torch.allclose(heavy(rows), equal(rows), atol=1e-3)
