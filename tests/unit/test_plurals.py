"""Numbers in messages are followed by the right form of their noun."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import transfer_platform
from transfer_platform.plurals import counted

SOURCES = sorted(Path(transfer_platform.__file__).parent.rglob("*.py"))


@pytest.mark.parametrize(
    ("number", "words", "expected"),
    [
        (0, ["image"], "0 images"),
        (1, ["image"], "1 image"),
        (2, ["image"], "2 images"),
        (1, ["entry", "entries"], "1 entry"),
        (3, ["entry", "entries"], "3 entries"),
    ],
)
def test_the_noun_agrees_with_its_number(number: int, words: list[str], expected: str) -> None:
    assert counted(number, *words) == expected


def test_no_module_forms_plurals_by_hand() -> None:
    by_hand = re.compile(r"""["']s["'] \* \(|["']["'] if \w+ == 1 else ["']s["']|["']1 \w+ (is|was)["'] if""")
    assert [path.name for path in SOURCES if by_hand.search(path.read_text(encoding="utf-8"))] == []
