"""Pass rates of the gate rules for equal models, better models, and models that lost a class.

Simulates pairs of models by the number of images on which exactly one of them is correct, and evaluates the
rules of `transfer_registry.gate` on them. Nothing is timed.

    python benchmarks/gate.py
    python benchmarks/gate.py --pairs 50      # smoke test
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator, Sequence

from harness import Row, parser, report

IMAGES = (150, 2000)
GAINS = (0.0, 0.01, 0.02, 0.05)
CLASSES = (2, 10)
DISCORDANT = 0.1
"""Share of images on which exactly one of the two models is correct."""
LOSS = 0.25
"""Drop in the recall of the lost class."""


def main() -> None:
    """Simulates all cases."""
    options = _options()
    rows = [row for images in IMAGES for classes in CLASSES for row in _rows(images, classes, options)]
    notes = [
        f"{options.pairs} pairs per row; exactly one model is correct on {DISCORDANT:.0%} of the images",
        f"`lost a class`: the recall of one class drops by {LOSS:.0%}, the accuracy rises by {GAINS[-1]:.0%}",
        "confidence 0.95 for all rules; margin -0.02",
    ]
    report(options, rows, notes)


def _options() -> Namespace:
    arguments = parser(__doc__, photos=False)
    arguments.add_argument("--pairs", type=int, default=2000, help="pairs of models per case")
    return arguments.parse_args()


def _rows(images: int, classes: int, options: Namespace) -> Iterator[Row]:
    for gain in GAINS:
        yield _row(images, classes, f"{gain:+.0%}", [gain] * classes, options)
    spread = (GAINS[-1] * classes + LOSS) / (classes - 1)
    yield _row(images, classes, "lost a class", [-LOSS, *[spread] * (classes - 1)], options)


def _row(images: int, classes: int, true_gain: str, gains: Sequence[float], options: Namespace) -> Row:
    """Returns the share of pairs that pass each rule.

    Args:
        images: Number of test images.
        classes: Number of classes.
        true_gain: Label of the row.
        gains: Expected gain in recall of the candidate, by class.
        options: Options of this benchmark.
    """
    import numpy as np

    from transfer_registry.gate import ChampionPredictions, evaluate_rules
    from transfer_registry.rules import OverChampion, PerClassRecall

    rules = {"over": OverChampion(), "margin": OverChampion(margin=-0.02), "recall": PerClassRecall()}
    draw = np.random.default_rng(0)
    names = np.arange(classes).astype(str)
    labels = np.repeat(names, images // classes)
    passed = np.zeros((options.pairs, len(rules)), bool)
    for pair in range(options.pairs):
        candidate, champion = labels.copy(), labels.copy()
        for name, gain in zip(names, gains, strict=True):
            discordant = max(DISCORDANT, abs(gain))
            shares = [(discordant + gain) / 2, (discordant - gain) / 2, 1 - discordant]
            better, worse, _ = random.multinomial(images // classes, shares)
            indices = np.flatnonzero(labels == name)
            champion[indices[:better]] = "wrong"
            candidate[indices[better : better + worse]] = "wrong"
        verdict = evaluate_rules(
            {}, labels.tolist(), candidate.tolist(), rules, ChampionPredictions(1, champion.tolist())
        )
        passed[pair] = [result.passed for result in verdict.results]
    over, margin, recall = passed.mean(axis=0)
    return {
        "images": images,
        "classes": classes,
        "true gain": true_gain,
        "over_champion": float(over),
        "with margin": float(margin),
        "per_class_recall": float(recall),
        "over_champion and per_class_recall": float((passed[:, 0] & passed[:, 2]).mean()),
    }


if __name__ == "__main__":
    main()
