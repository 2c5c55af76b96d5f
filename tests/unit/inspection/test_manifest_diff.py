"""Differences between two manifests, by content."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transfer_platform.errors import DataError
from transfer_platform.inspection.manifest_diff import ManifestLine, diff_manifests, read_manifest

A = ManifestLine("train", "ant", "a" * 64, "train/ant/1.jpg", "1", "")
B = ManifestLine("test", "bee", "b" * 64, "test/bee/1.jpg", "", "")

ROWS = st.lists(
    st.builds(
        ManifestLine,
        split=st.sampled_from(["train", "test"]),
        label=st.sampled_from(["ant", "bee"]),
        sha256=st.sampled_from(["a", "b", "c"]),
        file=st.sampled_from(["1", "2", "3"]),
        weight=st.just(""),
        fold=st.sampled_from(["", "0", "1"]),
    ),
    max_size=8,
)


def test_renamed_files_are_the_same_images() -> None:
    found = diff_manifests([A, B], [B._replace(file="x"), A._replace(file="y")])
    assert found.is_empty
    assert str(found) == "both runs have the same 2 images with the same labels and splits"


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"sha256": "c" * 64}, "changed"),
        ({"label": "bee"}, "relabeled"),
        ({"split": "validation"}, "moved"),
        ({"weight": "2"}, "reweighted"),
    ],
)
def test_each_change_has_a_name(change: dict[str, str], what: str) -> None:
    found = diff_manifests([A, B], [A._replace(**change), B])
    assert getattr(found, what) == ((A, A._replace(**change)),)
    assert found.same == 1
    assert not found.added
    assert not found.removed
    assert "train/ant/1.jpg" in str(found)


def test_new_bytes_do_not_hide_another_label_and_split() -> None:
    found = diff_manifests([A], [A._replace(sha256="c" * 64, label="bee", split="test")])
    assert "    train/ant -> test/bee: train/ant/1.jpg" in str(found)


def test_another_fold_is_reported_if_both_have_folds() -> None:
    held_out = A._replace(fold="0")
    found = diff_manifests([held_out, B], [A._replace(fold="1"), B])
    assert (found.refolded, found.same) == (((held_out, A._replace(fold="1")),), 1)
    assert "moved to another fold (1):\n    train/ant/1.jpg: 0 -> 1" in str(found)
    assert diff_manifests([held_out, B], [A, B]).is_empty, "only one of them has folds"


def test_added_and_removed() -> None:
    found = diff_manifests([A], [B])
    assert (found.removed, found.added, found.same) == ((A,), (B,), 0)


@given(ROWS, ROWS)
def test_every_row_is_in_exactly_one_place(before: list[ManifestLine], after: list[ManifestLine]) -> None:
    found = diff_manifests(before, after)
    several = (found.changed, found.relabeled, found.moved, found.reweighted, found.refolded)
    pairs = sum(map(len, several)) + found.same
    assert pairs + len(found.removed) == len(before)
    assert pairs + len(found.added) == len(after)
    assert diff_manifests(before, before).is_empty


def test_a_manifest_is_read() -> None:
    text = "split,label,sha256,weight,fold,file\ntrain,a,1,0.5,3,x\ntest,a,2,,,y\n"
    assert read_manifest(text, "a run") == [
        ManifestLine("train", "a", "1", "x", "0.5", "3"),
        ManifestLine("test", "a", "2", "y", "", ""),
    ]


def test_another_csv_file_is_rejected() -> None:
    with pytest.raises(DataError, match=r"missing columns \(split"):
        read_manifest("label,sha256,file\n", "a run")
