"""The accepted image formats: decoded safely, with the same pixels every time, and listed once."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import warnings
from contextlib import suppress
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from transfer_model import decode as decode_module
from transfer_model.decode import decode, open_image
from transfer_model.errors import UnreadableImageError
from transfer_model.formats import ACCEPTED, FORMATS, format_of
from transfer_platform.data.image_stats import HEADER_DTYPE, compute_stats

REPOSITORY = Path(__file__).parents[3]
NEW = ("AVIF", "JPEG2000", "HEIF")


def noise(width: int = 90, height: int = 60) -> Image.Image:
    return Image.fromarray(np.random.default_rng(1).integers(0, 256, (height, width, 3), np.uint8))


def encoded(image: Image.Image, name: str, **options: object) -> bytes:
    content = BytesIO()
    image.save(content, name, **options)
    return content.getvalue()


def message(read, content: bytes) -> str:
    try:
        read(content, "it")
    except UnreadableImageError as error:
        return str(error)
    return "fine"


def test_every_accepted_format_is_installed_for_the_tests() -> None:
    assert [each.name for each in ACCEPTED if not each.is_installed] == []


def test_every_mode_is_decoded_the_same_from_a_path_and_in_another_process(accepted_images: dict[str, Path]) -> None:
    expected = [decode(path).tobytes() for path in accepted_images.values()]
    assert [decode(path.read_bytes()).tobytes() for path in accepted_images.values()] == expected
    script = (
        "import hashlib, sys; from pathlib import Path; from transfer_model.decode import decode\n"
        "print(hashlib.sha256(b''.join(decode(Path(path)).tobytes() for path in sys.argv[1:])).hexdigest())"
    )
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(REPOSITORY / 'registry')!r}); {script}"]
    digests = {
        subprocess.run([*command, *accepted_images.values()], capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    }
    assert digests == {hashlib.sha256(b"".join(expected)).hexdigest() + "\n"}


def test_the_format_and_its_extension_are_those_of_the_list(accepted_images: dict[str, Path]) -> None:
    for path in accepted_images.values():
        name = str(open_image(path).format)
        assert format_of(path.read_bytes()) is FORMATS[name]
        header = np.frombuffer(compute_stats(path.read_bytes(), "it")[: HEADER_DTYPE.itemsize], HEADER_DTYPE)[0]
        assert header["format"].decode() == name
        assert (header["width"], header["height"]) == decode(path).size


@pytest.mark.parametrize("name", ["JPEG", "PNG", "TIFF", "WEBP", "AVIF", "HEIF"])
def test_a_turned_image_is_upright(accepted_images: dict[str, Path], name: str) -> None:
    turned, upright = (
        decode(accepted_images[f"{name} turned"]),
        decode(accepted_images[f"{name} RGB"]).rotate(-90, expand=True),
    )
    assert turned.size == upright.size == (60, 80)
    assert np.abs(np.asarray(turned).astype(int) - np.asarray(upright)).mean() < 6


@pytest.mark.parametrize("name", ["AVIF", "JPEG2000", "HEIF"])
def test_transparency_is_composited_on_white(accepted_images: dict[str, Path], name: str) -> None:
    assert np.asarray(decode(accepted_images[f"{name} RGBA"]))[:, 0].min() > 245


@pytest.mark.parametrize("name", NEW)
def test_damaged_bytes_are_an_image_or_rejected_and_the_preflight_agrees(name: str) -> None:
    whole, random = encoded(noise(), name), np.random.default_rng(2)
    rejected = 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for turn in range(60):
            content = bytearray(whole)
            for place in random.integers(0, len(whole), 4).tolist():
                content[place] = int(random.integers(256))
            broken = bytes(content[: int(random.integers(20, len(whole)))] if turn % 3 == 0 else content)
            expected = message(decode, broken)
            assert message(compute_stats, broken) == expected
            rejected += expected != "fine"
    assert rejected, "no damage was noticed"


def test_the_thumbnail_in_a_heic_file_is_not_used_instead_of_its_image() -> None:
    """It may show something else, and the image itself may be damaged."""
    image = Image.radial_gradient("L").convert("RGB").resize((800, 600))
    content = encoded(image, "HEIF", quality=90, thumbnails=[64, 128])
    assert decode(content, min_side=50).tobytes() == decode(content).tobytes()


@pytest.mark.parametrize("name", NEW)
def test_an_image_with_too_many_pixels_is_rejected_before_it_is_decoded(name: str, monkeypatch) -> None:
    content = encoded(noise(), name)
    monkeypatch.setattr(decode_module, "MAX_PIXELS", 90 * 60 - 1)
    with pytest.raises(UnreadableImageError, match="90 x 60 pixels, more than the"):
        open_image(content)


@pytest.mark.parametrize("name", NEW)
def test_a_header_that_states_a_smaller_size_does_not_decode_a_large_image(name: str) -> None:
    """Otherwise the pixel limit would not bound memory."""
    content, large, small = encoded(noise(900, 600), name), (900, 600), (9, 6)
    order = (0, 1) if name != "JPEG2000" else (1, 0)
    sizes = [b"".join(size[place].to_bytes(4, "big") for place in order) for size in (large, small)]
    assert sizes[0] in content
    changed = content.replace(*sizes, 1)
    with suppress(UnreadableImageError):
        first = decode(changed)
        assert first.size == small
        assert decode(changed).tobytes() == first.tobytes()


def test_a_format_without_its_package_names_the_package(monkeypatch) -> None:
    content = encoded(noise(), "HEIF")
    monkeypatch.setattr("transfer_model.formats.pillow_heif", None)
    monkeypatch.setattr(decode_module, "installed_formats", lambda: ("JPEG", "PNG"))
    expected = "install pillow-heif: pip install 'transfer-platform[heif]'"
    assert message(decode, content) == f"it is in the HEIC format; to read it, {expected}"


def test_the_documents_list_exactly_the_accepted_formats() -> None:
    titles = ", ".join(each.title for each in ACCEPTED)
    for page in ("data.md", "serving.md"):
        assert titles in " ".join((REPOSITORY / "docs" / page).read_text(encoding="utf-8").split()), page
    with pytest.raises(UnreadableImageError) as error:
        decode(b"text")
    assert f"({titles})" in str(error.value)
