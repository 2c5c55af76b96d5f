"""Paired comparison of two classifiers: significance tests, intervals and power.

Only images that exactly one of the two models classifies correctly (discordant pairs) provide evidence of a difference.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

BOOTSTRAP_SAMPLES = 10_000
_MAX_IMAGES = 10_000_000  # upper limit for `required_images`


@dataclass(frozen=True)
class PairedResult:
    """Paired counts for two models evaluated on the same images.

    Attributes:
        images: Number of images, at least 1.
        better: Number of images that only the candidate classifies correctly.
        worse: Number of images that only the champion classifies correctly.
    """

    images: int
    better: int
    worse: int

    @property
    def gain(self) -> float:
        """Accuracy of the candidate minus that of the champion, between -1 and 1."""
        return (self.better - self.worse) / self.images

    @property
    def discordant_rate(self) -> float:
        """Fraction (0 to 1) of images that exactly one of the two models classifies correctly."""
        return (self.better + self.worse) / self.images


def p_value(paired: PairedResult, margin: float = 0.0) -> float:
    """Returns the one-sided p-value for the null hypothesis that the true gain is at most `margin` (-1 to 1).

    Uses the exact test `mcnemar` if the margin is 0, otherwise the asymptotic test `score_test`.
    """
    return mcnemar(paired.better, paired.worse) if margin == 0 else score_test(paired, margin)


def mcnemar(better: int, worse: int) -> float:
    """Returns the p-value of the one-sided exact McNemar test for the counts of discordant pairs.

    The p-value is P(X >= better) with X ~ Binomial(better + worse, 1/2), or 1 if there are no discordant pairs.

    McNemar, Q. (1947). Note on the sampling error of the difference between correlated proportions or percentages.
    Psychometrika 12, 153-157.
    """
    if better + worse == 0:
        return 1.0
    from scipy.stats import binomtest  # imported lazily because it takes 2 s

    return float(binomtest(better, better + worse, 0.5, alternative="greater").pvalue)


def score_test(paired: PairedResult, margin: float) -> float:
    """Returns the asymptotic p-value of Tango's one-sided score test for a true gain above `margin` (-1 to 1).

    With a margin of 0, this is McNemar's test without continuity correction.

    Tango, T. (1998). Equivalence test and confidence interval for the difference in proportions for the paired-sample
    design. Statistics in Medicine 17, 891-908.
    """
    n, b, c = paired.images, paired.better, paired.worse
    # Maximum likelihood estimate of the rate of `worse`, given that the gain equals the margin: root of a quadratic.
    linear = (2 * n - b + c) * margin - b - c
    constant = -c * margin * (1 - margin)
    rate = (math.sqrt(max(0.0, linear**2 - 8 * n * constant)) - linear) / (4 * n)
    variance = n * (2 * rate + margin * (1 - margin))
    excess = b - c - n * margin
    if variance <= 0:
        return 0.0 if excess > 0 else 1.0
    return 0.5 * math.erfc(excess / math.sqrt(2 * variance))


def gain_interval(paired: PairedResult, confidence: float) -> tuple[float, float]:
    """Returns the equal-tailed confidence interval for the gain, from a paired bootstrap with a fixed random seed.

    Efron, B. (1979). Bootstrap methods: another look at the jackknife. The Annals of Statistics 7, 1-26.
    """
    counts = np.array([paired.better, paired.worse, paired.images - paired.better - paired.worse])
    samples = np.random.default_rng(0).multinomial(paired.images, counts / paired.images, BOOTSTRAP_SAMPLES)
    gains = (samples[:, 0] - samples[:, 1]) / paired.images
    low, high = np.quantile(gains, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


@dataclass(frozen=True)
class TrueEffect:
    """Assumed true difference between two models.

    Attributes:
        gain: Accuracy of the candidate minus that of the champion; must be greater than `margin`.
        discordant: Fraction (|gain| to 1) of images that exactly one of the models classifies correctly.
        margin: Largest true gain for which the null hypothesis of the test holds.
    """

    gain: float
    discordant: float
    margin: float = 0.0


def power(images: int, effect: TrueEffect, confidence: float) -> float:
    """Returns the probability that `p_value` gives a significant result for this effect and number of images.

    The result is exact if the margin is 0, and a normal approximation otherwise.
    """
    from scipy.stats import binom, norm

    gain, discordant = effect.gain, effect.discordant
    if effect.margin:
        deviation = math.sqrt(max(discordant - gain**2, 1e-12) / images)
        return float(norm.cdf((gain - effect.margin) / deviation - norm.ppf(confidence)))
    mean, deviation = images * discordant, math.sqrt(images * discordant * (1 - discordant))
    counts = np.arange(max(0, int(mean - 8 * deviation)), min(images, int(mean + 8 * deviation) + 1) + 1)
    critical = binom.isf(1 - confidence, counts, 0.5) + 1  # smallest passing value of `better` for each of `counts`
    pass_rates = binom.sf(critical - 1, counts, (discordant + gain) / 2 / discordant)
    return float(binom.pmf(counts, images, discordant) @ pass_rates)


def required_images(effect: TrueEffect, confidence: float, target_power: float) -> int:
    """Returns the number of test images needed to reach the given power, accurate to about 1%."""
    low, high = 1, 2
    while power(high, effect, confidence) < target_power and high < _MAX_IMAGES:
        low, high = high, 2 * high
    while high - low > max(1, low // 100):
        middle = (low + high) // 2
        if power(middle, effect, confidence) < target_power:
            low = middle
        else:
            high = middle
    return high


def holm_adjust(p_values: Mapping[str, float]) -> dict[str, float]:
    """Returns p-values adjusted for multiple testing by Holm's method.

    Holm, S. (1979). A simple sequentially rejective multiple test procedure. Scand. Journal of Statistics 6, 65-70.
    """
    names = sorted(p_values, key=p_values.__getitem__)
    scaled = (min(1.0, (len(names) - rank) * p_values[name]) for rank, name in enumerate(names))
    return dict(zip(names, accumulate(scaled, max), strict=True))
