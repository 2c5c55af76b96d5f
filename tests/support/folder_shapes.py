"""Folders of many shapes that `platform init` accepts; each function writes one below `photos`."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

Write = Callable[[str], None]
"""Writes an image below `photos`; its content depends on its name."""


def write_classes(write: Write, *labels: str, images: int = 9) -> None:
    for label in labels:
        for number in range(images):
            write(f"{label}/{number}.png")


def deep_nesting(write: Write) -> None:
    for number in range(8):
        write(f"ant/2021/may/01/{number}.png")
        write(f"bee/a/b/c/d/e/f/{number}.png")


def two_levels_of_classes(write: Write) -> None:
    for species in ("insect/ant", "insect/bee", "bird/crow", "bird/duck"):
        for number in range(4):
            write(f"{species}/{number}.png")


def one_image_a_class_beside_others(write: Write) -> None:
    for label in range(6):
        for number in range(8 if label < 2 else 1):
            write(f"class {label}/{number}.png")


def many_small_classes(write: Write) -> None:
    for label in range(60):
        for number in range(3):
            write(f"{label:04}/{number}.png")


def links_to_images_in_the_folder(write: Write) -> None:
    for number in range(12):
        write(f"ant/{number}.png")
        write(f"bee/{number}.png")
    for label in ("ant", "bee"):
        for number in range(12):
            Path("photos", label, f"link{number}.png").symlink_to(f"{number}.png")


def folders_in_other_scripts(write: Write) -> None:
    for number in range(9):
        write(f"アリ/{number}.png")
        write(f"пчела #1/写真 {number}.png")


def notes_beside_and_between_the_images(write: Write) -> None:
    for number in range(9):
        write(f"ant/{number}.png")
        write(f"bee/{number}.png")
        Path("photos", "ant", f"{number}.txt").write_text("a note")
    Path("photos", "README.md").write_text("what this is")


def a_single_parent_folder(write: Write) -> None:
    for number in range(9):
        write(f"images/ant/{number}.png")
        write(f"images/bee/{number}.png")


def train_and_empty_test(write: Write) -> None:
    for label in ("ant", "bee", "cat"):
        for number in range(9):
            write(f"train/{label}/{number}.png")
            if label != "cat":
                write(f"test/{label}/{number}.png")
    Path("photos", "test", "cat").mkdir()


def names_like_patterns(write: Write) -> None:
    for number in range(9):
        write(f"[a]/{number}.png")
        write(f"b*/{number}.png")
    write("[ab]?/0.png")


def two_or_three_images_in_every_class(write: Write) -> None:
    write_classes(write, "ant", "bee", images=2)
    write_classes(write, "crow", "duck", images=3)


def train_val_and_test_with_different_classes(write: Write) -> None:
    write_classes(
        write, "train/ant", "train/bee", "train/cat", "val/ant", "val/bee", "test/ant", "test/bee", "test/dog"
    )


def files_that_are_not_images_or_damaged(write: Write) -> None:
    write_classes(write, "ant", "bee")
    write("0.png")
    Path("photos/ant/0.png").write_bytes(Path("photos/ant/1.png").read_bytes()[:60])
    Path("photos/bee/0.png").write_text("<html>")
    Path("photos/bee/.DS_Store").touch()
    Path("photos/cat").mkdir()


def the_same_images_in_several_classes(write: Write) -> None:
    write_classes(write, "ant", "bee")
    for number in range(4):
        shutil.copy(f"photos/ant/{number}.png", f"photos/bee/copy{number}.png")
    shutil.copytree("photos/ant", "photos/formica")


def names_that_yaml_reads_as_values(write: Write) -> None:
    write_classes(write, "yes", "no", "null", "b: c #d")
    write_classes(write, "1.0", "- a", "~", images=1)


def a_fixed_camera(write: Write) -> None:
    for label, seed in (("day", 0), ("night", 1)):
        write_classes(write, label, images=1)
        scene = np.random.default_rng(seed).integers(0, 256, (32, 32, 3)).astype(np.uint8)
        for number in range(9):
            scene[0, number] = number
            Image.fromarray(scene).save(f"photos/{label}/{number}.png")


def every_format(write: Write) -> None:
    write_classes(write, "ant", "bee", images=1)
    for label, seed in (("ant", 0), ("bee", 1)):
        for number, suffix in enumerate(("JPG", "webp", "bmp", "gif", "tif", "ppm", "avif", "jp2")):
            pixels = np.random.default_rng([seed, number]).integers(0, 256, (20 + number, 30, 3))
            Image.fromarray(pixels.astype(np.uint8)).save(f"photos/{label}/{number}.{suffix}")


def a_manifest(write: Write) -> str:
    write_classes(write, "ant", "bee")
    rows = [f"{label}/{number}.png,{label}" for label in ("ant", "bee") for number in range(9)]
    Path("photos/list.csv").write_text("\n".join(["path,label", *rows]))
    return "photos/list.csv"


def an_archive(write: Write) -> str:
    write_classes(write, "photos/ant", "photos/bee")
    return shutil.make_archive("photos", "zip", "photos")


RUNS: tuple[Callable[[Write], str | None], ...] = (
    deep_nesting,
    two_levels_of_classes,
    one_image_a_class_beside_others,
    two_or_three_images_in_every_class,
    many_small_classes,
    links_to_images_in_the_folder,
    folders_in_other_scripts,
    notes_beside_and_between_the_images,
    files_that_are_not_images_or_damaged,
    a_single_parent_folder,
    train_and_empty_test,
    train_val_and_test_with_different_classes,
    the_same_images_in_several_classes,
    a_fixed_camera,
    every_format,
    names_like_patterns,
    names_that_yaml_reads_as_values,
    a_manifest,
    an_archive,
)
"""A shape returns its source if this is not `photos`."""
