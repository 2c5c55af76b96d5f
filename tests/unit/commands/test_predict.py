"""The table of `platform predict`: which files it may replace, and which names it can hold."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import pytest

from transfer_platform.commands.predict import _write, predict_folder
from transfer_platform.errors import DataError


@pytest.mark.parametrize("name", ["photo.png", "recipe.yaml"])
def test_a_file_that_is_not_a_table_is_not_replaced(name: str, isolated: Path) -> None:
    (isolated / name).write_text("mine")
    with pytest.raises(DataError, match=f"{name} exists and is not a .csv file"):
        predict_folder(isolated, "model", Path(name))
    assert (isolated / name).read_text() == "mine"


def test_names_that_are_not_valid_utf8_are_escaped(isolated: Path) -> None:
    name = os.fsdecode(b"a\xff\n.png")
    _write(isolated / "out.csv", [{"file": name, "label": "ant"}, {"file": "é\n.png", "label": "bee"}])
    with (isolated / "out.csv").open(encoding="utf-8", newline="") as file:
        assert [row["file"] for row in csv.DictReader(file)] == ["a\\xff\\n.png", "é\n.png"]
