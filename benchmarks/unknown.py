"""Detection of out-of-distribution images, and the effect of calibration, over seeds.

Runs the shipped recipe without promotion once per seed. The served model then classifies the test images,
handwritten digits, three kinds of noise, and images of CIFAR-10. Reports how well a score separates them from
the test images (AUROC), and how many test images are flagged as unknown.

    python benchmarks/unknown.py --photos hymenoptera_data --cifar cifar10 --seeds 5
    python benchmarks/unknown.py --photos hymenoptera_data --cifar cifar10 --seeds 1 --images 20  # smoke test
"""

from __future__ import annotations

import io
import statistics
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import existing_path, parser, report, work_folder
from platform_runs import ants_bees_recipe, platform_run

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray
    from PIL import Image

    from transfer_model.classifier import Classifier


def main() -> None:
    """Runs all seeds, then evaluates their models."""
    options = _options()
    rows = []
    with work_folder(options.work) as folder:
        for seed in range(options.seeds):
            recipe = ants_bees_recipe(options.photos, seed=seed, promotion=None)
            platform_run(recipe, folder / str(seed), folder / "cache", options.threads, options.device)
        outliers = _outliers(options)
        for seed in range(options.seeds):
            (model,) = (folder / str(seed) / "studies").glob("*/model")
            rows.append(_row(seed, model, options.photos, outliers))
    medians: dict[str, Any] = {
        column: statistics.median(row[column] for row in rows) for column in rows[0] if column != "seed"
    }
    notes = [
        f"{options.images} images of each kind against the test images; AUROC of the out-of-distribution "
        "score, of the energy, and of 1 - largest probability"
    ]
    report(options, [*rows, {"seed": "median", **medians}], notes)


def _row(seed: int, model: Path, photos: Path, outliers: Mapping[str, Sequence[bytes]]) -> dict[str, Any]:
    import numpy as np

    from transfer_model.classifier import Classifier
    from transfer_platform.evaluation.calibration import expected_calibration_error, remove_temperature
    from transfer_platform.evaluation.metrics import cross_entropy

    classifier = Classifier.load(model)
    paths = sorted((photos / "val").glob("*/*.jpg"))
    labels = np.array([classifier.classes.index(path.parent.name) for path in paths])
    test = _scores(classifier, [path.read_bytes() for path in paths])
    config = classifier.config
    before = remove_temperature(test["probabilities"], config.temperature)
    row: dict[str, Any] = {"seed": seed, "temperature": config.temperature}
    for name, metric in (("ece", expected_calibration_error), ("loss", cross_entropy)):
        row |= {f"{name} before": metric(labels, before), f"{name} after": metric(labels, test["probabilities"])}
    row["false alarm rate"] = float(np.mean(test["ood_score"] > config.unknown.threshold))
    for kind, images in outliers.items():
        other = _scores(classifier, images)
        row |= {f"{kind}, {score}": _auroc(test[score], other[score]) for score in ("ood_score", *LOGIT_SCORES)}
        row[f"{kind} flagged as unknown"] = float(np.mean(other["ood_score"] > config.unknown.threshold))
    return row


LOGIT_SCORES: dict[str, Callable[[Any], Any]] = {
    "energy": lambda logits: -_logsumexp(logits),
    "softmax": lambda logits: _logsumexp(logits) - logits.max(axis=1),
}
"""Scores of logits, for comparison; larger for out-of-distribution images."""


def _scores(classifier: Classifier, images: Sequence[bytes]) -> dict[str, NDArray[Any]]:
    import torch

    from transfer_model.decode import decode

    output = classifier.predict(images)
    with torch.inference_mode():
        logits = torch.cat(
            [classifier.network(classifier.config.preprocessing(decode(image))[None]) for image in images]
        ).numpy()
    return {
        "probabilities": output.probabilities,
        "ood_score": output.ood_scores,
        **{name: score(logits) for name, score in LOGIT_SCORES.items()},
    }


def _logsumexp(logits: NDArray[Any]) -> NDArray[Any]:
    from scipy.special import logsumexp

    values: NDArray[Any] = logsumexp(logits, axis=1)
    return values


def _auroc(inliers: NDArray[Any], outliers: NDArray[Any]) -> float:
    import numpy as np
    from sklearn.metrics import roc_auc_score

    is_outlier = np.concatenate([np.zeros(len(inliers)), np.ones(len(outliers))])
    return float(roc_auc_score(is_outlier, np.concatenate([inliers, outliers])))


def _outliers(options: Namespace) -> dict[str, list[bytes]]:
    """Returns image files that show neither ants nor bees, by kind."""
    import numpy as np
    from PIL import Image
    from sklearn.datasets import load_digits

    random = np.random.default_rng(0)
    digits = load_digits().images
    files = sorted(options.cifar.glob("test/*/*"))
    cifar = [files[index] for index in random.choice(len(files), options.images, replace=False)]
    noise = []
    for index in range(options.images):
        side = (224, 28, 7)[index % 3]
        pixels = random.integers(0, 256, (side, side, 3), dtype=np.uint8)
        noise.append(_png(Image.fromarray(pixels).resize((224, 224), Image.Resampling.BICUBIC)))
    return {
        "digits": [
            _png(Image.fromarray(np.uint8(np.clip(16 * digits[index], 0, 255))))
            for index in random.choice(len(digits), options.images, replace=False)
        ],
        "noise": noise,
        "CIFAR-10": [path.read_bytes() for path in cifar],
    }


def _png(image: Image.Image) -> bytes:
    content = io.BytesIO()
    image.save(content, "PNG")
    return content.getvalue()


def _options() -> Namespace:
    arguments = parser(__doc__)
    arguments.add_argument("--cifar", type=existing_path, required=True, help="CIFAR-10 as test/CLASS/FILE")
    arguments.add_argument("--seeds", type=int, default=5)
    arguments.add_argument("--images", type=int, default=150, help="images of each kind")
    return arguments.parse_args()


if __name__ == "__main__":
    main()
