from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from transfer_model.heads import Head


def test_a_linear_classifier_is_replaced_by_a_linear_one() -> None:
    head = Head(nn.Linear(8, 1000, bias=False), classes=3, dropout=0.0)
    assert head(torch.randn(2, 8)).shape == (2, 3)
    assert head(torch.randn(2, 5, 8)).shape == (2, 5, 3)


def test_a_convolution_is_replaced_by_a_convolution() -> None:
    head = Head(nn.Conv2d(8, 1000, kernel_size=1), classes=3, dropout=0.0)
    assert head(torch.randn(2, 8, 4, 4)).shape == (2, 3, 4, 4)


@pytest.mark.parametrize(
    ("original", "features"), [(nn.Linear(8, 9), torch.randn(2, 5, 8)), (nn.Conv2d(8, 9, 1), torch.randn(2, 8, 4, 4))]
)
def test_the_probabilities_of_the_labels_of_a_class_are_added(original: nn.Module, features: torch.Tensor) -> None:
    head = Head(original, classes=3, dropout=0.0, labels=(1, 4, 2)).eval()
    dim = 1 if isinstance(original, nn.Conv2d) else -1
    one, four, two = head.classifier(features).softmax(dim).split([1, 4, 2], dim)
    expected = torch.cat([part.sum(dim, keepdim=True) for part in (one, four, two)], dim)
    assert torch.allclose(head(features).softmax(dim), expected)


def test_the_first_predictions_are_nearly_uniform() -> None:
    head = Head(nn.Linear(512, 1), classes=4, dropout=0.0)
    loss = nn.functional.cross_entropy(head(torch.randn(64, 512)), torch.arange(64) % 4)
    assert float(loss.detach()) == pytest.approx(math.log(4), abs=0.1)


def test_the_initial_weights_depend_on_the_seed() -> None:
    def weights(seed: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        return Head(nn.Linear(8, 1), 3, 0.0, generator).classifier.weight.detach()

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


def test_dropout_is_for_training_only() -> None:
    head = Head(nn.Linear(64, 1), classes=3, dropout=0.5)
    features = torch.ones(1, 64)
    assert not torch.equal(head(features), head(features))
    head.eval()
    assert torch.equal(head(features), head(features))
