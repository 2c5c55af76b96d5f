"""Using a registered model on folders: classify every image, or measure the model on labelled ones."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from transfer_model.errors import UnreadableImageError
from transfer_model.preprocessing import decode
from transfer_platform.data.catalog import scan_folder
from transfer_platform.errors import DataError
from transfer_platform.evaluation.predictions import Predictions
from transfer_platform.evaluation.report import evaluation_report
from transfer_platform.progress import Progress, Step, silent
from transfer_platform.sources.walk import walk
from transfer_registry.files import atomic_write, require_writable
from transfer_registry.serving.loaded_model import LoadedModel, load_model

BATCH = 15
"""Images handed to a model at once; of the largest that it reads, no more fit into one request."""
NOTHING = {"label": "", "probability": "", "unknown": ""}
"""What the table says of a file that is no image."""


def predict_folder(folder: Path, model: str, out: Path, progress: Progress = silent) -> str:
    """Classifies every image below a folder.

    Args:
        folder: Searched with its subfolders; hidden files are left out.
        model: A registered model, see `transfer_registry.model_uri`.
        out: CSV file of `file` (relative to the folder), `label`, `probability`, `unknown` (whether it is
            unlike the training images) and `error`; replaced.
        progress: Told how many images are done.

    Returns:
        What was done, in a sentence.

    Raises:
        DataError: The folder holds no file.
        RegistryError: There is no such model.
    """
    require_writable(out)
    files, problems = _files(folder)
    files = [path for path in files if path != out.resolve()]
    loaded = load_model(model)
    rows: list[dict[str, object]] = []
    for start in range(0, len(files), BATCH):
        rows += _rows(loaded, files[start : start + BATCH], folder.resolve())
        progress(Step("classifying", len(rows), len(files), "images"))
    rows += [
        {"file": path.relative_to(folder.resolve()).as_posix(), **NOTHING, "error": why}
        for path, why in problems.items()
    ]
    _write(out, rows)
    unreadable = sum(bool(row["error"]) for row in rows)
    unlike = sum(row["unknown"] == "true" for row in rows)
    note = f"; {unlike} of them are unlike the training images, see the column `unknown`" if unlike else ""
    note += f"; {unreadable} could not be read, see the column `error`" if unreadable else ""
    return f"{len(rows) - unreadable} images classified by {loaded.uri}, written to {out}{note}"


def evaluate_folder(model: str, folder: Path, progress: Progress = silent) -> str:
    """Measures a model on class folders of images.

    Args:
        model: A registered model, see `transfer_registry.model_uri`.
        folder: Holds one folder per class, named as the model names its classes.
        progress: Told how many images are done.

    Returns:
        The report, markdown.

    Raises:
        DataError: The folders do not name the model's classes, or a file in them is no image.
        RegistryError: There is no such model.
    """
    catalog = scan_folder(folder, progress=progress)
    catalog.require_readable()
    catalog.require_classes()
    labelled = catalog.images
    loaded = load_model(model)
    if unknown := sorted({image.label for image in labelled} - set(loaded.classes)):
        raise DataError(
            f"{folder} has class folders that {loaded.uri} does not know: {', '.join(unknown)}; "
            f"its classes are {', '.join(loaded.classes)}"
        )
    paths = [image.path for image in labelled]
    labels = np.array([loaded.classes.index(image.label) for image in labelled])
    probabilities = _probabilities(loaded, paths, progress)
    predictions = Predictions(loaded.classes, paths, labels, probabilities)
    facts = {"model": loaded.uri, "images": f"{len(paths)} in {folder}"}
    return evaluation_report("Evaluation", facts, predictions, predictions.scores("test"))


def _files(folder: Path) -> tuple[list[Path], dict[Path, str]]:
    """All files below a folder, and the links that cannot be followed, with the reason."""
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder")
    contents = walk(folder.resolve(), folder.resolve())
    files = sorted(Path(file.path) for file in contents.files)
    if not files:
        raise DataError(f"there is no file below {folder}")
    return files, {path: problem.message for path, problem in contents.problems.items()}


def _rows(loaded: LoadedModel, files: Sequence[Path], folder: Path) -> list[dict[str, object]]:
    """One row a file, in order; a file that is no image has an error in place of an answer."""
    errors = {path: _error(path) for path in files}
    readable = [path for path in files if not errors[path]]
    said = dict(zip(readable, _said(loaded, readable), strict=True)) if readable else {}
    return [
        {"file": path.relative_to(folder).as_posix(), **said.get(path, NOTHING), "error": errors[path]}
        for path in files
    ]


def _said(loaded: LoadedModel, files: Sequence[Path]) -> Iterator[dict[str, str]]:
    answers = loaded.predict(files)
    for probabilities, unknown in zip(answers.probabilities, answers.unknown, strict=True):
        yield {
            "label": loaded.classes[probabilities.argmax()],
            "probability": f"{probabilities.max():.6f}",
            "unknown": "" if unknown is None else str(unknown).lower(),
        }


def _error(path: Path) -> str:
    try:
        decode(path)
    except UnreadableImageError as error:
        return str(error)
    return ""


def _write(out: Path, rows: Sequence[dict[str, object]]) -> None:
    with atomic_write(out) as unfinished, unfinished.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["file", *NOTHING, "error"])
        writer.writeheader()
        writer.writerows(rows)


def _probabilities(loaded: LoadedModel, paths: Sequence[Path], progress: Progress) -> NDArray[np.float32]:
    answers = []
    for start in range(0, len(paths), BATCH):
        answers.append(loaded.predict_proba(paths[start : start + BATCH]))
        progress(Step("classifying", min(start + BATCH, len(paths)), len(paths), "images"))
    return np.concatenate(answers)
