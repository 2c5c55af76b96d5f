"""What two models' answers to the same images say about which is better: tests, intervals, and their power.

Only the images on which exactly one of the two is right say anything. Pure functions of their numbers;
imported by the gate alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

DRAWS = 10_000
"""Resamples of the bootstrap."""
_MOST_IMAGES = 10_000_000
"""Nobody collects more test images than that."""


@dataclass(frozen=True)
class PairedResult:
    """How two models did on the same images.

    Attributes:
        images: How many, at least 1.
        better: On which only the candidate is right.
        worse: On which only the champion is right.
    """

    images: int
    better: int
    worse: int

    @property
    def gain(self) -> float:
        """The candidate's accuracy less the champion's, -1 to 1."""
        return (self.better - self.worse) / self.images

    @property
    def discordant_rate(self) -> float:
        """The share of images on which exactly one is right, 0 to 1."""
        return (self.better + self.worse) / self.images


def p_value(paired: PairedResult, margin: float = 0.0) -> float:
    """How probable so much evidence for the candidate is where its true gain is no more than the margin.

    Args:
        paired: What was seen.
        margin: In accuracy; below 0 it allows the candidate to be that much worse.

    Returns:
        A one-sided p-value: exact without a margin (`mcnemar`), else that of the `score_test`.
    """
    return mcnemar(paired.better, paired.worse) if margin == 0 else score_test(paired, margin)


def mcnemar(better: int, worse: int) -> float:
    """One-sided exact McNemar test: the chance of at least `better` heads in `better + worse` fair tosses.

    Were the models equal, each image on which exactly one is right would fall to either with probability 1/2.

    McNemar, Q. (1947). Note on the sampling error of the difference between correlated proportions or
    percentages. Psychometrika 12, 153-157.

    Args:
        better: Images on which only the candidate is right.
        worse: Images on which only the champion is right.

    Returns:
        P(X >= better), X ~ Binomial(better + worse, 1/2); 1 where there is no such image.
    """
    if better + worse == 0:
        return 1.0
    from scipy.stats import binomtest  # 2 s to import, and most commands never judge

    return float(binomtest(better, better + worse, 0.5, alternative="greater").pvalue)


def score_test(paired: PairedResult, margin: float) -> float:
    """One-sided score test of a gain over the margin; McNemar's (without continuity) where that is 0.

    Tango, T. (1998). Equivalence test and confidence interval for the difference in proportions for the
    paired-sample design. Statistics in Medicine 17, 891-908.

    Args:
        paired: What was seen.
        margin: In accuracy, above -1 and below 1.

    Returns:
        The asymptotic p-value of "the true gain is at most the margin".
    """
    n, b, c = paired.images, paired.better, paired.worse
    # The share of `worse` images that is likeliest under a gain of exactly the margin: a quadratic's root.
    linear = (2 * n - b + c) * margin - b - c
    constant = -c * margin * (1 - margin)
    share = (math.sqrt(max(0.0, linear**2 - 8 * n * constant)) - linear) / (4 * n)
    variance = n * (2 * share + margin * (1 - margin))
    surplus = b - c - n * margin
    if variance <= 0:
        return 0.0 if surplus > 0 else 1.0
    return 0.5 * math.erfc(surplus / math.sqrt(2 * variance))


def gain_interval(paired: PairedResult, confidence: float) -> tuple[float, float]:
    """The central interval of the gain, by drawing images again with both answers: the paired bootstrap.

    The draws are always the same, so that a verdict can be computed again.

    Efron, B. (1979). Bootstrap methods: another look at the jackknife. The Annals of Statistics 7, 1-26.
    """
    shares = np.array([paired.better, paired.worse, paired.images - paired.better - paired.worse])
    draws = np.random.default_rng(0).multinomial(paired.images, shares / paired.images, DRAWS)
    gains = (draws[:, 0] - draws[:, 1]) / paired.images
    low, high = np.quantile(gains, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


@dataclass(frozen=True)
class TrueEffect:
    """Two models as they would do on images without end.

    Attributes:
        gain: The candidate's accuracy less the champion's, above the margin.
        discordant: Share of images on which exactly one is right, from |gain| to 1.
        margin: That the gain is to be shown to exceed.
    """

    gain: float
    discordant: float
    margin: float = 0.0


def power(images: int, truth: TrueEffect, confidence: float) -> float:
    """The chance that a test of so many images lets the candidate through, as `p_value` would be computed.

    Exact without a margin, else by the normal approximation.

    Args:
        images: Of the test set.
        truth: About the two models.
        confidence: Of the test.
    """
    from scipy.stats import binom, norm

    gain, discordant = truth.gain, truth.discordant
    if truth.margin:
        deviation = math.sqrt(max(discordant - gain**2, 1e-12) / images)
        return float(norm.cdf((gain - truth.margin) / deviation - norm.ppf(confidence)))
    mean, deviation = images * discordant, math.sqrt(images * discordant * (1 - discordant))
    counts = np.arange(max(0, int(mean - 8 * deviation)), min(images, int(mean + 8 * deviation) + 1) + 1)
    enough = binom.isf(1 - confidence, counts, 0.5) + 1  # the fewest `better` of so many that convince
    seen = binom.sf(enough - 1, counts, (discordant + gain) / 2 / discordant)
    return float(binom.pmf(counts, images, discordant) @ seen)


def required_images(truth: TrueEffect, confidence: float, wanted: float) -> int:
    """About how many test images let the candidate through with the wanted power."""
    few, many = 1, 2
    while power(many, truth, confidence) < wanted and many < _MOST_IMAGES:
        few, many = many, 2 * many
    while many - few > max(1, few // 100):
        middle = (few + many) // 2
        if power(middle, truth, confidence) < wanted:
            few = middle
        else:
            many = middle
    return many


def holm_adjust(chances: Mapping[str, float]) -> dict[str, float]:
    """p-values, adjusted so that the chance of any false alarm among all of them stays what it is for one.

    Holm, S. (1979). A simple sequentially rejective multiple test procedure. Scandinavian Journal of
    Statistics 6, 65-70.
    """
    adjusted, largest = {}, 0.0
    for rank, name in enumerate(sorted(chances, key=chances.__getitem__)):
        largest = max(largest, min(1.0, (len(chances) - rank) * chances[name]))
        adjusted[name] = largest
    return adjusted
