"""Logs a classifier as an MLflow model that can be loaded without this project.

    code/transfer_model_<digest>/    a copy of the `transfer_model` package
    artifacts/model/                 model.json, weights.safetensors, reference.safetensors, model card
    loader.py                        creates the model from this code and these files (models-from-code)
    SHA256SUMS                       checksums of the other files
    MLmodel, requirements.txt, ...   written by MLflow

Nothing is pickled. The name of the copied package includes a digest of its content, so models with different code can
be loaded into the same process.
"""

from __future__ import annotations

import base64
import hashlib
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import version
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import mlflow
import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import LoggedModelStatus
from mlflow.models import Model, ModelSignature
from mlflow.types.schema import Array, ColSpec, DataType, Object, ParamSchema, ParamSpec, Property, Schema, TensorSpec
from PIL import Image

import transfer_model
from transfer_model.classifier import FILES
from transfer_model.model_json import ModelConfig
from transfer_model.pyfunc import ARTIFACT, DEFAULT_TOP_K, IMAGE_COLUMN
from transfer_registry.model_files import CHECKSUMS_TAG, CLASSES_KEY, MODEL_FILE, write_checksums

if TYPE_CHECKING:
    from mlflow.models.model import ModelInfo

_REQUIREMENTS = ("mlflow", "numpy", "pandas", "pillow", "safetensors", "timm", "torch", "torchvision")
_OPTIONAL = ("pillow-heif",)
_LOADER = "loader.py"


def log_model(
    folder: Path,
    name: str,
    run_id: str,
    metadata: Mapping[str, object] | None = None,
    tags: Mapping[str, str] | None = None,
    package: Path | None = None,
) -> ModelInfo:
    """Logs a model saved by `classifier.save`, without registering it.

    The model is logged in the experiment of the run `run_id` and gets the parameters of this run. `metadata` is added
    to the `MLmodel` file. `package` is the folder of the code to ship with the model (default: `transfer_model`).

    Raises:
        ModelError: `folder` does not contain a valid `model.json`.
    """
    config = ModelConfig.read(folder)
    source = package or Path(transfer_model.__path__[0])
    with TemporaryDirectory() as staging, _importable(Path(staging)):
        code = _copy_package(source, Path(staging))
        info: ModelInfo = Model.log(
            artifact_path=None,
            flavor=_CleanPyfunc,
            model_id=_create_logged_model(name, run_id, dict(tags or {})),
            run_id=run_id,
            metadata={**_metadata(config, code.name), **(metadata or {})},
            python_model=_write_loader(Path(staging), code.name),
            code_paths=[str(code)],
            artifacts={ARTIFACT: str(folder)},
            signature=signature(config),
            input_example=_input_example(),
            pip_requirements=requirements(),
            # by default, MLflow adds a uv project in the current folder to the model
            uv_project_path=staging,
            # validation would load the model again; the smoke test before promotion covers more
            validate_serving_input=False,
        )
    return info


def find_logged_model(run_id: str, tags: Mapping[str, str]) -> str | None:
    """Returns the URI of a run's complete logged model with the given tags, or None; deletes incomplete models."""
    client = MlflowClient()
    experiment = client.get_run(run_id).info.experiment_id
    complete = None
    for model in client.search_logged_models([experiment], filter_string=f"source_run_id = '{run_id}'"):
        if not tags.items() <= model.tags.items():
            continue
        if model.status == LoggedModelStatus.READY:
            complete = str(model.model_uri)
        else:
            client.delete_logged_model(model.model_id)
    return complete


def signature(config: ModelConfig) -> ModelSignature:
    """Returns the MLflow signature: base64 images as input, top classes and out-of-distribution scores as output."""
    prediction = [Property("label", DataType.string), Property("probability", DataType.double)]
    outputs: list[ColSpec | TensorSpec] = [
        ColSpec(DataType.string, "label"),
        ColSpec(DataType.double, "probability"),
        ColSpec(Array(Object(prediction)), "top"),
        ColSpec(DataType.boolean, "unknown"),
        ColSpec(DataType.double, "ood_score"),
    ]
    params = [
        ParamSpec("top_k", DataType.long, DEFAULT_TOP_K),
        ParamSpec("threshold", DataType.double, config.unknown.threshold),
    ]
    return ModelSignature(Schema([ColSpec(DataType.string, IMAGE_COLUMN)]), Schema(outputs), ParamSchema(params))


def requirements() -> list[str]:
    """Returns the dependencies of the shipped package at their installed versions, without suffixes such as `+cpu`.

    Installed packages that decode additional image formats are included, so that servers accept these formats.
    """
    optional = [each for each in _OPTIONAL if find_spec(each.replace("-", "_"))]
    return [f"{package}=={version(package).partition('+')[0]}" for package in (*_REQUIREMENTS, *optional)]


def artifact_digest(folder: Path) -> str:
    """Returns the SHA-256 of everything that determines predictions: saved files and shipped code.

    The digest of a repeated trial differs if training is nondeterministic, or if the calibration or code has changed.
    """
    digest = hashlib.sha256(code_digest(Path(transfer_model.__path__[0])).encode())
    for name in FILES:
        digest.update(hashlib.sha256((folder / name).read_bytes()).digest())
    return digest.hexdigest()


def code_digest(package: Path) -> str:
    """Returns the first 12 hexadecimal digits of a SHA-256 over the names and contents of a package's modules."""
    digest = hashlib.sha256()
    for module in _modules(package):
        digest.update(f"{module.relative_to(package).as_posix()}\0".encode())
        digest.update(hashlib.sha256(module.read_bytes()).digest())
    return digest.hexdigest()[:12]


class _CleanPyfunc:
    """MLflow's pyfunc flavor, except that it adds checksums and stores no absolute paths in the `MLmodel` file."""

    @staticmethod
    def save_model(
        path: str,
        mlflow_model: Model,
        validate_serving_input: bool,  # noqa: ARG004 - used by Model.log, which passes it on
        **kwargs: Any,  # noqa: ANN401 - arguments of mlflow.pyfunc.save_model
    ) -> None:
        """Saves the model to a folder; called by `Model.log`, which then uploads the folder."""
        mlflow.pyfunc.save_model(path=path, mlflow_model=mlflow_model, **kwargs)
        flavor = mlflow_model.flavors[mlflow.pyfunc.FLAVOR_NAME]
        flavor["model_code_path"] = _LOADER
        for artifact in flavor["artifacts"].values():
            artifact["uri"] = artifact["path"]
        mlflow_model.save(str(Path(path) / MODEL_FILE))
        # before the upload, so that a complete model has the tag
        MlflowClient().set_logged_model_tags(str(mlflow_model.model_id), {CHECKSUMS_TAG: write_checksums(Path(path))})


def _create_logged_model(name: str, run_id: str, tags: dict[str, str]) -> str:
    """Creates a logged model in the run's experiment, even if another experiment is active; returns the model ID."""
    client = MlflowClient()
    run = client.get_run(run_id)
    model = client.create_logged_model(
        run.info.experiment_id, name, source_run_id=run_id, tags=tags, params=run.data.params
    )
    return str(model.model_id)


def _modules(package: Path) -> list[Path]:
    """Returns a package's Python files but not its data files, which are not needed to build a network."""
    return sorted(package.rglob("*.py"))


def _copy_package(source: Path, staging: Path) -> Path:
    copy = staging / f"transfer_model_{code_digest(source)}"
    for module in _modules(source):
        target = copy / module.relative_to(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(module, target)
    return copy


def _write_loader(staging: Path, package: str) -> str:
    loader = staging / _LOADER
    loader.write_text(
        "from mlflow.models import set_model\n\n"
        f"from {package}.pyfunc import ImageClassifier\n\n"
        "set_model(ImageClassifier())\n",
        encoding="utf-8",
    )
    return str(loader)


@contextmanager
def _importable(staging: Path) -> Iterator[None]:
    """Makes the copied package importable within a `with` block, and unloads it afterwards."""
    before = set(sys.modules)
    sys.path.insert(0, str(staging))
    try:
        yield
    finally:
        sys.path.remove(str(staging))
        for name in set(sys.modules) - before:
            if name.startswith("transfer_model_"):
                del sys.modules[name]


def _metadata(config: ModelConfig, package: str) -> dict[str, object]:
    return {
        CLASSES_KEY: list(config.classes),
        "network": config.network.to_json(),
        "precision": config.precision,
        "temperature": config.temperature,
        "unknown": asdict(config.unknown),
        "code": package,
    }


def _input_example() -> pd.DataFrame:
    """Returns an example request with one small gray image."""
    content = BytesIO()
    Image.new("RGB", (8, 8), "grey").save(content, "PNG")
    return pd.DataFrame({IMAGE_COLUMN: [base64.b64encode(content.getvalue()).decode()]})
