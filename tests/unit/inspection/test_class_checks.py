"""Checks of class names."""

from __future__ import annotations

from transfer_platform.data.catalog import ImageRecord
from transfer_platform.inspection.class_checks import check_class_names, check_validation


def test_names_that_differ_only_in_case_or_punctuation_are_reported() -> None:
    labels = {"cat", "Cat", "dog", "cat fish", "cat-fish", "catfish 2", "+", "-"}
    assert [each.detail for each in check_class_names(labels)] == ["'Cat' and 'cat'", "'cat fish' and 'cat-fish'"]


def test_classes_without_validation_images_are_reported_if_others_have_some() -> None:
    ant, bee = (ImageRecord(f"/{label}", label, "0" * 64) for label in ("ant", "bee"))
    [found] = check_validation({"train": [ant, bee], "validation": [ant]})
    assert (found.kind, found.detail) == ("not in validation", "'bee' has no validation image")
    assert not [*check_validation({"train": [ant, bee]})]
