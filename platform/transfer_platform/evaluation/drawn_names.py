"""Fonts and escape sequences for class and file names in figures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from matplotlib import font_manager
from matplotlib.ft2font import FT2Font

from transfer_platform.file_problems import printable

UNASSIGNED = 0x0378
"""An unassigned code point; only fonts that draw placeholders for all characters have a glyph for it."""


@dataclass(frozen=True)
class DrawnNames:
    """Names as text that Matplotlib can draw.

    Attributes:
        texts: The names, with escape sequences for characters that no installed font has.
        families: Font families in order of preference, for Matplotlib's `fontfamily`.
        note: Sentence that explains the escape sequences; empty if there are none.
    """

    texts: tuple[str, ...]
    families: tuple[str, ...]
    note: str


def drawn_names(names: Sequence[str]) -> DrawnNames:
    """Prepares user-supplied names for a figure; they may contain any script, line breaks, invalid UTF-8 and `$`.

    The fonts that come with Matplotlib lack Chinese, Japanese and Korean characters, among others. Without another
    font, Matplotlib would draw these characters as boxes.
    """
    texts = [printable(name) for name in names]
    fonts, missing = _covering_fonts(texts)
    families = [font_manager.ttfFontProperty(FT2Font(path)).name for path in fonts]
    for path in fonts[1:]:
        font_manager.fontManager.addfont(path)
    note = ""
    if missing:
        note = "Escape sequences such as \\u732b stand for characters that no installed font has."
    # Matplotlib would read a name with two dollar signs as a formula.
    drawn = (_escape(text, missing).replace("$", r"\$") for text in texts)
    return DrawnNames(tuple(drawn), tuple(families), note)


def _covering_fonts(texts: Iterable[str]) -> tuple[list[str], set[str]]:
    """Finds installed fonts that together cover as many characters of the texts as possible.

    Returns:
        Font files, starting with Matplotlib's default font, and the characters that none of them has.
    """
    fonts = [str(font_manager.findfont(font_manager.FontProperties()))]
    missing = {character for text in texts for character in text} - _characters(fonts[0])
    if not missing:
        return fonts, missing
    installed: Mapping[str, set[str]] = {path: _characters(path) for path in sorted(font_manager.findSystemFonts())}
    while missing and installed:
        best = max(installed, key=lambda path: len(installed[path] & missing))
        if not installed[best] & missing:
            break
        fonts.append(best)
        missing -= installed[best]
    return fonts, missing


def in_one_font(lines: Sequence[str]) -> tuple[str, str]:
    """Joins lines into one string; also returns the path of the font that covers most of the string's characters.

    Pillow draws a string in a single font; characters that the font lacks are replaced with escape sequences.
    """
    texts = [printable(line) for line in lines]
    fonts, _ = _covering_fonts(texts)
    needed = set("".join(texts))
    font = min(fonts, key=lambda path: len(needed - _characters(path)))
    missing = needed - _characters(font)
    return "\n".join(_escape(text, missing) for text in texts), font


def _escape(text: str, missing: set[str]) -> str:
    """Replaces the `missing` characters of a text with escape sequences."""
    return "".join(each.encode("unicode_escape").decode() if each in missing else each for each in text)


def _characters(path: str) -> set[str]:
    """Returns the characters that a font covers; empty if the font is unusable or contains only placeholders."""
    try:
        font = FT2Font(path)
        codes = font.get_charmap()
    except (OSError, RuntimeError, ValueError):
        return set()
    return set(map(chr, codes)) if font.scalable and UNASSIGNED not in codes else set()
