"""Logs parameters, lineage, figures and reports to the study's MLflow run."""

import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
import psutil
import torch
import torchinfo
from torch import Tensor
from torch.nn import functional

from transfer_model.architecture import Architecture
from transfer_model.network import Network
from transfer_platform.data.splits import Splits
from transfer_platform.evaluation import figures, report
from transfer_platform.evaluation.predictions import Predictions
from transfer_platform.evaluation.thresholds import class_thresholds, coverage
from transfer_platform.inspection import report as data_report
from transfer_platform.inspection.findings import Severity
from transfer_platform.inspection.inspection import Inspection
from transfer_platform.inspection.label_errors import misclassified_images
from transfer_platform.recipe.resolve import to_yaml
from transfer_platform.recipe.schema import Recipe
from transfer_platform.search.figures import study_figures
from transfer_platform.search.study import FinishedTrial, Study
from transfer_platform.sources.weights import PretrainedWeights
from transfer_platform.tracking import Run
from transfer_platform.training.hardware import describe_hardware

LIBRARIES = ("transfer-platform", "torch", "torchvision", "timm", "mlflow", "optuna")
CURVES = ("train/loss", "validation/loss", "validation/accuracy", "validation/macro_f1")
FOLDER = "evaluation"
DATA = "data"


def log_inputs(run: Run, recipe: Recipe, splits: Splits, weights: Mapping[Architecture, PretrainedWeights]) -> None:
    """Logs the recipe, the dataset, the pretrained weights and the library versions."""
    run.log_params(
        {
            **_flat(recipe.model_dump(mode="json", by_alias=True, exclude_none=True)),
            **{f"weights.{each.name}": f"{source.name} sha256:{source.sha256}" for each, source in weights.items()},
            **{f"software.{library}": version(library) for library in LIBRARIES},
            "software.python": platform.python_version(),
        }
    )
    run.log_text(to_yaml(recipe), "recipe.yaml")
    for role, images in splits.by_name.items():
        run.log_dataset(recipe.name, recipe.dataset.source, splits.fingerprints[role], len(images), role)


def log_data(run: Run, inspection: Inspection, splits: Splits) -> None:
    """Logs the preflight findings, the manifest of all images, and the skipped files."""
    run.log_text(data_report.html_page(inspection, "Dataset"), f"{DATA}/report.html")
    run.log_text(data_report.markdown_report(inspection), f"{DATA}/report.md")
    run.log_table(data_report.findings_table(inspection), f"{DATA}/findings.json")
    run.log_text(data_report.manifest(inspection, splits), data_report.MANIFEST)
    if inspection.quarantine:
        run.log_text(data_report.quarantine(inspection), f"{DATA}/quarantine.csv")
    run.log_metrics({f"data/{severity}s": inspection.count(severity) for severity in Severity})


def log_label_errors(run: Run, inspection: Inspection, splits: Splits, predictions: Predictions) -> None:
    """Logs the `splits.selection` images that are probably mislabeled according to the best trial's predictions."""
    findings = [*misclassified_images(splits.selection, splits.classes, predictions.probabilities)]
    columns: dict[str, list[object]] = {
        "file": [inspection.name(finding.files[0]) for finding in findings],
        "detail": [finding.detail for finding in findings],
    }
    run.log_table(columns, f"{DATA}/label_errors.json")


def log_machine(run: Run, device: torch.device, precision: str) -> None:
    """Logs the device, precision and machine details, which affect the least significant digits of the results."""
    hardware = describe_hardware(torch.device("cpu")) | describe_hardware(device)
    run.log_params(
        {
            "machine.device": str(device),
            "machine.precision": precision,
            **{f"machine.{name}": value for name, value in hardware.items()},
            "machine.cores": psutil.cpu_count(logical=False) or psutil.cpu_count(),
            "machine.memory_gib": round(psutil.virtual_memory().total / 2**30),
            "machine.system": platform.platform(),
        }
    )


def log_study(run: Run, study: Study) -> None:
    """Logs the best trial, a table of all trials, and figures such as parameter importance."""
    best = study.best
    run.log_params({f"best.{name}": value for name, value in best.params.items()})
    run.set_tags({"platform.best_trial": best.number})
    run.log_latest({"best/value": best.value or 0.0}, step=best.number)
    run.log_figures(study_figures(study), "study")
    run.log_table(study.table(), "study/trials.json")


def log_network(run: Run, network: Network) -> None:
    """Logs the output shape and parameter count of each layer, and whether the layer is trainable."""
    size = network.spec.image_size
    columns = ("output_size", "num_params", "trainable")
    device = next(network.parameters()).device
    summary = torchinfo.summary(
        network, (1, 3, size, size), col_names=columns, depth=4, device=device, verbose=0, mode="eval"
    )
    run.log_text(str(summary), "network.txt")


def log_first_batch(run: Run, images: Tensor, labels: Sequence[str]) -> None:
    """Logs a figure of a training batch as the network sees it: images (B, 3, S, S) with values from 0 to 1."""
    run.log_figures({"first_batch": figures.image_grid(images.permute(0, 2, 3, 1).numpy(), labels)}, DATA)


def validation_predictions(splits: Splits, logits: Tensor, temperature: float = 1.0) -> Predictions:
    """Returns the best trial's predictions for the selection images (out-of-fold if folds are used).

    Args:
        splits: Dataset splits; each row of `logits` corresponds to an image in `Splits.selection`.
        logits: Logits (N, C) of the selection images.
        temperature: Temperature by which the logits are divided, as in the served model.
    """
    images = splits.selection
    labels = np.array(splits.labels(images))
    probabilities = functional.softmax(logits.double() / temperature, dim=1).numpy()
    return Predictions(splits.classes, [image.path for image in images], labels, probabilities)


def log_validation(run: Run, predictions: Predictions) -> None:
    """Logs the table of validation predictions."""
    run.log_table(predictions.table(), f"{FOLDER}/validation_predictions.json")


def log_thresholds(run: Run, validation: Predictions, test: Predictions) -> None:
    """Logs per-class decision thresholds, and accuracy as a function of coverage.

    Args:
        run: MLflow run of the study.
        validation: Calibrated predictions used to choose the thresholds.
        test: Test predictions used to evaluate the thresholds.
    """
    by_class, by_confidence = class_thresholds(validation, test), coverage(test)
    run.log_table(by_class, f"{FOLDER}/thresholds.json")
    run.log_table(by_confidence, f"{FOLDER}/coverage.json")
    text = report.threshold_report(by_class, by_confidence, len(validation.labels))
    run.log_text(text, f"{FOLDER}/thresholds.md")


def log_evaluation(
    run: Run, best: Run | None, predictions: Predictions, trial: FinishedTrial, metric: str
) -> dict[str, float]:
    """Logs the served model's metrics, figures, tables and report for the test images.

    Args:
        run: MLflow run of the study.
        best: MLflow run of the best trial, used for learning curves; if None, no curves are logged.
        predictions: Predictions for the test images.
        trial: The best trial; its number is the step of the logged metrics.
        metric: Name of the metric that ranks the trials.

    Returns:
        The test metrics, keyed by name.
    """
    metrics = predictions.scores("test")
    run.log_latest(metrics, step=trial.number)
    images = {
        "confusion_matrix": figures.confusion_matrix(predictions),
        "calibration": figures.calibration(predictions),
        "worst_mistakes": figures.worst_mistakes(predictions),
    }
    if best:
        history = {name: points for name in CURVES if (points := best.metric_history(name))}
        xlabel = "epoch" if "train/loss" in history else "number of the hyperparameter value of the solved head"
        images["learning_curves"] = figures.learning_curves(history, xlabel)
    run.log_figures(images, FOLDER)
    run.log_table(report.class_table(predictions), f"{FOLDER}/classes.json")
    run.log_table(predictions.table(), f"{FOLDER}/predictions.json")
    facts = {"best trial": str(trial.number), metric: trial.score, "test images": str(len(predictions.labels))}
    run.log_text(
        report.evaluation_report("Evaluation on the test images", facts, predictions, metrics), f"{FOLDER}/report.md"
    )
    return metrics


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flattens nested sections into dotted names, but leaves search ranges as they are."""
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        section = isinstance(value, dict) and not {"low", "choices"} & value.keys()
        flat |= _flat(value, f"{prefix}{name}.") if section else {f"{prefix}{name}": value}
    return flat
