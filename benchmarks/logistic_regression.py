"""A search compared with feature extraction and scikit-learn's `LogisticRegression`.

Both are complete processes: imports, decoding, one forward pass, training, and the accuracy on the 153 test
images. The script neither searches nor validates, tracks, calibrates or saves a model.

    python benchmarks/logistic_regression.py --photos hymenoptera_data
    python benchmarks/logistic_regression.py --photos hymenoptera_data --trials 2 --epochs 2   # smoke test
"""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from pathlib import Path

from harness import environment, last_json_line, parser, precision_argument, report, run_process, work_folder
from platform_runs import platform_run
from search import search_recipe


def main() -> None:
    """Measures both; with `--worker`, runs the script."""
    options = _options()
    if options.worker:
        print(json.dumps({"test_accuracy": train_and_test(options)}))
        return
    with work_folder(options.work) as folder:
        command = [sys.executable, Path(__file__).resolve(), "--worker", "--photos", options.photos]
        command += ["--device", options.device, "--threads", options.threads]
        script = run_process(command, folder / "script", environment(options.threads))
        recipe, cache = search_recipe(options), folder / "cache"
        cold, study = platform_run(recipe, folder / "cold", cache, options.threads, options.device)
        warm, again = platform_run(recipe, folder / "warm", cache, options.threads, options.device)
    accuracy = last_json_line(script)["test_accuracy"]
    rows = [
        {"run": "features + LogisticRegression", "seconds": script.seconds, "test accuracy": accuracy},
        {"run": "platform run, cold", "seconds": cold.seconds, "test accuracy": study.test_accuracy},
        {"run": "platform run, warm", "seconds": warm.seconds, "test accuracy": again.test_accuracy},
    ]
    for row in rows:
        row["relative time"] = row["seconds"] / script.seconds
    report(options, rows, [f"platform: {study.trials} trials, {study.epochs} executed epochs"])


def _options() -> Namespace:
    arguments = parser(__doc__)
    arguments.add_argument("--trials", type=int, default=20)
    arguments.add_argument("--epochs", type=int, default=15, help="epochs per trial")
    precision_argument(arguments)
    arguments.add_argument("--worker", action="store_true", help="internal")
    return arguments.parse_args()


def train_and_test(options: Namespace) -> float:
    """Fits all training images in float32; returns the accuracy on the test images, 0 to 1."""
    import torch
    from floor import photographs
    from PIL import Image
    from sklearn.linear_model import LogisticRegression

    from transfer_model import catalog, weight_sources
    from transfer_model.network import NetworkSpec, build_network

    torch.set_num_threads(options.threads)
    name = "efficientnet_lite0"
    prepare = catalog.backbone_info(name).preprocessing
    network = build_network(
        NetworkSpec(name, 2, 0.0, prepare.image_size), weight_sources.locate_weights(name, "default").path
    )
    network = network.eval().to(options.device)

    features: dict[str, list[torch.Tensor]] = {"train": [], "val": []}
    labels: dict[str, list[str]] = {"train": [], "val": []}
    for path in photographs(options.photos):
        with Image.open(path) as image, torch.inference_mode():
            pixels = prepare(image.convert("RGB")).unsqueeze(0).to(options.device)
            split = path.parts[-3]
            features[split].append(network.forward_features(pixels).flatten().cpu())
            labels[split].append(path.parts[-2])
    values = {split: torch.stack(vectors).numpy() for split, vectors in features.items()}
    classifier = LogisticRegression(max_iter=1000).fit(values["train"], labels["train"])
    return float(classifier.score(values["val"], labels["val"]))


if __name__ == "__main__":
    main()
