"""`platform predict` and `platform evaluate`: run a registered model on a folder."""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from transfer_model.decode import decode
from transfer_model.errors import UnreadableImageError
from transfer_platform.data.catalog import scan_folder
from transfer_platform.errors import DataError
from transfer_platform.evaluation.predictions import Predictions
from transfer_platform.evaluation.report import evaluation_report
from transfer_platform.file_problems import printable
from transfer_platform.plurals import counted
from transfer_platform.progress import Progress, Step, silent
from transfer_platform.sources.walk import walk
from transfer_registry.files import atomic_write, require_writable
from transfer_registry.serving.loaded_model import LoadedModel, load_model

BATCH = 15
"""Number of images per call; small enough that images of the maximum size fit within the pixel limit of a request."""
EMPTY_ROW = {"label": "", "probability": "", "unknown": ""}
"""Column values for a file that is not an image."""


def predict_folder(folder: Path, model: str, out: Path, progress: Progress = silent) -> str:
    """Classifies every image below a folder and writes a CSV file.

    Args:
        folder: Folder to search recursively; hidden files are ignored.
        model: Registered model; see `transfer_registry.model_uri`.
        out: CSV file with the columns `file` (relative to the folder), `label`, `probability`, `unknown` (out
            of distribution) and `error`; overwritten if it exists.
        progress: Called after each batch.

    Returns:
        A one-sentence summary.

    Raises:
        DataError: The folder contains no files.
        RegistryError: The model does not exist.
    """
    require_writable(out)
    if out.exists() and out.suffix.lower() != ".csv":
        raise DataError(f"{printable(out)} exists and is not a .csv file, so it is not replaced; specify another file")
    files, problems = _files(folder)
    files = [path for path in files if path != out.resolve()]
    loaded = load_model(model)
    rows: list[dict[str, object]] = []
    for start in range(0, len(files), BATCH):
        rows += _rows(loaded, files[start : start + BATCH], folder.resolve())
        progress(Step("classifying", len(rows), len(files), "images"))
    rows += [
        {"file": path.relative_to(folder.resolve()).as_posix(), **EMPTY_ROW, "error": why}
        for path, why in problems.items()
    ]
    _write(out, rows)
    unreadable = sum(bool(row["error"]) for row in rows)
    unknown = sum(row["unknown"] == "true" for row in rows)
    images = counted(unknown, "image is", "images are")
    note = f"; {images} out of distribution (see the `unknown` column)" if unknown else ""
    note += f"; {unreadable} could not be read (see the `error` column)" if unreadable else ""
    classified = counted(len(rows) - unreadable, "image")
    return f"{classified} classified by {loaded.uri}; predictions written to {out}{note}"


def evaluate_folder(model: str, folder: Path, progress: Progress = silent) -> str:
    """Evaluates a model on a folder of labeled images.

    Args:
        model: Registered model; see `transfer_registry.model_uri`.
        folder: Folder with one subfolder per class; the subfolders must be named after classes of the model, but some
            classes may be missing.
        progress: Called after each batch.

    Returns:
        A Markdown report.

    Raises:
        DataError: A subfolder is not named after a class of the model, or a file is not an image.
        RegistryError: The model does not exist.
    """
    catalog = scan_folder(folder, progress=progress)
    catalog.require_readable()
    catalog.require_classes(at_least=1)
    labeled = catalog.images
    loaded = load_model(model)
    if unknown := sorted({image.label for image in labeled} - set(loaded.classes)):
        raise DataError(
            f"{folder} has subfolders that are not named after classes of {loaded.uri}: {', '.join(unknown)}; "
            f"expected {', '.join(loaded.classes)}"
        )
    paths = [image.path for image in labeled]
    labels = np.array([loaded.classes.index(image.label) for image in labeled])
    probabilities = _probabilities(loaded, paths, progress)
    predictions = Predictions(loaded.classes, paths, labels, probabilities)
    facts = {"model": loaded.uri, "images": f"{len(paths)} in {folder}"}
    return evaluation_report("Evaluation", facts, predictions, predictions.scores("test"))


def _files(folder: Path) -> tuple[list[Path], dict[Path, str]]:
    """Returns the files below a folder, and a mapping from the path of each unreadable file to its error message."""
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder")
    contents = walk(folder.resolve(), folder.resolve())
    files = sorted(Path(file.path) for file in contents.files)
    if not files:
        raise DataError(f"{folder} contains no files")
    return files, {path: problem.message for path, problem in contents.problems.items()}


def _rows(loaded: LoadedModel, files: Sequence[Path], folder: Path) -> list[dict[str, object]]:
    """Returns one row per file; a file that is not an image has an error instead of a prediction."""
    errors = {path: _error(path) for path in files}
    readable = [path for path in files if not errors[path]]
    predicted = dict(zip(readable, _predictions(loaded, readable), strict=True)) if readable else {}
    return [
        {"file": path.relative_to(folder).as_posix(), **predicted.get(path, EMPTY_ROW), "error": errors[path]}
        for path in files
    ]


def _predictions(loaded: LoadedModel, files: Sequence[Path]) -> Iterator[dict[str, str]]:
    output = loaded.predict(files)
    for probabilities, unknown in zip(output.probabilities, output.unknown, strict=True):
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
        writer = csv.DictWriter(file, ["file", *EMPTY_ROW, "error"])
        writer.writeheader()
        writer.writerows({**row, "file": _encodable(str(row["file"]))} for row in rows)


def _encodable(name: str) -> str:
    """Returns a file name, with escapes if it is not valid UTF-8."""
    return printable(name) if any("\ud800" <= each <= "\udfff" for each in name) else name


def _probabilities(loaded: LoadedModel, paths: Sequence[Path], progress: Progress) -> NDArray[np.float32]:
    batches = []
    for start in range(0, len(paths), BATCH):
        batches.append(loaded.predict_proba(paths[start : start + BATCH]))
        progress(Step("classifying", min(start + BATCH, len(paths)), len(paths), "images"))
    return np.concatenate(batches)
