"""Label errors and outliers in synthetic features."""

from __future__ import annotations

import numpy as np
import pytest

from transfer_platform.data.catalog import ImageRecord
from transfer_platform.inspection.label_errors import (
    find_label_errors,
    find_outliers,
    misclassified_images,
    out_of_fold_probabilities,
)

CLASSES = ("ant", "bee", "cat")
WRONG = tuple(range(3, 180, 15))


def clusters() -> tuple[list[ImageRecord], np.ndarray, np.ndarray]:
    """180 images in three clusters of 20 dimensions; twelve of them have a wrong label."""
    draw = np.random.default_rng(0)
    true = np.repeat(np.arange(3), 60)
    features = (np.eye(20)[true] * 6 + draw.normal(size=(180, 20))).astype(np.float32)
    labels = true.copy()
    labels[list(WRONG)] = (true[list(WRONG)] + 1) % 3
    images = [ImageRecord(f"/{place}", CLASSES[label], f"{place:064}") for place, label in enumerate(labels)]
    return images, features, labels


def test_wrong_labels_are_reported_and_correct_ones_are_not() -> None:
    images, features, labels = clusters()
    found = list(find_label_errors(images, CLASSES, out_of_fold_probabilities(features, labels)))
    reported = {int(each.files[0].name) for each in found if each.kind == "label error"}
    assert reported <= set(WRONG)
    assert len(reported) >= 8
    assert {int(each.files[0].name) for each in found} >= set(WRONG)
    assert "labeled 'bee'" in next(each.detail for each in found if each.files[0].name == "3")


def test_the_least_probable_label_comes_first() -> None:
    images = [ImageRecord(f"/{place}", "ant", f"{place:064}") for place in range(3)]
    probabilities = np.array([[0.4, 0.6, 0.0], [0.9, 0.1, 0.0], [0.1, 0.1, 0.8]])
    found = [each.files[0].name for each in misclassified_images(images, CLASSES, probabilities)]
    assert found == ["2", "0"]


def test_an_outlier_is_far_from_the_rest() -> None:
    images, features, _ = clusters()
    features[42] = -features[42]
    found = [each.files[0].name for each in find_outliers(images, features)]
    assert found == ["42"]


def test_few_images_have_no_outliers() -> None:
    images, features, _ = clusters()
    assert list(find_outliers(images[:5], features[:5])) == []


@pytest.mark.parametrize("small", [2, 3])
def test_small_classes_have_fewer_folds(small: int) -> None:
    _, features, labels = clusters()
    selected = np.concatenate([np.arange(60), np.arange(60, 60 + small), np.arange(120, 180)])
    assert out_of_fold_probabilities(features[selected], labels[selected]).shape == (120 + small, 3)
