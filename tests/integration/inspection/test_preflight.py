"""A dataset with every kind of problem: each is reported, and the valid images can be used for training."""

from __future__ import annotations

import csv
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

RECIPE = """\
name: troubled
dataset:
  source: set
  splits: {train: train, validation: 0.2, test: test}
  image_size: 32
backbone: {name: efficientnet_lite0}
training: {epochs: 1}
"""


def platform(folder: Path, *arguments: str, code: int = 0) -> tuple[str, str]:
    """Output of a command, run without root's permission to read every file."""
    (folder / "recipe.yaml").write_text(RECIPE)
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("PLATFORM_", "MLFLOW_"))}
    command = [str(Path(sys.executable).with_name("platform")), *arguments]
    if os.geteuid() == 0:
        command = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--", *command]
    ended = subprocess.run(
        command,
        cwd=folder,
        env={**clean, "PLATFORM_CACHE": str(folder / "cache"), "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ended.returncode == code, f"{arguments}: {ended.returncode}\n{ended.stdout}\n{ended.stderr}"
    return ended.stdout, ended.stderr


def findings(folder: Path, *arguments: str, code: int = 0) -> dict[str, list[list[str]]]:
    """The files of every finding, by kind."""
    out, _ = platform(folder, "data", "recipe.yaml", "--no-features", "--json", *arguments, code=code)
    found = defaultdict(list)
    for each in json.loads(out)["findings"]:
        found[each["kind"]].append(each["files"])
    return dict(found)


def test_every_problem_is_found(invalid: Path, expected: dict[str, list[str]]) -> None:
    assert len(expected) >= 25
    found = findings(invalid.parent, code=1).items()
    assert {kind: sorted(name for files in groups for name in files) for kind, groups in found} == expected


def test_a_run_reports_all_errors_at_once_and_trains_nothing(
    invalid: Path, expected: dict[str, list[str]], bad_kinds: frozenset[str]
) -> None:
    _, stderr = platform(invalid.parent, "run", "recipe.yaml", code=1)
    for kind in {*bad_kinds, "unreadable folder", "duplicate across splits"}:
        assert f"{kind} ({1 if kind.startswith('duplicate') else len(expected[kind])})" in stderr
        assert all(name in stderr for name in expected[kind])
    assert "21 errors" in stderr
    assert "nothing was trained" in stderr
    assert not (invalid.parent / "studies").exists()
    assert not (invalid.parent / "mlflow.db").exists()


def test_valid_images_are_used_and_skipped_files_are_logged(
    invalid: Path, expected: dict[str, list[str]], bad_kinds: frozenset[str]
) -> None:
    folder = invalid.parent
    out, stderr = platform(
        folder,
        *("run", "recipe.yaml", "-o", "dataset.on_bad_image=skip", "-o", "dataset.exclude=[train/ant/locked]"),
        *("-o", "dataset.allow_duplicates=[test/ant/leak.jpg]"),
    )
    assert "19 unreadable files skipped" in stderr
    assert "test/accuracy" in out
    [quarantine] = folder.glob("mlruns/*/*/artifacts/data/quarantine.csv")
    with quarantine.open() as file:
        left_out = sorted(row["file"] for row in csv.DictReader(file))
    assert left_out == sorted(name for kind in bad_kinds for name in expected[kind])
    artifacts = quarantine.parent
    assert {path.stem for path in artifacts.iterdir()} == {
        *("report", "findings", "manifest", "quarantine", "label_errors", "first_batch")
    }
    with (artifacts / "manifest.csv").open() as file:
        used = {row["file"] for row in csv.DictReader(file)}
    assert not used & set(left_out)
    odd_names = {"train/ant/LOUD.JPG", "train/bee/m\\xfcller.jpg"}
    assert odd_names | {"train/bee/deep.png", "test/ant/leak.jpg"} <= used
    with sqlite3.connect(folder / "mlflow.db") as database:
        logged = dict(database.execute("SELECT key, value FROM metrics WHERE key LIKE 'data/%'"))
    assert logged["data/errors"] == 0
    assert logged["data/warnings"] == 15


def test_a_valid_dataset_has_no_findings(plain: Path) -> None:
    assert findings(plain.parent) == {}


def test_differences_between_two_runs_are_reported(plain: Path) -> None:
    folder, train = plain.parent, plain / "train"
    runs = [_ran(folder)]
    (train / "ant/0.jpg").rename(train / "ant/another name.jpg")
    (train / "ant/1.jpg").rename(train / "bee/moved.jpg")
    (train / "ant/2.jpg").write_bytes((train / "ant/2.jpg").read_bytes() + b"\0")
    (train / "ant/3.jpg").unlink()
    runs.append(_ran(folder))
    out, _ = platform(folder, "data", "diff", *runs, "--json")
    found = json.loads(out)
    assert [row["file"] for row in found["removed"]] == ["train/ant/3.jpg"]
    assert [one["file"] for one, _ in found["changed"]] == ["train/ant/2.jpg"]
    assert [(one["label"], two["label"]) for one, two in found["relabeled"]] == [("ant", "bee")]
    assert found["added"] == []
    out, _ = platform(folder, "data", "diff", runs[0], runs[0])
    assert out == "both runs have the same 52 images with the same labels and splits\n"
    _, stderr = platform(folder, "data", "diff", runs[0], "0" * 32, code=1)
    assert "cannot read run" in stderr
    short = runs[0][:8]
    _, stderr = platform(folder, "data", "diff", runs[0], short, code=1)
    assert f"{short!r} is not a run ID (32 hexadecimal digits), and no model {short!r} is registered" in stderr


def _ran(folder: Path) -> str:
    """Runs the recipe and returns the run id of the latest study."""
    platform(folder, "run", "recipe.yaml")
    with sqlite3.connect(folder / "mlflow.db") as database:
        [run] = database.execute(
            "SELECT runs.run_uuid FROM runs JOIN tags USING (run_uuid) WHERE tags.key = 'platform.study' "
            "ORDER BY start_time DESC LIMIT 1"
        ).fetchone()
    return str(run)


def test_an_unreadable_split_is_reported(plain: Path) -> None:
    (plain / "test").chmod(0)
    for spelled in ("{train: train, test: test}", "{}"):
        _, stderr = platform(plain.parent, "run", "recipe.yaml", "-o", f"dataset.splits={spelled}", code=1)
        assert "Traceback" not in stderr
        assert "test" in stderr
        assert "cannot be read: Permission denied" in stderr


def _renamed(folder: Path, name: bytes) -> None:
    folder.rename(folder.with_name(os.fsdecode(name)))


@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        (lambda root: shutil.rmtree(root / "test/bee"), "classes differ", "test is missing the class 'bee'"),
        (lambda root: (root / "test/bee").rename(root / "test/bees"), "classes differ", "did you mean 'bee'"),
        (lambda root: (root / "train/cat").mkdir(), "invalid classes", "without images: 'cat'"),
        (lambda root: shutil.rmtree(root / "train/bee"), "invalid classes", "only one: 'ant'"),
        (lambda root: _renamed(root / "train/bee", b"b\xe9"), "invalid classes", "b\\xe9; rename"),
    ],
)
def test_invalid_class_folders_are_reported(plain: Path, change, kind: str, words: str) -> None:
    change(plain)
    out, _ = platform(plain.parent, "data", "recipe.yaml", "--no-features", code=1)
    assert kind in out
    assert words in out


def test_small_and_imbalanced_classes_are_reported(plain: Path) -> None:
    for number in range(3, 20):
        (plain / f"train/bee/{number}.jpg").unlink()
    found = findings(plain.parent)
    assert set(found) == {"few images", "class imbalance"}
    assert set(findings(plain.parent, "-o", "dataset.few_images=2")) == {"class imbalance"}
