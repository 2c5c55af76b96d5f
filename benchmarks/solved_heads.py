"""Out-of-fold predictions for 500 values of C compared with scikit-learn's `LogisticRegression`.

The platform solves some values of C and interpolates between them; scikit-learn fits every value and fold from the
beginning. Some of its fits are measured and compared, at values of C that the platform does not solve; the time of all
fits is their mean multiplied by their number. CPU time is reported as well, since it depends less on other processes.

    python benchmarks/solved_heads.py                                    # synthetic features, 10 classes
    python benchmarks/solved_heads.py --archive cifar10_images.zip --unpacked /tmp/cifar10 --classes 2
    python benchmarks/solved_heads.py --images 500 --features 64 --values 50 --checked 3      # smoke test
"""

from __future__ import annotations

import json
import sys
import time
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import environment, existing_path, last_json_line, parser, report, run_process, work_folder
from scale import extract_archive

if TYPE_CHECKING:
    from torch import Tensor

    from transfer_platform.solvers.out_of_fold import OutOfFoldPath

FOLDS = 5


def main() -> None:
    """Measures both; with `--worker`, runs the measured process."""
    options = _options()
    if options.worker:
        print(json.dumps(measure(options)))
        return
    with work_folder(options.work) as folder:
        command = [sys.executable, Path(__file__).resolve(), "--worker", *sys.argv[1:]]
        result = last_json_line(run_process(command, folder / "worker", environment(options.threads)))
    fits = FOLDS * options.values
    rows = [
        {"solver": f"platform, {fits} predictions", **result["platform"]},
        {"solver": f"scikit-learn, {result['fits']} fits", **result["measured"]},
        {"solver": f"scikit-learn, {fits} fits, extrapolated", **result["extrapolated"]},
    ]
    for row in rows:
        row["relative CPU time"] = row["CPU seconds"] / rows[0]["CPU seconds"]
    notes = [
        f"{result['images']} images, {result['features']} features, {options.classes} classes, {FOLDS} folds, "
        f"{options.values} values of C from {options.low:g} to {options.high:g}, {result['nodes']} of them solved",
        f"largest difference of a probability: {result['difference']:.1e}",
        f"best C: {result['best']:.3g}; loss {result['loss']:.4f}, largest accuracy {result['accuracy']:.4f}",
    ]
    report(options, rows, notes, **result)


def _options() -> Namespace:
    arguments = parser(__doc__, photos=False)
    arguments.add_argument("--archive", type=existing_path, help="cifar10_images.zip; default: synthetic features")
    arguments.add_argument("--unpacked", type=Path, help="folder for the extracted images; not deleted")
    arguments.add_argument("--images", type=int, default=10_000)
    arguments.add_argument("--features", type=int, default=1_280, help="number of synthetic features")
    arguments.add_argument("--classes", type=int, default=10)
    arguments.add_argument("--values", type=int, default=500)
    arguments.add_argument("--low", type=float, default=1e-5, help="smallest C")
    arguments.add_argument("--high", type=float, default=1e1, help="largest C")
    arguments.add_argument("--checked", type=int, default=12, help="values of C that scikit-learn fits")
    arguments.add_argument("--checked-folds", type=int, default=FOLDS, help="folds that scikit-learn fits")
    arguments.add_argument("--worker", action="store_true", help="internal")
    return arguments.parse_args()


def measure(options: Namespace) -> dict[str, Any]:
    """Returns the times and the largest difference of out-of-fold probabilities."""
    import numpy as np
    import torch
    from torch.nn.functional import one_hot

    from transfer_platform.solvers.out_of_fold import out_of_fold_path

    torch.set_num_threads(options.threads)
    features, labels = cifar_features(options) if options.archive else synthetic_features(options)
    folds = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0)) % FOLDS
    values = np.geomspace(options.low, options.high, options.values)
    start = _clocks()
    path = out_of_fold_path(features, one_hot(labels), folds, values.tolist())
    losses, accuracies = path.metrics(one_hot(labels))
    ours = _since(start)
    distances = (path.values.log()[:, None] - path.nodes).abs().amin(dim=1)
    between = torch.nonzero(distances > distances.median())[:, 0]
    checked = between[torch.linspace(0, len(between) - 1, options.checked).long()].tolist()
    start, difference = _clocks(), 0.0
    for index in checked:
        difference = max(difference, *scikit_learn_differences(features, labels, folds, path, index, options))
    theirs, fits = _since(start), len(checked) * options.checked_folds
    return {
        "platform": ours,
        "measured": theirs,
        "extrapolated": {name: seconds / fits * FOLDS * options.values for name, seconds in theirs.items()},
        "fits": fits,
        "difference": difference,
        "nodes": len(path.nodes),
        "images": len(features),
        "features": features.shape[1],
        "best": float(values[int(losses.argmin())]),
        "loss": float(losses.min()),
        "accuracy": float(accuracies.max()),
    }


def scikit_learn_differences(
    features: Tensor, labels: Tensor, folds: Tensor, path: OutOfFoldPath, index: int, options: Namespace
) -> list[float]:
    """Fits one value of C; returns the largest difference of a probability for each fold."""
    from sklearn.linear_model import LogisticRegression

    probabilities, differences = path.logits(index).double().softmax(dim=1).numpy(), []
    for fold in range(options.checked_folds):
        training, held_out = (folds != fold).numpy(), (folds == fold).numpy()
        solver = "newton-cholesky" if options.classes == 2 else "newton-cg"
        model = LogisticRegression(C=float(path.values[index]), tol=1e-8, solver=solver, max_iter=10_000)
        model.fit(features[training].double().numpy(), labels[training].numpy())
        expected = model.predict_proba(features[held_out].double().numpy())
        differences.append(float(abs(expected - probabilities[held_out]).max()))
    return differences


def _clocks() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def _since(start: tuple[float, float]) -> dict[str, float]:
    seconds, cpu = (now - before for now, before in zip(_clocks(), start, strict=True))
    return {"seconds": seconds, "CPU seconds": cpu}


def synthetic_features(options: Namespace) -> tuple[Tensor, Tensor]:
    """Returns correlated nonnegative features (N, F) with overlapping classes, and labels (N,)."""
    import torch

    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(options.images) % options.classes
    scales = torch.arange(1, options.features + 1) ** -0.5
    means = 1.5 * torch.randn(options.classes, options.features, generator=generator)
    hidden = (means[labels] + 2 * torch.randn(options.images, options.features, generator=generator)) * scales
    mixed = hidden @ torch.randn(options.features, options.features, generator=generator)
    return mixed.relu() / 4, labels


def cifar_features(options: Namespace) -> tuple[Tensor, Tensor]:
    """Returns features (N, F) of EfficientNet-Lite0 at 64 pixels for the first classes of CIFAR-10, and labels (N,)."""
    import dataclasses

    import torch
    from PIL import Image

    from transfer_model import catalog, weight_sources
    from transfer_model.network import NetworkSpec, build_network

    name = "efficientnet_lite0"
    classes = sorted((extract_archive(options.archive, options.unpacked) / "train").iterdir())[: options.classes]
    count = options.images // options.classes
    files = [path for folder in classes for path in sorted(folder.iterdir())[:count]]
    prepare = dataclasses.replace(catalog.backbone_info(name).preprocessing, image_size=64)
    network = build_network(NetworkSpec(name, 2, 0.0, 64), weight_sources.locate_weights(name, "default").path).eval()
    parts = []
    with torch.inference_mode():
        for start in range(0, len(files), 200):
            images = [prepare(Image.open(path).convert("RGB")) for path in files[start : start + 200]]
            parts.append(network.forward_features(torch.stack(images)).flatten(1))
    return torch.cat(parts).clone(), torch.arange(len(classes)).repeat_interleave(count)


if __name__ == "__main__":
    main()
