"""Feature extraction and scikit-learn's `LogisticRegression`, what many write by hand, against a search.

Both are whole processes: imports, decoding, one forward pass, learning, and the accuracy on the 153 test
images. The script by hand neither searches nor validates, tracks, calibrates or keeps a model.

    python benchmarks/logistic_regression.py --photos hymenoptera_data
    python benchmarks/logistic_regression.py --photos hymenoptera_data --trials 2 --epochs 2   # a small form
"""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from pathlib import Path

from measuring import environment, last_json, parser, precision_argument, report, timed, workplace
from platform_runs import platform_run
from search import search_recipe


def main() -> None:
    """Times both, or is the process that is timed."""
    options = _options()
    if options.worker:
        print(json.dumps({"test_accuracy": by_hand(options)}))
        return
    with workplace(options.work) as folder:
        command = [sys.executable, Path(__file__).resolve(), "--worker", "--photos", options.photos]
        command += ["--device", options.device, "--threads", options.threads]
        hand = timed(command, folder / "hand", environment(options.threads))
        recipe, cache = search_recipe(options), folder / "cache"
        cold, study = platform_run(recipe, folder / "cold", cache, options.threads, options.device)
        warm, again = platform_run(recipe, folder / "warm", cache, options.threads, options.device)
    found = last_json(hand)["test_accuracy"]
    rows = [
        {"what": "features + LogisticRegression", "seconds": hand.seconds, "test accuracy": found},
        {"what": "platform run, cold", "seconds": cold.seconds, "test accuracy": study.test_accuracy},
        {"what": "platform run, warm", "seconds": warm.seconds, "test accuracy": again.test_accuracy},
    ]
    for row in rows:
        row["times the one by hand"] = row["seconds"] / hand.seconds
    report(options, rows, [f"platform: {study.trials} trials, {study.epochs} executed epochs"])


def _options() -> Namespace:
    arguments = parser(__doc__)
    arguments.add_argument("--trials", type=int, default=20)
    arguments.add_argument("--epochs", type=int, default=15, help="of each trial")
    precision_argument(arguments)
    arguments.add_argument("--worker", action="store_true", help="used by the benchmark itself")
    return arguments.parse_args()


def by_hand(options: Namespace) -> float:
    """Learns from all training images in float32, and gives the accuracy on the test images, 0 to 1."""
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
    learnt = LogisticRegression(max_iter=1000).fit(values["train"], labels["train"])
    return float(learnt.score(values["val"], labels["val"]))


if __name__ == "__main__":
    main()
