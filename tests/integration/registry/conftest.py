"""An empty MLflow database that is copied for each test, and small models in it."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
import numpy as np
import pytest
from mlflow.tracking import MlflowClient

from transfer_registry.candidate import Candidate, Evaluation, ServedOutput
from transfer_registry.ledger import Ledger
from transfer_registry.promote import PromotionResult, promote_candidate
from transfer_registry.rules import OverChampion, Threshold
from transfer_registry.version_page import HASH_TAG

if TYPE_CHECKING:
    from numpy.typing import NDArray


IMAGES = 40
RULES = {"test/accuracy": Threshold(at_least=0.5), "over_champion": OverChampion(confidence=0.95)}

CHANGING = r"\d\d:\d\d UTC|ledger entry \d+|\n\n\d+(?:st|nd|rd|th) evaluation .*"
"""Parts of a description that differ between equal promotions."""

MODEL_CODE = '''
import json
from pathlib import Path

import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel


class Lookup(PythonModel):
    """Returns stored probabilities by the content of an image."""

    def load_context(self, context):
        self.answers = json.loads(Path(context.artifacts["answers"]).read_text())

    def predict(self, context, model_input: pd.DataFrame, params=None):
        return pd.DataFrame([self.answers[Path(path).read_text()] for path in model_input["image"]])


set_model(Lookup())
'''


@dataclass
class PredictWithRegistered:
    """Loads a registered version and records its URI."""

    calls: list[str] = field(default_factory=list)

    def __call__(self, model_uri: str, images: Sequence[Path]) -> NDArray[np.float32]:
        import pandas as pd

        self.calls.append(model_uri)
        model = mlflow.pyfunc.load_model(model_uri)
        return model.predict(pd.DataFrame({"image": [str(path) for path in images]})).to_numpy(np.float32)


class World:
    """A registry, a ledger, and test images of two classes."""

    def __init__(self, folder: Path, ledger: Ledger) -> None:
        self.folder, self.ledger, self.loading = folder, ledger, PredictWithRegistered()
        self.predict: Callable[[str, Sequence[Path]], NDArray[np.float32]] = self.loading
        self.client = MlflowClient()
        (folder / "model.py").write_text(MODEL_CODE)
        self.images = tuple(self._image(index) for index in range(IMAGES))

    @staticmethod
    def without_loading(*evaluations: Evaluation) -> Callable[[str, Sequence[Path]], NDArray[np.float32]]:
        """Predicts for version 1, 2, ... without loading it, for tests with dozens of promotions."""

        def predict(model_uri: str, images: Sequence[Path]) -> NDArray[np.float32]:
            evaluation = evaluations[int(model_uri.rpartition("/")[2]) - 1]
            return evaluation.probabilities[[evaluation.images.index(image) for image in images]]

        return predict

    def _image(self, index: int) -> Path:
        path = self.folder / f"{index}.png"
        path.write_text(f"image {index}")
        return path

    def candidate(
        self,
        wrong: int,
        model: str = "ants-bees",
        classes: tuple[str, ...] = ("ants", "bees"),
        precision: str = "float32",
        metadata: dict[str, Any] | None = None,
    ) -> tuple[Candidate, Evaluation]:
        """A logged model that misclassifies the first `wrong` images, and its evaluation."""
        evaluation = self.evaluation(wrong, classes)
        answers = self.folder / "answers.json"
        by_content = {
            path.read_text(): row.tolist() for path, row in zip(self.images, evaluation.probabilities, strict=True)
        }
        answers.write_text(json.dumps(by_content))
        with mlflow.start_run() as run:
            logged = mlflow.pyfunc.log_model(
                name="model",
                python_model=str(self.folder / "model.py"),
                artifacts={"answers": str(answers)},
                pip_requirements=[],
                metadata=metadata,
            )
        candidate = Candidate(
            model=model,
            model_uri=logged.model_uri,
            run_id=run.info.run_id,
            trial=7,
            artifact_digest="digest",
            recipe_fingerprint="recipe",
            train_fingerprint="train",
            precision=precision,
        )
        return candidate, evaluation

    def evaluation(self, wrong: int, classes: tuple[str, ...] = ("ants", "bees")) -> Evaluation:
        labels = tuple(("ants", "bees")[index % 2] for index in range(IMAGES))
        right = np.array([classes.index(label) for label in labels])
        best = np.where(np.arange(IMAGES) < wrong, (right + 1) % len(classes), right)
        probabilities = np.full((IMAGES, len(classes)), 0.1 / (len(classes) - 1), dtype=np.float32)
        probabilities[np.arange(IMAGES), best] = 0.9
        return Evaluation(
            metrics={"test/accuracy": 1 - wrong / IMAGES},
            classes=classes,
            images=self.images,
            sha256=tuple(hashlib.sha256(path.read_bytes()).hexdigest() for path in self.images),
            labels=labels,
            probabilities=probabilities,
            fingerprint="first-test-set",
        )

    def promote(self, offered: tuple[Candidate, Evaluation], rules: Any = RULES) -> PromotionResult:
        def serve(model_uri: str, images: Sequence[Path], classes: Sequence[str]) -> ServedOutput:
            no_scores = np.full(len(images), np.nan, np.float32)
            return ServedOutput(self.predict(model_uri, images), no_scores, (None,) * len(images))

        return promote_candidate(*offered, rules, self.ledger, serve, self.predict)

    def champion(self, model: str = "ants-bees") -> int | None:
        version = self.client.get_registered_model(model).aliases.get("champion")
        return None if version is None else int(version)

    def state(self, model: str) -> dict[str, Any]:
        """Everything stored about a registered model, without times and entry numbers."""
        versions = sorted(self.client.search_model_versions(f"name = '{model}'"), key=lambda v: int(v.version))
        first = min((entry.id for entry in self.ledger.entries(model)), default=0)
        return {
            "champion": self.champion(model),
            "versions": [
                {
                    "version": int(version.version),
                    "tags": {
                        **{tag: value for tag, value in version.tags.items() if not tag.startswith(HASH_TAG)},
                        "platform.ledger_entry": int(version.tags["platform.ledger_entry"]) - first,
                    },
                    "description": re.sub(CHANGING, "", version.description or ""),
                    "predictions": [
                        artifact.path.removeprefix(f"registry/{model}/")
                        for artifact in self.client.list_artifacts(
                            version.run_id, f"registry/{model}/v{version.version}"
                        )
                    ],
                }
                for version in versions
            ],
            "ledger": [
                (entry.id - first, entry.kind, entry.version, entry.previous_version, entry.passed)
                for entry in self.ledger.entries(model)
            ],
        }


@pytest.fixture(scope="session")
def mlflow_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty MLflow database; creating one takes seconds."""
    database = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    MlflowClient(f"sqlite:///{database}").search_experiments()
    return database


@pytest.fixture
def new_registry(mlflow_template: Path, isolated: Path, tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Points MLflow to an empty database in a new folder of the given name; may be called again."""

    def make(name: str) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        shutil.copy(mlflow_template, folder / "mlflow.db")
        mlflow.set_tracking_uri(f"sqlite:///{folder / 'mlflow.db'}")
        MlflowClient().create_experiment("tests", artifact_location=(folder / "artifacts").as_uri())
        mlflow.set_experiment("tests")
        return folder

    yield make
    mlflow.set_tracking_uri(None)  # the earlier default belongs to another folder


@pytest.fixture
def world(new_registry: Callable[[str], Path]) -> Iterator[World]:
    folder = new_registry("world")
    with Ledger.open(f"sqlite:///{folder / 'ledger.db'}") as ledger:
        yield World(folder, ledger)
