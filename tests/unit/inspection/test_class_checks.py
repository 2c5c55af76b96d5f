"""Checks of class names."""

from __future__ import annotations

import pytest

from transfer_platform.data.catalog import ImageRecord
from transfer_platform.inspection.class_checks import check_class_names, check_test_shares, check_validation


def test_names_that_differ_only_in_case_or_punctuation_are_reported() -> None:
    labels = {"cat", "Cat", "dog", "cat fish", "cat-fish", "catfish 2", "+", "-"}
    assert [each.detail for each in check_class_names(labels)] == ["'Cat' and 'cat'", "'cat fish' and 'cat-fish'"]


def test_classes_without_validation_images_are_reported_if_others_have_some() -> None:
    ant, bee = (ImageRecord(f"/{label}", label, "0" * 64) for label in ("ant", "bee"))
    [found] = check_validation({"train": [ant, bee], "validation": [ant]})
    assert (found.kind, found.detail) == ("not in validation", "'bee' has no validation image")
    assert not [*check_validation({"train": [ant, bee]})]


@pytest.mark.parametrize(("test", "is_reported"), [(2, True), (8, True), (12, False), (20, False)])
def test_a_class_with_far_fewer_test_images_than_its_fraction_is_reported(test: int, is_reported: bool) -> None:
    splits = {"train": [ImageRecord("", "bee", "")] * (120 - test), "test": [ImageRecord("", "bee", "")] * test}
    found = [each.detail for each in check_test_shares(splits, 0.2)]
    assert found == [f"'bee' has {test} of its 120 images in test; dataset.splits.test is 0.2"] * is_reported
