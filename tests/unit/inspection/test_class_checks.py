"""Checks of class names."""

from __future__ import annotations

from transfer_platform.inspection.class_checks import check_class_names


def test_names_that_differ_only_in_case_or_punctuation_are_reported() -> None:
    labels = {"cat", "Cat", "dog", "cat fish", "cat-fish", "catfish 2", "+", "-"}
    assert [each.detail for each in check_class_names(labels)] == ["'Cat' and 'cat'", "'cat fish' and 'cat-fish'"]
