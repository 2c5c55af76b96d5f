"""Exports a registered model to files that can be used without this project.

onnx          model.onnx (maps pixels to probabilities and out-of-distribution scores), model.json, README.md,
              classify.py and image_preprocessing/ (a program that classifies image files)
safetensors   model.json, weights.safetensors, reference.safetensors, README.md

The ONNX graph includes normalization, but not decoding or resizing, because ONNX cannot
read EXIF data and interpolates differently from Pillow.
"""

from __future__ import annotations

import json
import shutil
import warnings
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from transfer_model import builtin_networks
from transfer_model.backbones import BUILTIN
from transfer_model.catalog import resolve
from transfer_model.errors import ModelError, cause
from transfer_model.model_json import CONFIG_FILE, WEIGHTS_FILE, ModelConfig
from transfer_model.ood import REFERENCE_FILE
from transfer_registry.errors import RegistryError
from transfer_registry.files import atomic_folder
from transfer_registry.model_files import ARTIFACT_FOLDER, open_folder
from transfer_registry.model_uri import model_uri
from transfer_registry.serving.export_program import pinned, write_program
from transfer_registry.serving.export_readme import onnx_readme, safetensors_readme
from transfer_registry.serving.loaded_model import load_pyfunc

if TYPE_CHECKING:
    from torch.onnx import ONNXProgram

    from transfer_model.classifier import Classifier

ONNX_FILE = "model.onnx"
README_FILE = "README.md"
OPSET = 18
"""ONNX opset version; torch exports to it directly, without converting from another version."""
TOLERANCE = 1e-3
"""Maximum allowed difference between ONNX Runtime and torch for any probability or out-of-distribution score."""


def export(model: str, file_format: str, out: Path) -> str:
    """Exports a model (see `model_uri`) to a new or empty folder and returns a one-line summary.

    The format is `onnx` or `safetensors`. If the export fails, no files are left behind.

    Raises:
        StorageError: The folder is not empty.
        RegistryError: The `onnx` extra is not installed, or the model does not exist, is damaged, has an unsupported
            format, cannot be exported to ONNX, or gives different results in ONNX Runtime.
    """
    writers = {"onnx": _write_onnx, "safetensors": _write_safetensors}
    if file_format == "onnx":
        _require_onnx_packages()
    with atomic_folder(out) as folder, TemporaryDirectory() as temporary:
        registered = _open(model_uri(model), temporary)
        remark = writers[file_format](registered, folder)
    return f"Exported {registered.uri} to {out}{remark}; see {out / README_FILE} for usage instructions"


@dataclass(frozen=True)
class _RegisteredFiles:
    """An undamaged model: `folder` is the folder of the MLflow model, and `files` is the artifact folder in it."""

    uri: str
    folder: Path
    files: Path
    config: ModelConfig

    def load_classifier(self) -> Classifier:
        """Loads the classifier, using the code that was registered with the model."""
        return cast("Classifier", load_pyfunc(self.uri, self.folder).unwrap_python_model().classifier)


class _ExportedModel(nn.Module):
    """Network that maps resized pixels to predictions. Creating this network moves the classifier to the CPU."""

    def __init__(self, classifier: Classifier, uri: str) -> None:
        super().__init__()
        self.uri, self.size = uri, classifier.config.preprocessing.image_size
        self._network = classifier.network.cpu()
        self._ood_scorer = classifier.ood_scorer.to(torch.device("cpu"))
        self._temperature = classifier.config.temperature
        self._mean = torch.tensor(classifier.config.preprocessing.mean).view(3, 1, 1)
        self._std = torch.tensor(classifier.config.preprocessing.std).view(3, 1, 1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Maps uint8 pixels (N, S, S, 3) to probabilities (N, C) and out-of-distribution scores (N,)."""
        normalized = (images.permute(0, 3, 1, 2).float() / 255 - self._mean) / self._std
        features: list[Tensor] = []
        with self._network.register_feature_hook(features.append):
            logits = self._network(normalized)
        return (logits / self._temperature).softmax(dim=1), self._ood_scorer(features[0])


def _require_onnx_packages() -> None:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        try:
            import_module(package)
        except ImportError as error:
            raise RegistryError(
                f"ONNX export requires the {package} package, which cannot be imported ({error}); run: "
                "pip install 'transfer-platform[onnx]'"
            ) from error


def _open(uri: str, temporary: str) -> _RegisteredFiles:
    folder = open_folder(uri, temporary)
    files = folder / ARTIFACT_FOLDER
    if not (files / CONFIG_FILE).is_file():
        raise RegistryError(f"{uri} is not a classifier created by this platform: it has no {CONFIG_FILE}")
    try:
        return _RegisteredFiles(uri, folder, files, ModelConfig.read(files))
    except ModelError as error:
        raise RegistryError(
            f"{uri} has an unsupported {CONFIG_FILE} ({error}); register a new version with `platform run`"
        ) from error


def _write_safetensors(registered: _RegisteredFiles, folder: Path) -> str:
    for name in (CONFIG_FILE, WEIGHTS_FILE, REFERENCE_FILE):
        shutil.copyfile(registered.files / name, folder / name)
    if resolve(registered.config.network.backbone).library == BUILTIN:
        shutil.copy(str(builtin_networks.__file__), folder)
    (folder / README_FILE).write_text(safetensors_readme(registered.config), encoding="utf-8")
    return ""


def _write_onnx(registered: _RegisteredFiles, folder: Path) -> str:
    model = _ExportedModel(registered.load_classifier(), registered.uri).eval()
    program = _to_onnx(model)
    _set_metadata(program, registered.config)
    program.save(folder / ONNX_FILE)
    difference = _largest_difference(model, folder / ONNX_FILE)
    if not difference <= TOLERANCE:
        raise RegistryError(
            f"{registered.uri} was not exported: the outputs of ONNX Runtime and torch differ by {difference:.2g} "
            f"on random images (tolerance: {TOLERANCE:g}); use `--to safetensors`"
        )
    shutil.copyfile(registered.files / CONFIG_FILE, folder / CONFIG_FILE)
    write_program(registered.config, registered.folder, folder)
    requirements = pinned(registered.folder, "numpy", "pillow", "pillow-heif")
    (folder / README_FILE).write_text(onnx_readme(registered.config, requirements), encoding="utf-8")
    return f" (largest difference from torch on random images: {difference:.1g})"


def _to_onnx(model: _ExportedModel) -> ONNXProgram:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the exporter warns about its own internals
            program = torch.onnx.export(
                model,
                (torch.zeros(2, model.size, model.size, 3, dtype=torch.uint8),),
                input_names=["images"],
                output_names=["probabilities", "ood_score"],
                opset_version=OPSET,
                dynamo=True,
                dynamic_shapes=({0: torch.export.Dim("N")},),
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        raise RegistryError(
            f"torch cannot export {model.uri} to ONNX: {_root_cause(error)}; "
            "use `--to safetensors`, which supports every network"
        ) from error
    assert program is not None, "torch.onnx.export returns a program if no file is given"
    return program


def _set_metadata(program: ONNXProgram, config: ModelConfig) -> None:
    """Adds classes, preprocessing, threshold and temperature as metadata, and removes local paths from operators."""
    for node in program.model.graph.all_nodes():
        node.metadata_props.clear()
    metadata = {
        "classes": config.classes,
        "preprocessing": asdict(config.preprocessing),
        "threshold": config.unknown.threshold,
        "temperature": config.temperature,
    }
    program.model.metadata_props.update({name: json.dumps(value) for name, value in metadata.items()})


def _largest_difference(model: _ExportedModel, file: Path) -> float:
    """Returns the maximum difference between ONNX Runtime and torch on random images; NaN if any output is NaN."""
    shape, generator = (model.size, model.size, 3), np.random.default_rng(0)
    batches = [generator.integers(0, 256, (count, *shape), dtype=np.uint8) for count in (1, 3)]
    with torch.inference_mode():
        expected = [output.numpy() for images in batches for output in model(torch.from_numpy(images))]
    pairs = zip(expected, _run_onnx(file, batches, model.uri), strict=True)
    return float(np.max([np.abs(one - other).max() for one, other in pairs]))


def _run_onnx(file: Path, batches: list[NDArray[np.uint8]], uri: str) -> list[NDArray[np.float32]]:
    import onnxruntime

    try:
        session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
        return [output for images in batches for output in session.run(None, {"images": images})]
    except Exception as error:  # ONNX Runtime's errors share no more specific base class
        raise RegistryError(
            f"ONNX Runtime cannot run the graph exported from {uri}: {_root_cause(error)}; use `--to safetensors`"
        ) from error


def _root_cause(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return cause(error)[:300]
