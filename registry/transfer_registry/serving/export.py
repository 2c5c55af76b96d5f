"""A registered model as files for programs that know nothing of this project; imported by the command line.

onnx          model.onnx, model.json, README.md: bytes of pixels in, calibrated probabilities and novelty out
safetensors   model.json, weights.safetensors, reference.safetensors, README.md

The graph takes pixels, uint8 (N, S, S, 3), as Pillow gives them. Scaling by mean and standard deviation is
exact in any runtime, so it is inside, where nobody can forget it. Decoding and resampling are not: ONNX has
no EXIF, and none of its resampling filters is Pillow's.

The network, its head and its novelty are those of the code that was registered with the model.
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

import mlflow.pyfunc
import numpy as np
import torch
from mlflow.artifacts import download_artifacts
from mlflow.exceptions import MlflowException
from torch import Tensor, nn

from transfer_model.config import CONFIG_FILE, WEIGHTS_FILE, ModelConfig
from transfer_model.errors import ModelError
from transfer_model.ood import REFERENCE_FILE
from transfer_model.pyfunc import ARTIFACT
from transfer_registry.errors import RegistryError
from transfer_registry.files import atomic_folder
from transfer_registry.model_uri import model_uri
from transfer_registry.serving.export_readme import onnx_readme, safetensors_readme

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from torch.onnx import ONNXProgram

    from transfer_model.classifier import Classifier

ONNX_FILE = "model.onnx"
README_FILE = "README.md"
OPSET = 18
"""ONNX's set of operators, of 2022: the one that torch's exporter is written in, so nothing is converted."""
TOLERANCE = 1e-3
"""The largest difference of a probability or novelty between ONNX Runtime and torch."""

_BATCHES = (1, 3)
_EXTRA = ("onnx", "onnxscript", "onnxruntime")


def export(model: str, form: str, out: Path) -> str:
    """Writes a registered model into a folder, whole or not at all.

    Args:
        model: A registered model, see `transfer_registry.model_uri`.
        form: `onnx` or `safetensors`.
        out: A folder that is not there yet, or empty.

    Returns:
        What was done, in a sentence.

    Raises:
        StorageError: There are files in the folder already.
        RegistryError: There is no such model, it cannot be expressed in ONNX, what was written does not
            compute what the model does, it is of another format, or the extra `onnx` is not installed.
    """
    if form == "onnx":
        _refuse_missing_extra()
    with atomic_folder(out) as folder, TemporaryDirectory() as temporary:
        version = _fetched(model_uri(model), temporary)
        said = _WRITERS[form](version, folder)
    return f"{version.uri} is exported to {out}{said}; {out / README_FILE} says how it is used"


@dataclass(frozen=True)
class _Version:
    """A registered model's own files.

    Attributes:
        uri: What it is called in errors.
        folder: All of it, as MLflow loads it.
        files: `model.json` and its safetensors.
        description: What `model.json` says.
    """

    uri: str
    folder: Path
    files: Path
    description: ModelConfig

    def classifier(self) -> Classifier:
        """Loads it with the code that was registered with it."""
        try:
            model = mlflow.pyfunc.load_model(str(self.folder)).unwrap_python_model()
        except MlflowException as error:
            raise RegistryError(f"{self.uri} cannot be loaded: {error.message}") from error
        return cast("Classifier", model.classifier)


class _Served(nn.Module):
    """What the graph computes: all that a classifier does with an image's square.

    Args:
        classifier: Of the registered code; its parts are moved to the CPU, in place.
        uri: What the model is called in errors.
    """

    def __init__(self, classifier: Classifier, uri: str) -> None:
        super().__init__()
        if not hasattr(classifier, "ood_score"):
            raise RegistryError(
                f"{uri} was registered with code that has no export to ONNX: `platform run` registers a "
                "newer version, and `--to safetensors` takes this one as it is"
            )
        self.uri, self.size = uri, classifier.config.preprocessing.image_size
        self._network = classifier.network.cpu()
        self._novelty = classifier.ood_scorer.to(torch.device("cpu"))
        self._temperature = classifier.config.temperature
        self._mean = torch.tensor(classifier.config.preprocessing.mean).view(3, 1, 1)
        self._std = torch.tensor(classifier.config.preprocessing.std).view(3, 1, 1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Pixels, uint8 (N, S, S, 3), -> probabilities (N, C) and novelty (N)."""
        prepared = (images.permute(0, 3, 1, 2).float() / 255 - self._mean) / self._std
        features: list[Tensor] = []
        with self._network.register_feature_hook(features.append):
            logits = self._network(prepared)
        return (logits / self._temperature).softmax(dim=1), self._novelty(features[0])


def _refuse_missing_extra() -> None:
    for package in _EXTRA:
        try:
            import_module(package)
        except ImportError as error:
            raise RegistryError(
                f"the export to ONNX needs the package {package}, which cannot be imported ({error}): "
                "pip install 'transfer-platform[onnx]'"
            ) from error


def _fetched(uri: str, temporary: str) -> _Version:
    try:
        folder = Path(download_artifacts(artifact_uri=uri, dst_path=temporary))
    except MlflowException as error:
        raise RegistryError(f"{uri} cannot be fetched: {error.message}") from error
    files = folder / "artifacts" / ARTIFACT
    if not (files / CONFIG_FILE).is_file():
        raise RegistryError(f"{uri} is no classifier of this platform: it holds no {CONFIG_FILE}")
    try:
        return _Version(uri, folder, files, ModelConfig.read(files))
    except ModelError as error:
        raise RegistryError(
            f"{uri} is described in a way that this export does not read ({error}): `platform run` "
            "registers a version of today's kind"
        ) from error


def _write_safetensors(version: _Version, folder: Path) -> str:
    for name in (CONFIG_FILE, WEIGHTS_FILE, REFERENCE_FILE):
        shutil.copyfile(version.files / name, folder / name)
    (folder / README_FILE).write_text(safetensors_readme(version.description), encoding="utf-8")
    return ""


def _write_onnx(version: _Version, folder: Path) -> str:
    served, description = _Served(version.classifier(), version.uri).eval(), version.description
    program = _translated(served)
    _describe(program, description)
    program.save(folder / ONNX_FILE)
    difference = _largest_difference(served, folder / ONNX_FILE)
    if not difference <= TOLERANCE:
        raise RegistryError(
            f"{version.uri} is not exported: on random images ONNX Runtime differs from torch by "
            f"{difference:.2g}, and {TOLERANCE:g} is allowed; `--to safetensors` needs no translation"
        )
    shutil.copyfile(version.files / CONFIG_FILE, folder / CONFIG_FILE)
    (folder / README_FILE).write_text(onnx_readme(description), encoding="utf-8")
    return f" and differs from torch by {difference:.1g} at most on random images"


_WRITERS: dict[str, Callable[[_Version, Path], str]] = {
    "onnx": _write_onnx,
    "safetensors": _write_safetensors,
}


def _translated(served: _Served) -> ONNXProgram:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's exporter warns of its own parts
            program = torch.onnx.export(
                served,
                (torch.zeros(2, served.size, served.size, 3, dtype=torch.uint8),),
                input_names=["images"],
                output_names=["probabilities", "ood_score"],
                opset_version=OPSET,
                dynamo=True,
                dynamic_shapes=({0: torch.export.Dim("N")},),
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        raise RegistryError(
            f"{served.uri} cannot be expressed in ONNX by torch's exporter: {_reason(error)}; "
            "`--to safetensors` takes every network"
        ) from error
    assert program is not None, "the exporter returns a program where no file is named"
    return program


def _describe(program: ONNXProgram, description: ModelConfig) -> None:
    """Lets the file say what it is, and not where on this machine its operators come from."""
    for node in program.model.graph.all_nodes():
        node.metadata_props.clear()
    facts = {
        "classes": description.classes,
        "preprocessing": asdict(description.preprocessing),
        "threshold": description.unknown.threshold,
        "temperature": description.temperature,
    }
    program.model.metadata_props.update({name: json.dumps(fact) for name, fact in facts.items()})


def _largest_difference(served: _Served, file: Path) -> float:
    """Between ONNX Runtime and torch, over both outputs, on random images; nan where one of them is."""
    shape, generator = (served.size, served.size, 3), np.random.default_rng(0)
    batches = [generator.integers(0, 256, (count, *shape), dtype=np.uint8) for count in _BATCHES]
    with torch.inference_mode():
        own = [result.numpy() for images in batches for result in served(torch.from_numpy(images))]
    differences = zip(own, _run(file, batches, served.uri), strict=True)
    return float(np.max([np.abs(one - other).max() for one, other in differences]))


def _run(file: Path, batches: list[NDArray[np.uint8]], uri: str) -> list[NDArray[np.float32]]:
    import onnxruntime

    try:
        session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
        return [result for images in batches for result in session.run(None, {"images": images})]
    except Exception as error:  # its errors have no class in common but this one
        raise RegistryError(
            f"{uri} is not exported: ONNX Runtime does not run what torch wrote: {_reason(error)}; "
            "`--to safetensors` needs no translation"
        ) from error


def _reason(error: BaseException) -> str:
    """The first line of what an error came from."""
    while error.__cause__ is not None:
        error = error.__cause__
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
