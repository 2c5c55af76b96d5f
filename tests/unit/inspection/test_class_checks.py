"""What is said of classes."""

from __future__ import annotations

from transfer_platform.inspection.class_checks import similar_classes


def test_names_that_differ_in_case_or_signs_alone_are_told() -> None:
    labels = {"cat", "Cat", "dog", "cat fish", "cat-fish", "catfish 2", "+", "-"}
    assert [each.detail for each in similar_classes(labels)] == [
        "'Cat' and 'cat'",
        "'cat fish' and 'cat-fish'",
    ]
