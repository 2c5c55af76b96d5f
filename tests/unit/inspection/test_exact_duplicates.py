"""Exact duplicates: identical files in several splits or classes."""

from pathlib import Path

from transfer_platform.data.catalog import ImageRecord
from transfer_platform.inspection.exact_duplicates import exact_duplicates


def test_identical_files_with_two_labels_are_reported_in_any_splits() -> None:
    same = [ImageRecord(f"/{name}", name, "0" * 64) for name in ("ant", "bee")]
    for allowed in (frozenset(), frozenset({Path("/bee")})):
        found = {each.kind: each for each in exact_duplicates({"train": same[:1], "test": same[1:]}, allowed)}
        assert found["duplicate with another label"].detail == "train/ant and test/bee"
        assert ("duplicate across splits" in found) == (not allowed)
    [found_within] = exact_duplicates({"train": same})
    assert found_within.kind == "duplicate with another label"
