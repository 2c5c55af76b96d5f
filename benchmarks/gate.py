"""How often the gate lets models through: equal ones, better ones, and ones that have lost a class.

Pairs of models are simulated as what their answers come to: on how many images exactly one of them is right.
What a rule says of each pair is what `transfer_registry.gate` says of real ones; nothing is timed.

    python benchmarks/gate.py
    python benchmarks/gate.py --pairs 50      # a small form
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator, Sequence

from measuring import Row, parser, report

IMAGES = (150, 2000)
GAINS = (0.0, 0.01, 0.02, 0.05)
CLASSES = (2, 10)
DISCORDANT = 0.1
"""Share of images on which exactly one of the two is right."""
LOSS = 0.25
"""What the model that lost a class lost of its recall."""


def main() -> None:
    """Simulates every case."""
    options = _options()
    rows = [row for images in IMAGES for classes in CLASSES for row in _rows(images, classes, options)]
    notes = [
        f"{options.pairs} pairs each; exactly one model is right on {DISCORDANT:.0%} of the images",
        f"`lost a class`: {LOSS:.0%} of one class's recall is lost, but {GAINS[-1]:.0%} of accuracy gained",
        "all rules at a confidence of 0.95; the margin is -0.02",
    ]
    report(options, rows, notes)


def _options() -> Namespace:
    arguments = parser(__doc__, photos=False)
    arguments.add_argument("--pairs", type=int, default=2000, help="of models in each case")
    return arguments.parse_args()


def _rows(images: int, classes: int, options: Namespace) -> Iterator[Row]:
    for gain in GAINS:
        yield _row(images, classes, f"{gain:+.0%}", [gain] * classes, options)
    spread = (GAINS[-1] * classes + LOSS) / (classes - 1)
    yield _row(images, classes, "lost a class", [-LOSS, *[spread] * (classes - 1)], options)


def _row(images: int, classes: int, truth: str, gains: Sequence[float], options: Namespace) -> Row:
    """The share of pairs that each rule lets through, the candidate gaining so much in each class."""
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
            better, worse, _ = draw.multinomial(images // classes, shares)
            places = np.flatnonzero(labels == name)
            champion[places[:better]] = "wrong"
            candidate[places[better : better + worse]] = "wrong"
        verdict = evaluate_rules(
            {}, labels.tolist(), candidate.tolist(), rules, ChampionPredictions(1, champion.tolist())
        )
        passed[pair] = [finding.passed for finding in verdict.results]
    over, margin, recall = passed.mean(axis=0)
    return {
        "images": images,
        "classes": classes,
        "true gain": truth,
        "over_champion": float(over),
        "with margin": float(margin),
        "per_class_recall": float(recall),
        "over_champion and per_class_recall": float((passed[:, 0] & passed[:, 2]).mean()),
    }


if __name__ == "__main__":
    main()
