"""A first recipe for folders of made images: what is chosen, why, and what must not be hidden."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from transfer_platform.cli import main
from transfer_platform.commands import _first_recipe, init
from transfer_platform.commands.init import write_first_recipe
from transfer_platform.data.dataset import open_dataset
from transfer_platform.errors import DataError
from transfer_platform.inspection.preflight import preflight, require_valid
from transfer_platform.progress import Step, silent
from transfer_platform.recipe.load import load_recipe
from transfer_platform.recipe.schema import FoldsConfig
from transfer_platform.recipe.search_schema import LadderConfig
from transfer_registry.errors import StorageError

WriteImage = Callable[[Path, str], None]


@pytest.fixture
def fill(isolated: Path, write_image: WriteImage) -> Callable[..., Path]:
    """Makes class folders of so many images each."""

    def make(**counts: int) -> Path:
        for label, count in counts.items():
            for number in range(count):
                write_image(isolated / "Our photos" / label / f"{number}.png", f"{label}{number}")
        return isolated / "Our photos"

    return make


def test_it_can_be_run_as_it_is(fill, isolated) -> None:
    fill(ant=90, bee=110)
    steps: list[Step] = []
    written = write_first_recipe("Our photos", progress=steps.append)
    assert written.file == Path("our-photos.yaml")
    assert str(written).endswith("  platform run our-photos.yaml")
    assert steps
    text = written.file.read_text()
    assert 'source: "Our photos"\n' in text  # relative, as it lies beside the recipe
    recipe = load_recipe(written.file)
    assert (recipe.name, recipe.promotion and recipe.promotion.model) == ("our-photos", "our-photos")
    assert recipe.dataset.splits.model_dump() == {"train": ".", "validation": {"folds": 5}, "test": 0.2}
    assert recipe.search is not None
    assert recipe.search.metric == "validation/loss"
    _, splits = preflight(open_dataset(recipe.dataset, Path()))
    counts = [sum(image.label == label for image in splits.test) for label in splits.classes]
    assert recipe.promotion is not None
    assert recipe.promotion.gate.accuracy is not None
    asked = recipe.promotion.gate.accuracy.at_least
    assert asked == pytest.approx((1 + max(counts) / sum(counts)) / 2, abs=0.01)
    training = len(splits.train)
    assert f"# {training} images for training and validation, 2 classes: ant (" in text
    assert "2 classes: ant (" in str(written)
    assert "median size of your images: 8 x 8" in text


def test_folds_are_not_chosen_where_a_class_has_a_single_training_image(fill) -> None:
    photos = fill(ant=20, bee=25, cat=9)
    for number in range(2, 9):
        photos.joinpath("cat", f"{number}.png").write_bytes(photos.joinpath("cat", "0.png").read_bytes())
    recipe = load_recipe(write_first_recipe("Our photos").file)
    assert isinstance(recipe.dataset.splits.validation, float)
    assert require_valid(*preflight(open_dataset(recipe.dataset, Path()))).validation


def test_classes_that_cannot_be_divided_are_excluded_with_the_reason(fill) -> None:
    photos = fill(ant=20, bee=25, cat=1, dog=3)
    (photos / "empty").mkdir()
    (photos / "copies").mkdir()
    for number in range(3):
        (photos / "copies" / f"{number}.png").write_bytes((photos / "dog" / f"{number}.png").read_bytes())
    (photos / "broken").mkdir()
    (photos / "broken" / "1.png").write_bytes(b"no image")
    written = write_first_recipe("Our photos")
    recipe = load_recipe(written.file)
    assert set(recipe.dataset.exclude) == {"broken", "cat", "dog", "empty"}
    assert "- cat" in written.file.read_text()
    assert "cat (only one distinct image; train and test each need one)" in str(written)
    assert "empty (no readable image of this class in train)" in str(written)
    assert "dog (every image is identical to an image of class 'copies')" in str(written)
    splits = require_valid(*preflight(open_dataset(recipe.dataset, Path())))
    assert splits.classes == ("ant", "bee", "copies")


def test_a_link_to_a_class_folder_is_excluded_rather_than_the_class(fill) -> None:
    photos = fill(real=12, zeta=12)
    (photos / "alias").symlink_to("real")
    written = write_first_recipe("Our photos")
    assert load_recipe(written.file).dataset.exclude == ("alias",)
    assert "alias (every image is identical to an image of class 'real')" in str(written)


@pytest.mark.parametrize(
    ("content", "reason"),
    [("file_name,label\n", "has no rows below the header"), ("file_name,label\n\xff", "is not valid UTF-8")],
)
def test_a_metadata_file_that_cannot_be_used_is_excluded(fill, content: str, reason: str) -> None:
    photos = fill(ant=12, bee=12)
    (photos / "metadata.csv").write_bytes(content.encode("latin-1"))
    written = write_first_recipe("Our photos")
    assert load_recipe(written.file).dataset.exclude == ("metadata.csv",)
    assert reason in written.file.read_text()


def test_files_to_exclude_are_returned_rather_than_added_to_the_argument(fill) -> None:
    (fill(ant=12, bee=12) / "metadata.csv").write_text("file_name,label\n")
    given: dict[str, str] = {}
    _, excluded = init._open("Our photos", None, given, silent)
    assert given == {}
    assert excluded == {"metadata.csv": "not used, because it has no rows below the header"}


def test_a_metadata_file_of_images_without_class_folders_must_be_corrected(isolated, write_image) -> None:
    write_image(isolated / "Our photos" / "1.png", "image 1")
    (isolated / "Our photos" / "metadata.csv").write_text("file_name,label\n")
    with pytest.raises(
        DataError, match=r"metadata\.csv is not used, because it has no rows below the header; outside the class"
    ):
        write_first_recipe("Our photos")


@pytest.mark.parametrize("faults", ["all files missing", "most files missing", "wrong rows"])
def test_a_metadata_file_that_no_recipe_can_use_is_excluded(fill, faults: str) -> None:
    photos = fill(ant=12, bee=12)
    rows = [f"{label}/{number}.png,{label}" for label in ("ant", "bee") for number in range(12)]
    if faults == "wrong rows":
        rows, reason = [*rows, "../ant/0.png,ant"], "it has 1 error, such as metadata.csv, line 26: ../ant/0.png points"
    else:
        used = 0 if faults == "all files missing" else 1
        rows = [row if row.split("/")[1].startswith("0.") and used else f"other/{row}" for row in rows]
        reason = f"{24 - 2 * used} images in it cannot be found"
    (photos / "metadata.csv").write_text("\n".join(["file_name,label", *rows]))
    written = write_first_recipe("Our photos")
    assert f"excluded: metadata.csv (not used, because {reason}" in str(written)
    recipe = load_recipe(written.file)
    assert recipe.dataset.exclude == ("metadata.csv",)
    assert not preflight(open_dataset(recipe.dataset, Path()))[0].errors


def test_missing_images_of_a_metadata_file_are_excluded_if_the_others_suffice(fill) -> None:
    photos = fill(ant=12, bee=12)
    rows = [f"{label}/{number}.png,{label}" for label in ("ant", "bee") for number in range(13)]
    (photos / "metadata.csv").write_text("\n".join(["file_name,label", *rows]))
    written = write_first_recipe("Our photos")
    assert "excluded: 2 files that cannot be used" in str(written)
    assert load_recipe(written.file).dataset.exclude == ("ant/12.png", "bee/12.png")


def test_missing_images_of_a_metadata_file_without_class_folders_are_named(fill) -> None:
    photos = fill(ant=1)
    (photos / "ant").rename(photos / "images")
    (photos / "metadata.csv").write_text("file_name,label\na.png,ant\nb.png,bee\n")
    with pytest.raises(DataError, match=r"missing \(2\), for example a\.png: the file does not exist"):
        write_first_recipe("Our photos")


def test_an_unusable_metadata_file_in_an_archive_is_excluded(fill, isolated) -> None:
    (fill(ant=12, bee=12) / "metadata.csv").write_text("file_name,label\n")
    shutil.make_archive("photos", "zip", "Our photos")
    assert load_recipe(write_first_recipe("photos.zip").file).dataset.exclude == ("metadata.csv",)


def test_a_class_that_another_folder_lacks_is_excluded(fill) -> None:
    photos = fill(ant=40, bee=40, cat=40)
    for label in ("ant", "bee", "cat"):
        for split in ("train", "test"):
            (photos / split / label).mkdir(parents=True)
        for number in range(40):
            split = "test" if number < 10 and label != "cat" else "train"
            (photos / label / f"{number}.png").rename(photos / split / label / f"{number}.png")
        (photos / label).rmdir()
    (photos / "test" / "cat").rmdir()
    written = write_first_recipe("Our photos")
    assert "train/cat (no image of this class in test)" in str(written)
    recipe = load_recipe(written.file)
    assert require_valid(*preflight(open_dataset(recipe.dataset, Path()))).classes == ("ant", "bee")


def test_rows_of_a_class_that_cannot_be_divided_are_excluded(fill, isolated) -> None:
    photos = fill(ant=20, bee=25, cat=1)
    rows = [f"{file.relative_to(isolated)},{file.parent.name}" for file in sorted(photos.rglob("*.png"))]
    Path("photos.csv").write_text("\n".join(["path,label", *rows]))
    recipe = load_recipe(write_first_recipe("photos.csv").file)
    assert recipe.dataset.exclude == ("Our photos/cat/0.png",)
    assert require_valid(*preflight(open_dataset(recipe.dataset, Path()))).classes == ("ant", "bee")


def test_few_images_rank_trials_out_of_fold(fill) -> None:
    fill(ant=20, bee=25)
    recipe = load_recipe(write_first_recipe("Our photos").file)
    assert recipe.dataset.splits.validation == FoldsConfig(folds=5)
    assert require_valid(*preflight(open_dataset(recipe.dataset, Path()))).fold_count == 5


def test_a_ladder_is_suggested_for_many_images_and_explained_for_few(fill, monkeypatch) -> None:
    fill(ant=20, bee=25)
    few = write_first_recipe("Our photos").file
    assert load_recipe(few).search.ladder is None
    assert "# ladder: {epochs_per_rung: 5}" in few.read_text()
    few.unlink()
    monkeypatch.setattr(_first_recipe, "MIN_VALIDATION_IMAGES", 1)
    many = load_recipe(write_first_recipe("Our photos").file)
    assert many.search.ladder == LadderConfig(epochs_per_rung=5)


def test_uneven_classes_count_alike(fill) -> None:
    fill(ant=40, bee=150)
    written = write_first_recipe("Our photos")
    recipe = load_recipe(written.file)
    assert recipe.search is not None
    assert (recipe.training.class_weights, recipe.search.metric) == ("auto", "validation/macro_recall")
    assert recipe.promotion is not None
    assert recipe.promotion.gate.macro_recall is not None
    assert recipe.promotion.gate.macro_recall.at_least == 0.75
    assert "bee has 1" in written.file.read_text()


def test_unreadable_files_are_excluded_by_name_and_said(fill, write_image) -> None:
    folder = fill(ant=90, bee=90)
    (folder / "ant" / "cut [1].png").write_bytes((folder / "ant" / "1.png").read_bytes()[:60])
    (folder / "bee" / "empty: #1.png").write_bytes(b"")
    (folder / "bee" / "away.png").symlink_to("/etc/hostname")
    (folder / "bee" / "gone").symlink_to("nothing")
    written = write_first_recipe("Our photos")
    recipe = load_recipe(written.file)
    assert sorted(recipe.dataset.exclude) == ["ant/cut [1].png", "bee/away.png", "bee/empty: #1.png", "bee/gone"]
    assert "excluded: 4 files that cannot be used" in str(written)
    assert "# it is empty" in written.file.read_text()
    found, _ = preflight(open_dataset(recipe.dataset, Path()))
    assert not found.errors


def test_many_unreadable_files_are_skipped_as_a_whole(fill) -> None:
    folder = fill(ant=90, bee=90)
    for number in range(21):
        (folder / "ant" / f"empty{number}.png").touch()
    recipe = load_recipe(write_first_recipe("Our photos").file)
    assert (recipe.dataset.exclude, recipe.dataset.on_bad_image) == ((), "skip")
    assert len(preflight(open_dataset(recipe.dataset, Path()))[0].quarantine) == 21


def test_a_copy_of_a_test_image_is_excluded_from_train(fill) -> None:
    folder = fill(ant=40, bee=40)
    for split in ("train", "test"):
        for label in ("ant", "bee"):
            (folder / split / label).mkdir(parents=True)
            for number in range(20 * (split == "test"), 20 + 20 * (split == "test")):
                (folder / label / f"{number}.png").rename(folder / split / label / f"{number}.png")
    for label in ("ant", "bee"):
        (folder / label).rmdir()
    (folder / "test" / "ant" / "again.png").write_bytes((folder / "train" / "ant" / "1.png").read_bytes())
    written = write_first_recipe("Our photos")
    assert "train/ant/1.png (identical to an image in test)" in str(written)
    recipe = load_recipe(written.file)
    assert recipe.dataset.exclude == ("train/ant/1.png",)
    assert len(require_valid(*preflight(open_dataset(recipe.dataset, Path()))).test) == 41


def test_what_cannot_be_trained_on_gets_no_recipe(fill, isolated) -> None:
    fill(ant=3, bee=1)
    with pytest.raises(
        DataError, match=r"no recipe was written for .*: cannot be split: every class needs distinct images"
    ):
        write_first_recipe("Our photos")
    with pytest.raises(DataError, match=r"the source .* was not found"):
        write_first_recipe("photos")
    assert not list(isolated.glob("*.yaml"))


def test_rows_whose_files_are_missing_are_the_reason_for_no_recipe(fill, isolated) -> None:
    fill(ant=3, bee=3)
    rows = [f"Our photos\\{label}\\{number}.png,{label}" for label in ("ant", "bee") for number in range(3)]
    (isolated / "windows.csv").write_text("\n".join(["path,label", *rows]))
    with pytest.raises(DataError, match=r"0\.png: the file does not exist; use / to separate folders \(windows\.csv"):
        write_first_recipe("windows.csv")


def test_few_images_of_a_class_are_in_train_and_test(fill) -> None:
    fill(ant=60, dog=3)
    written = write_first_recipe("Our photos")
    assert load_recipe(written.file).dataset.splits.test == 0.2
    _, splits = preflight(open_dataset(load_recipe(written.file).dataset, Path()))
    assert {image.label for image in splits.test} == {image.label for image in splits.train} == {"ant", "dog"}


def test_no_recipe_lies_among_the_images(fill, monkeypatch) -> None:
    monkeypatch.chdir(fill(ant=30, bee=30))
    with pytest.raises(
        StorageError, match=r"inside the image folder; use --out to write it elsewhere, for example to .*photos\.yaml"
    ):
        write_first_recipe(".")
    assert load_recipe(write_first_recipe(".", Path("../first.yaml")).file).dataset.source == "Our photos"


def test_names_are_shown_where_they_could_end_a_comment(fill) -> None:
    folder = fill(ant=60, bee=60)
    (folder / "train").mkdir()
    for label in ("ant", "bee"):
        (folder / label).rename(folder / "train" / label)
    (folder / "te\nst").mkdir()
    written = write_first_recipe("Our photos")
    assert "# not used: te\\nst (" in written.file.read_text()


def test_no_file_is_replaced(fill, capsys) -> None:
    fill(ant=30, bee=30)
    Path("our-photos.yaml").write_text("mine")
    with pytest.raises(
        StorageError, match=r"our-photos\.yaml already exists; delete it, or choose another file with --out"
    ):
        write_first_recipe("Our photos")
    with pytest.raises(SystemExit) as end:
        main(["init", "Our photos", "--out", "recipes/first.yaml"])
    assert end.value.code == 1
    assert "cannot write recipes/first.yaml" in capsys.readouterr().err
    with pytest.raises(SystemExit) as end:
        main(["init", "Our photos", "--out", "first.yaml"])
    assert end.value.code == 0
    assert capsys.readouterr().out.startswith("wrote first.yaml")
    assert Path("our-photos.yaml").read_text() == "mine"


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("no", "no"),
        ("2024", "2024"),
        (".hidden", "hidden"),
        ("Ä ö", "photographs"),
        ("a.b.c", "a.b.c"),
        ("x" * 150, "x" * 100),
        ('it\'s: "quoted" #1', "it-s-quoted-1"),
    ],
)
def test_names_that_yaml_would_read_as_something_else(folder, name, fill) -> None:
    fill(ant=30, bee=30).rename(folder)
    recipe = load_recipe(write_first_recipe(folder).file)
    assert (recipe.name, recipe.dataset.source) == (name, folder)


def test_ambiguous_class_folders_are_chosen_with_an_option(write_image: WriteImage, isolated: Path) -> None:
    for label in ("healthy", "ill"):
        for side in ("left", "right"):
            for number in range(8):
                write_image(isolated / "Our photos" / label / side / f"{number}.png", f"{label}{side}{number}")
    with pytest.raises(DataError, match=r"set dataset.splits.train to '\.' \(`platform init --train`\)"):
        write_first_recipe("Our photos")
    recipe = load_recipe(write_first_recipe("Our photos", train=".").file)
    assert recipe.dataset.splits.train == "."
    assert set(open_dataset(recipe.dataset, Path()).split().classes) == {"healthy", "ill"}
