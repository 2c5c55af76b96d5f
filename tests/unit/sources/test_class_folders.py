"""Class names that are not valid folder names."""

from __future__ import annotations

import pytest

from transfer_platform.sources.class_folders import folder_names


@pytest.mark.parametrize(
    ("classes", "folders"),
    [
        (["T-shirt/top", "0 - zero", "Ankle boot"], ["T-shirt-top", "0 - zero", "Ankle boot"]),
        (["A", "b", "a"], ["A_0", "b", "a_2"]),
        (["F/A-18", "F\\A-18"], ["F-A-18_0", "F-A-18_1"]),
        (
            ["..", ".hidden", "", "Thumbs.db", "a\n\tb?", "end. "],
            ["class_0", "hidden", "class_2", "class_3", "a-b-", "end"],
        ),
        (["cafe\u0301", "ä" * 200], ["caf\u00e9", "ä" * 100]),
    ],
)
def test_every_class_gets_a_folder_of_its_own(classes: list[str], folders: list[str]) -> None:
    assert list(folder_names(classes)) == folders
