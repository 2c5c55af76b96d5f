"""Logs a trained classifier as an MLflow model that loads where this project is not installed.

    code/transfer_model_<digest>/    a copy of the package that made it
    artifacts/<folder>/              model.json, weights.safetensors, reference.safetensors, the model card
    loader.py                        three lines that join the two (models-from-code)
    MLmodel, requirements.txt, ...   MLflow's

No part of it is pickled. The copied package carries the digest of its content in its name, because Python
imports a name only once: versions that ship different code could otherwise not be loaded side by side.
"""

from __future__ import annotations

import base64
import hashlib
import shutil
import sys
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import version
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import mlflow
import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import LoggedModelStatus
from mlflow.models import Model, ModelSignature
from mlflow.types.schema import Array, ColSpec, DataType, Object, ParamSchema, ParamSpec, Property, Schema
from PIL import Image

import transfer_model
from transfer_model.classifier import FILES
from transfer_model.config import ModelConfig
from transfer_model.pyfunc import ARTIFACT, DEFAULT_TOP_K, IMAGE_COLUMN

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from mlflow.models.model import ModelInfo

CLASSES_KEY = "classes"
"""Where the `MLmodel` file's metadata lists the classes, in the order of the network's outputs."""

_REQUIREMENTS = (
    "mlflow",
    "numpy",
    "pandas",
    "pillow",
    "safetensors",
    "timm",
    "torch",
    "torchvision",
)
_LOADER = "loader.py"


def log_model(
    folder: Path,
    name: str,
    run_id: str,
    metadata: Mapping[str, object] | None = None,
    tags: Mapping[str, str] | None = None,
    package: Path | None = None,
) -> ModelInfo:
    """Logs a model to the current tracking server; registering it is another step.

    Args:
        folder: Holds what `Classifier.save` writes.
        name: Of the logged model, as MLflow's pages show it.
        run_id: The run that it came from; the model is listed in its experiment, with its parameters.
        metadata: Goes into the `MLmodel` file, in addition to classes, network and code digest.
        tags: Of the logged model.
        package: The package that is shipped, `transfer_model` as it is imported here by default.

    Returns:
        Its `model_uri` (`models:/m-...`) and `model_id` are what registering needs.

    Raises:
        ModelError: `folder` holds no readable description.
    """
    description = ModelConfig.read(folder)
    source = package or Path(transfer_model.__path__[0])
    with TemporaryDirectory() as staging, _importable(Path(staging)):
        code = _copy_package(source, Path(staging))
        info: ModelInfo = Model.log(
            artifact_path=None,
            flavor=_CleanPyfunc,
            model_id=_logged_model(name, run_id, dict(tags or {})),
            run_id=run_id,
            metadata={**_facts(description, code.name), **(metadata or {})},
            python_model=_write_loader(Path(staging), code.name),
            code_paths=[str(code)],
            artifacts={ARTIFACT: str(folder)},
            signature=signature(description),
            input_example=_input_example(),
            pip_requirements=requirements(),
            # Anywhere but the current folder: MLflow would take a uv project that it finds there along.
            uv_project_path=staging,
            # It would load the model once more to try the example; the stranger does that better.
            validate_serving_input=False,
        )
    return info


def find_logged_model(run_id: str, tags: Mapping[str, str]) -> str | None:
    """The URI of a model that a run has logged with these tags; what was logged in part only is deleted."""
    client = MlflowClient()
    experiment = client.get_run(run_id).info.experiment_id
    found = client.search_logged_models([experiment], filter_string=f"source_run_id = '{run_id}'")
    whole = None
    for model in found:
        if not tags.items() <= model.tags.items():
            continue
        if model.status == LoggedModelStatus.READY:
            whole = str(model.model_uri)
        else:
            client.delete_logged_model(model.model_id)
    return whole


def signature(description: ModelConfig) -> ModelSignature:
    """One column of base64 images in; the best classes, their probabilities and the novelty out."""
    guess = [Property("label", DataType.string), Property("probability", DataType.double)]
    return ModelSignature(
        inputs=Schema([ColSpec(DataType.string, IMAGE_COLUMN)]),
        outputs=Schema(
            [
                ColSpec(DataType.string, "label"),
                ColSpec(DataType.double, "probability"),
                ColSpec(Array(Object(guess)), "top"),
                ColSpec(DataType.boolean, "unknown"),
                ColSpec(DataType.double, "ood_score"),
            ]
        ),
        params=ParamSchema(
            [
                ParamSpec("top_k", DataType.long, DEFAULT_TOP_K),
                ParamSpec("threshold", DataType.double, description.unknown.threshold),
            ]
        ),
    )


def requirements() -> list[str]:
    """What the shipped package imports, pinned to the installed versions.

    Local parts such as `+cpu` or `+cu130` are left out: other machines find no such version in their index.
    """
    return [f"{package}=={version(package).partition('+')[0]}" for package in _REQUIREMENTS]


def artifact_digest(folder: Path) -> str:
    """SHA-256 of what answers depend on: what `classifier.save` writes, and the code that reads it.

    Two forms of one trial differ where calibration was asked for otherwise, where training on an accelerator
    did not repeat itself, and after an upgrade; a test of one says nothing of the other.
    """
    digest = hashlib.sha256(code_digest(Path(transfer_model.__path__[0])).encode())
    for name in FILES:
        digest.update(hashlib.sha256((folder / name).read_bytes()).digest())
    return digest.hexdigest()


def code_digest(package: Path) -> str:
    """The first 12 hex digits of the SHA-256 of a package's modules, names and contents."""
    digest = hashlib.sha256()
    for module in _modules(package):
        digest.update(f"{module.relative_to(package).as_posix()}\0".encode())
        digest.update(hashlib.sha256(module.read_bytes()).digest())
    return digest.hexdigest()[:12]


class _CleanPyfunc:
    """MLflow's pyfunc flavor, without the absolute paths of this machine in the `MLmodel` file."""

    @staticmethod
    def save_model(
        path: str,
        mlflow_model: Model,
        validate_serving_input: bool,  # noqa: ARG004 - meant for Model.log, which passes everything on
        **kwargs: Any,  # noqa: ANN401 - whatever mlflow.pyfunc.save_model takes
    ) -> None:
        """Called by `Model.log` with a folder that it uploads afterwards."""
        mlflow.pyfunc.save_model(path=path, mlflow_model=mlflow_model, **kwargs)
        flavor = mlflow_model.flavors[mlflow.pyfunc.FLAVOR_NAME]
        flavor["model_code_path"] = _LOADER
        for artifact in flavor["artifacts"].values():
            artifact["uri"] = artifact["path"]
        mlflow_model.save(str(Path(path) / "MLmodel"))


def _logged_model(name: str, run_id: str, tags: dict[str, str]) -> str:
    """Left to itself, MLflow lists the model of a run that is not active in the default experiment."""
    client = MlflowClient()
    run = client.get_run(run_id)
    model = client.create_logged_model(
        run.info.experiment_id, name, source_run_id=run_id, tags=tags, params=run.data.params
    )
    return str(model.model_id)


def _modules(package: Path) -> list[Path]:
    """Python files alone: the catalogue beside them is for plans, networks are built without it."""
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
    """MLflow runs the loader while it saves; what it imported is forgotten, its files will be gone."""
    before = set(sys.modules)
    sys.path.insert(0, str(staging))
    try:
        yield
    finally:
        sys.path.remove(str(staging))
        for name in set(sys.modules) - before:
            if name.startswith("transfer_model_"):
                del sys.modules[name]


def _facts(description: ModelConfig, package: str) -> dict[str, object]:
    return {
        CLASSES_KEY: list(description.classes),
        "network": asdict(description.network),
        "precision": description.precision,
        "temperature": description.temperature,
        "unknown": asdict(description.unknown),
        "code": package,
    }


def _input_example() -> pd.DataFrame:
    """One small grey image: real enough to be sent as it is."""
    content = BytesIO()
    Image.new("RGB", (8, 8), "grey").save(content, "PNG")
    return pd.DataFrame({IMAGE_COLUMN: [base64.b64encode(content.getvalue()).decode()]})
