"""Figures with class and file names in any script."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from fontTools.ttLib import TTFont
from matplotlib import font_manager, get_data_path
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from transfer_platform.evaluation.drawn_names import drawn_names, in_one_font
from transfer_platform.evaluation.figures import confusion_matrix, image_grid, worst_mistakes
from transfer_platform.evaluation.predictions import Predictions

DEJAVU = Path(get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")
CAT = "\u732b"

Draw = Callable[[Predictions], Figure]
both = pytest.mark.parametrize("draw", [confusion_matrix, worst_mistakes])


def predictions(folder: Path, classes: tuple[str, str] = ("ant", "bee"), file: str = "a.png") -> Predictions:
    """Predictions of one class for two images of the other one."""
    path = folder / file
    Image.new("RGB", (20, 20)).save(path, "PNG")
    return Predictions(classes, [path] * 2, np.array([1, 1]), np.array([[0.9, 0.1]] * 2, np.float32))


def drawn(figure: Figure, file: Path) -> str:
    """All texts of a figure after it was drawn; warnings, such as one about a missing glyph, are errors."""
    figure.savefig(file)
    return "\n".join(text.get_text() for text in figure.findobj(Text))


@pytest.fixture
def install(tmp_path: Path, monkeypatch) -> Callable[..., str]:
    """Installs a font that has only the given characters, and returns its family."""
    (tmp_path / "fonts").mkdir()
    monkeypatch.setattr(font_manager, "X11FontDirectories", [str(tmp_path / "fonts")])
    monkeypatch.setattr(font_manager, "_get_fontconfig_fonts", list)
    monkeypatch.setattr(font_manager.fontManager, "ttflist", [*font_manager.fontManager.ttflist])

    def install(family: str, characters: str) -> str:
        font = TTFont(DEJAVU)
        for table in font["cmap"].tables:
            table.cmap = {ord(character): "A" for character in characters if table.format == 12 or character < "\uffff"}
        for name in (1, 4, 16):
            font["name"].setName(family, name, 3, 1, 0x409)
        font["name"].removeNames(platformID=1)
        font.save(tmp_path / "fonts" / f"{family}.ttf")
        return family

    return install


@both
def test_names_that_no_font_has_are_escape_sequences_with_a_note(draw: Draw, tmp_path: Path, install) -> None:
    text = drawn(draw(predictions(tmp_path, (CAT, "Käfer \N{ANT}"))), tmp_path / "figure.png")
    assert "\\u732b" in text
    assert "Käfer \\U0001f41c" in text
    assert "stand for characters that no installed font has" in text


@both
def test_installed_fonts_draw_the_names_that_they_have(draw: Draw, tmp_path: Path, install) -> None:
    families = [install("Cats", CAT), install("Ants", "\N{ANT}")]
    figure = draw(predictions(tmp_path, (CAT, "\N{ANT}")))
    text = drawn(figure, tmp_path / "figure.png")
    assert CAT in text
    assert "\N{ANT}" in text
    assert "escape" not in text.lower()
    shown = [each for each in figure.findobj(Text) if CAT in each.get_text()]
    assert all(set(families) <= set(each.get_fontfamily()) for each in shown)


@both
def test_ordinary_names_need_no_other_font(draw: Draw, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(font_manager, "findSystemFonts", pytest.fail)
    assert "Größe" in drawn(draw(predictions(tmp_path, ("Größe", "кот"))), tmp_path / "figure.png")


def test_a_font_of_placeholders_is_not_used(install) -> None:
    install("Last Resort", f"{CAT}\u0378")
    assert drawn_names([CAT]).texts == ("\\u732b",)


def test_a_damaged_font_is_not_used(tmp_path: Path, install) -> None:
    (tmp_path / "fonts" / "damaged.ttf").write_bytes(DEJAVU.read_bytes()[:2000])
    family = install("Cats", CAT)
    assert drawn_names([CAT]).families[1:] == (family,)


@both
@pytest.mark.parametrize("name", ["a$b$c_{", "$\\frac$", "5$", "\\$a$"])
def test_a_name_with_dollar_signs_is_no_formula(draw: Draw, name: str, tmp_path: Path) -> None:
    text = drawn(draw(predictions(tmp_path, (name, "US$"))), tmp_path / "figure.png")
    assert name.replace("$", "\\$") in text


@pytest.mark.parametrize(
    ("name", "shown"),
    [(b"m\xfcller.png", "m\\xfcller.png"), (b"a\nb.png", "a\\nb.png"), (b"$a_{$.png", "\\$a_{\\$.png")],
)
def test_file_names_of_mistakes_may_be_any_bytes(name: bytes, shown: str, tmp_path: Path) -> None:
    figure = worst_mistakes(predictions(tmp_path, file=os.fsdecode(name)))
    assert shown in drawn(figure, tmp_path / "figure.png")


def test_an_annotation_uses_the_font_that_has_the_most_characters(install) -> None:
    text, font = in_one_font(["кот  50.0%", "Größe  1.0%"])
    assert (text, Path(font).name) == ("кот  50.0%\nGröße  1.0%", "DejaVuSans.ttf")
    install("Cats", f"{CAT} 0123456789.%")
    text, font = in_one_font([f"{CAT}  50.0%"])
    assert (text, Path(font).name) == (f"{CAT}  50.0%", "Cats.ttf")
    text, font = in_one_font([f"{CAT}  50.0%", "elephant  0.1%"])
    assert (text, Path(font).name) == ("\\u732b  50.0%\nelephant  0.1%", "DejaVuSans.ttf")


def test_characters_of_other_scripts_differ_in_an_annotated_image(tmp_path: Path, install) -> None:
    """A font without the characters would draw the same box for each of them."""
    from transfer_platform.commands.classify import Classification, annotate_image

    drawn = set()
    for name in ("к", "т", CAT, "\u718a"):
        Image.new("RGB", (200, 100)).save(tmp_path / "photo.png")
        annotate_image(Classification("photo.png", (name,), (0.5,)), tmp_path / "photo.png", tmp_path / "out.png")
        drawn.add((tmp_path / "out.png").read_bytes())
    assert len(drawn) == 4


def test_a_grid_shows_at_most_16_images_with_their_titles(tmp_path: Path) -> None:
    images = np.random.default_rng(0).random((20, 8, 8, 3), np.float32)
    figure = image_grid(images, [f"class {number} {CAT}" for number in range(20)])
    shown = [image.get_array() for axes in figure.axes for image in axes.get_images()]
    assert len(shown) == 16
    assert all(np.array_equal(image, original) for image, original in zip(shown, images, strict=False))
    assert "class 15" in drawn(figure, tmp_path / "grid.png")
