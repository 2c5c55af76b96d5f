"""Whether the served model knows what it does not know, and what calibration changes, over seeds.

The shipped recipe is run once a seed, promotion left out. Its served form is then asked about the test
images, about handwritten digits, noise of three kinds, and images of CIFAR-10: how well does a score tell
them apart (AUROC), and how many test images are called unknown.

    python benchmarks/unknown.py --photos hymenoptera_data --cifar cifar10 --seeds 5
    python benchmarks/unknown.py --photos hymenoptera_data --cifar cifar10 --seeds 1 --images 20    # small
"""

from __future__ import annotations

import io
import statistics
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from measuring import existing, parser, report, workplace
from platform_runs import ants_bees, platform_run

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray
    from PIL import Image

    from transfer_model.classifier import Classifier


def main() -> None:
    """Runs every seed, then asks its model."""
    options = _options()
    found = []
    with workplace(options.work) as folder:
        for seed in range(options.seeds):
            recipe = ants_bees(options.photos, seed=seed, promotion=None)
            platform_run(recipe, folder / str(seed), folder / "cache", options.threads, options.device)
        strangers = _strangers(options)
        for seed in range(options.seeds):
            (model,) = (folder / str(seed) / "studies").glob("*/model")
            found.append(_seed(seed, model, options.photos, strangers))
    medians: dict[str, Any] = {
        column: statistics.median(row[column] for row in found) for column in found[0] if column != "seed"
    }
    notes = [
        f"{options.images} images of each kind against the test images; columns are AUROCs of novelty, "
        "energy, and 1 - the largest probability"
    ]
    report(options, [*found, {"seed": "median", **medians}], notes)


def _seed(seed: int, model: Path, photos: Path, strangers: Mapping[str, Sequence[bytes]]) -> dict[str, Any]:
    import numpy as np

    from transfer_model.classifier import Classifier
    from transfer_platform.evaluation.calibration import remove_temperature
    from transfer_platform.evaluation.metrics import cross_entropy, expected_calibration_error

    classifier = Classifier.load(model)
    paths = sorted((photos / "val").glob("*/*.jpg"))
    labels = np.array([classifier.classes.index(path.parent.name) for path in paths])
    known = _scores(classifier, [path.read_bytes() for path in paths])
    described = classifier.config
    before = remove_temperature(known["probabilities"], described.temperature)
    row: dict[str, Any] = {"seed": seed, "temperature": described.temperature}
    for name, metric in (("ece", expected_calibration_error), ("loss", cross_entropy)):
        row |= {
            f"{name} before": metric(labels, before),
            f"{name} after": metric(labels, known["probabilities"]),
        }
    row["false alarms"] = float(np.mean(known["novelty"] > described.unknown.threshold))
    for kind, images in strangers.items():
        asked = _scores(classifier, images)
        row |= {
            f"{kind}, {score}": _auroc(known[score], asked[score]) for score in ("novelty", *LOGIT_SCORES)
        }
        row[f"{kind} called unknown"] = float(np.mean(asked["novelty"] > described.unknown.threshold))
    return row


LOGIT_SCORES: dict[str, Callable[[Any], Any]] = {
    "energy": lambda logits: -_logsumexp(logits),
    "softmax": lambda logits: _logsumexp(logits) - logits.max(axis=1),
}
"""What is usual where features are out of reach; the greater the stranger."""


def _scores(classifier: Classifier, images: Sequence[bytes]) -> dict[str, NDArray[Any]]:
    import torch

    from transfer_model.preprocessing import decode

    answers = classifier.predict(images)
    with torch.inference_mode():
        logits = torch.cat(
            [classifier.network(classifier.config.preprocessing(decode(image))[None]) for image in images]
        ).numpy()
    return {
        "probabilities": answers.probabilities,
        "novelty": answers.ood_scores,
        **{name: score(logits) for name, score in LOGIT_SCORES.items()},
    }


def _logsumexp(logits: NDArray[Any]) -> NDArray[Any]:
    from scipy.special import logsumexp

    summed: NDArray[Any] = logsumexp(logits, axis=1)
    return summed


def _auroc(known: NDArray[Any], strange: NDArray[Any]) -> float:
    import numpy as np
    from sklearn.metrics import roc_auc_score

    truth = np.concatenate([np.zeros(len(known)), np.ones(len(strange))])
    return float(roc_auc_score(truth, np.concatenate([known, strange])))


def _strangers(options: Namespace) -> dict[str, list[bytes]]:
    """Files of images that are neither ants nor bees, by their kind."""
    import numpy as np
    from PIL import Image
    from sklearn.datasets import load_digits

    random = np.random.default_rng(0)
    digits = load_digits().images
    files = sorted(options.cifar.glob("test/*/*"))
    chosen = [files[index] for index in random.choice(len(files), options.images, replace=False)]
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
        "CIFAR-10": [path.read_bytes() for path in chosen],
    }


def _png(image: Image.Image) -> bytes:
    content = io.BytesIO()
    image.save(content, "PNG")
    return content.getvalue()


def _options() -> Namespace:
    arguments = parser(__doc__)
    arguments.add_argument("--cifar", type=existing, required=True, help="folder with test/<class>/<file>")
    arguments.add_argument("--seeds", type=int, default=5)
    arguments.add_argument("--images", type=int, default=150, help="of each kind")
    return arguments.parse_args()


if __name__ == "__main__":
    main()
