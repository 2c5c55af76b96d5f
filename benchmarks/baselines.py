"""The recipe of `platform init` compared with what a user would try first on the same features.

For every seed and every bundled backbone: scikit-learn's `LogisticRegressionCV`, `RidgeClassifierCV` and nearest
neighbours, each on unscaled features of the whole network. `platform init` and `platform run` search all backbones.
The difference to the best of the others is given with its standard error, paired by image.

    python benchmarks/baselines.py --images hymenoptera_data --test val --seeds 0 1 2 3 4
    python benchmarks/baselines.py --images cifar10_images --size 64 --per-class 100 --seeds 0 1 2
    python benchmarks/baselines.py --images hymenoptera_data --test val --seeds 0 --size 96      # smoke test
"""

from __future__ import annotations

import json
import random
import re
import shutil
import statistics
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

from harness import BIN, environment, existing_path, last_json_line, parser, report, run_process, work_folder

BACKBONES = ("efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2")
SEARCH = "platform init, run"


def main() -> None:
    """Measures all; with `--worker`, fits the classifiers of scikit-learn on one backbone."""
    options = _options()
    if options.worker:
        print(json.dumps(baselines(options.images, options.worker, options)))
        return
    with work_folder(options.work) as folder:
        correct = [_one_seed(options, folder / f"seed{seed}", seed) for seed in options.seeds]
    rows = [_row(name, [each[name] for each in correct]) for name in correct[0]]
    best = max((row for row in rows if row["run"] != SEARCH), key=lambda row: row["median accuracy"])
    report(options, rows, [_difference(correct, str(best["run"]))])


def _options() -> Namespace:
    arguments = parser(__doc__, photos=False)
    arguments.add_argument("--images", type=existing_path, required=True, help="folder with train/ and the test folder")
    arguments.add_argument("--test", default="test", help="name of the test folder")
    arguments.add_argument("--size", type=int, help="image side in pixels; default: that of each backbone")
    arguments.add_argument("--per-class", type=int, help="training images of each class, drawn by seed; default: all")
    arguments.add_argument("--seeds", type=int, nargs="+", default=[0])
    arguments.add_argument("--worker", help="internal: name of a backbone")
    return arguments.parse_args()


def _one_seed(options: Namespace, folder: Path, seed: int) -> dict[str, list[bool]]:
    """Returns for each method whether it classifies each test image correctly."""
    images = folder / "images"
    _copy(options, images, seed)
    variables = environment(options.threads, folder.parent / "cache")
    found = {SEARCH: _search(options, images, folder / "search", seed, variables)}
    for backbone in BACKBONES:
        command = [sys.executable, Path(__file__).resolve(), "--worker", backbone, "--images", images]
        command += ["--test", options.test, *(["--size", options.size] if options.size else [])]
        found |= last_json_line(run_process(command, folder / backbone, variables))
    return found


def _copy(options: Namespace, images: Path, seed: int) -> None:
    shutil.copytree(options.images / options.test, images / options.test)
    for label in sorted((options.images / "train").iterdir()):
        files = [path for path in sorted(label.iterdir()) if path.suffix != ".gif"]
        drawn = random.Random(seed).sample(files, options.per_class) if options.per_class else files
        (images / "train" / label.name).mkdir(parents=True)
        for file in drawn:
            shutil.copy(file, images / "train" / label.name)


def _search(options: Namespace, images: Path, folder: Path, seed: int, variables: dict[str, str]) -> list[bool]:
    run_process([BIN / "platform", "init", images, "--out", "recipe.yaml"], folder, variables)
    overrides = [f"seed={seed}", f"dataset.split_seed={seed}", "promotion=null"]
    overrides += [f"dataset.image_size={options.size}"] if options.size else []
    settings = [word for override in overrides for word in ("-o", override)]
    process = run_process([BIN / "platform", "run", "recipe.yaml", *settings], folder, variables)
    print(f"seed {seed}: {process.seconds:.0f} s;", *re.findall(r"(?:best:|  \w+\.\w+ =|test/loss).*", process.output))
    [file] = folder.glob("mlruns/**/evaluation/predictions.json")
    table: dict[str, Any] = json.loads(file.read_text())
    columns = {name: [row[at] for row in table["data"]] for at, name in enumerate(table["columns"])}
    pairs = zip(columns["file"], columns["label"], columns["predicted"], strict=True)
    return [label == predicted for _, label, predicted in sorted(pairs)]


def baselines(images: Path, backbone: str, options: Namespace) -> dict[str, list[bool]]:
    """Returns for each classifier whether it classifies each test image correctly."""
    from sklearn.linear_model import LogisticRegressionCV, RidgeClassifierCV
    from sklearn.model_selection import GridSearchCV
    from sklearn.neighbors import KNeighborsClassifier

    features, labels, _ = _features(sorted((images / "train").glob("*/*")), backbone, options)
    tests, expected, names = _features(sorted((images / options.test).glob("*/*")), backbone, options)
    smallest = min(labels.count(label) for label in labels)
    classifiers = {
        "LogisticRegressionCV": LogisticRegressionCV(cv=min(5, smallest), max_iter=2000),
        "RidgeClassifierCV": RidgeClassifierCV(alphas=[10.0**power for power in range(-3, 6)]),
        "nearest neighbours": GridSearchCV(
            KNeighborsClassifier(metric="cosine"), {"n_neighbors": [1, 3, 5, 9]}, cv=min(5, smallest)
        ),
    }
    order = sorted(range(len(names)), key=lambda index: (names[index], expected[index]))
    found = {}
    for name, classifier in classifiers.items():
        predicted = classifier.fit(features, labels).predict(tests)
        found[f"{name}, {backbone}"] = [bool(predicted[index] == expected[index]) for index in order]
    return found


def _features(files: list[Path], backbone: str, options: Namespace) -> tuple[Any, list[str], list[str]]:
    """Returns features (N, F) of a pretrained network, labels and file names."""
    import torch

    from transfer_model import catalog, weight_sources
    from transfer_model.network import NetworkSpec, build_network
    from transfer_model.preprocessing import Preprocessing

    default = catalog.backbone_info(backbone).preprocessing
    side = options.size or default.image_size
    prepare = Preprocessing(side, default.crop, default.interpolation, default.mean, default.std)
    weights = weight_sources.locate_weights(backbone, "default").path
    network = build_network(NetworkSpec(backbone, 2, 0.0, side), weights).eval()
    rows = []
    with torch.inference_mode():
        for start in range(0, len(files), 32):
            pixels = torch.stack([prepare.normalize(prepare.load(file)) for file in files[start : start + 32]])
            rows.append(network.forward_features(pixels).flatten(1))
    return torch.cat(rows).numpy(), [file.parent.name for file in files], [file.name for file in files]


def _row(name: str, correct: list[list[bool]]) -> dict[str, Any]:
    accuracies = [statistics.fmean(each) for each in correct]
    return {
        "run": name,
        "median accuracy": statistics.median(accuracies),
        "range": f"{min(accuracies):.4f} to {max(accuracies):.4f}",
    }


def _difference(correct: list[dict[str, list[bool]]], best: str) -> str:
    """Describes the mean difference between the search and the best other method, with its standard error."""
    differences = [
        int(mine) - int(other) for each in correct for mine, other in zip(each[SEARCH], each[best], strict=True)
    ]
    error = statistics.stdev(differences) / len(correct[0][SEARCH]) ** 0.5
    return f"search minus best other ({best}): {statistics.fmean(differences):+.4f}, standard error {error:.4f}"


if __name__ == "__main__":
    main()
