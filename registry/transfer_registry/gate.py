"""Promotion gate: applies rules to a candidate's metrics and predictions.

All functions are pure, so a verdict can be reproduced from stored data.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from transfer_registry import significance
from transfer_registry.errors import RegistryError
from transfer_registry.rules import OverChampion, PerClassRecall, Threshold
from transfer_registry.significance import PairedResult
from transfer_registry.verdict import Figure, RuleResult, Verdict

if TYPE_CHECKING:
    from transfer_registry.rules import Rule

NOTABLE_GAIN = 0.02
"""Accuracy gain for which the power of an inconclusive test is reported."""
POWER = 0.8
"""Power for which the required number of test images is reported; 0.8 is the usual convention."""


@dataclass(frozen=True)
class ChampionPredictions:
    """Predictions of the current champion for the candidate's N test images.

    Attributes:
        predicted: Predicted class names (N,); None if the two models cannot be compared.
        incomparable: Reason why the two models cannot be compared; empty if they can be compared.
        warning: Caveat about the comparison; may be empty.
    """

    version: int
    predicted: Sequence[str] | None
    incomparable: str = ""
    warning: str = ""


def require_metrics(rules: Mapping[str, Rule], metrics: Mapping[str, float]) -> None:
    """Raises RegistryError if a metric that has a threshold was not measured."""
    for name, rule in rules.items():
        if isinstance(rule, Threshold) and name not in metrics:
            raise RegistryError(
                f"the gate has a threshold for {name}, which was not measured; "
                f"measured: {', '.join(sorted(metrics)) or 'none'}"
            )


def evaluate_rules(
    metrics: Mapping[str, float],
    labels: Sequence[str],
    predicted: Sequence[str],
    rules: Mapping[str, Rule],
    champion: ChampionPredictions | None = None,
) -> Verdict:
    """Returns the verdict on a candidate; applies all rules, even after a rule has failed.

    `labels` and `predicted` are class names (N,). In `rules`, thresholds are keyed by metrics such as `test/accuracy`.
    `champion` holds the champion's predictions for the same images, or is None if there is no champion.

    Raises:
        RegistryError: A metric was not measured, there are no images, or the numbers of predictions and images differ.
    """
    require_metrics(rules, metrics)
    _require_same_length(labels, predicted, "the candidate")
    return Verdict(
        tuple(
            _apply_threshold(rule.describe(name), rule, float(metrics[name]))
            if isinstance(rule, Threshold)
            else _compare(rule.describe(name), rule, labels, predicted, champion)
            for name, rule in rules.items()
        )
    )


def _apply_threshold(text: str, rule: Threshold, value: float) -> RuleResult:
    finite = math.isfinite(value)
    high_enough = rule.at_least is None or value >= rule.at_least
    low_enough = rule.at_most is None or value <= rule.at_most
    reason = f"{value:.4g}" if finite else f"{value} is not a finite number"
    figures = {"value": value if finite else None, "at_least": rule.at_least, "at_most": rule.at_most}
    return RuleResult(text, finite and high_enough and low_enough, True, reason, figures)


def _compare(
    text: str,
    rule: OverChampion | PerClassRecall,
    labels: Sequence[str],
    predicted: Sequence[str],
    champion: ChampionPredictions | None,
) -> RuleResult:
    if champion is None:
        return RuleResult(text, True, False, "there is no champion to compare with")
    if champion.predicted is None:
        reason = f"cannot be compared with the champion (version {champion.version}): {champion.incomparable}"
        return RuleResult(text, False, True, reason, {"champion": champion.version})
    _require_same_length(labels, champion.predicted, f"the champion (version {champion.version})")
    truth = np.asarray(labels)
    pairs = _PairedPredictions(
        champion.version, truth, np.asarray(predicted) == truth, np.asarray(champion.predicted) == truth
    )
    if isinstance(rule, OverChampion):
        result = _over_champion(text, rule, pairs)
    else:
        result = _per_class_recall(text, rule, pairs)
    return replace(result, reason=f"{result.reason}; {champion.warning}") if champion.warning else result


@dataclass(frozen=True)
class _PairedPredictions:
    """Test labels (N,) and, for each model, flags (N,) that are True for correctly classified images."""

    version: int
    labels: np.ndarray
    correct: np.ndarray
    champion_correct: np.ndarray

    def count(self, mask: np.ndarray | None = None) -> PairedResult:
        """Counts the images that exactly one model classifies correctly, among the images in `mask` (N,) if given."""
        selected = np.ones(len(self.labels), bool) if mask is None else mask
        better, worse = self.correct & ~self.champion_correct, ~self.correct & self.champion_correct
        return PairedResult(int(selected.sum()), int((better & selected).sum()), int((worse & selected).sum()))


def _over_champion(text: str, rule: OverChampion, pairs: _PairedPredictions) -> RuleResult:
    paired = pairs.count()
    p, alpha = significance.p_value(paired, rule.margin), 1 - rule.confidence
    low, high = significance.gain_interval(paired, rule.confidence)
    accuracy, champion_accuracy = float(pairs.correct.mean()), float(pairs.champion_correct.mean())
    figures: dict[str, Figure] = {
        "champion": pairs.version,
        "images": paired.images,
        "accuracy": accuracy,
        "champion_accuracy": champion_accuracy,
        "better": paired.better,
        "worse": paired.worse,
        "gain": paired.gain,
        "gain_low": low,
        "gain_high": high,
        "margin": rule.margin,
        "p": p,
    }
    passed = p <= alpha
    test = "score test" if rule.margin else "exact McNemar test"
    margin = f" for a gain above {_points(rule.margin)}" if rule.margin else ""
    parts = [
        f"accuracy {accuracy:.4f}, champion (version {pairs.version}) {champion_accuracy:.4f}, on "
        f"{paired.images} images; gain {_points(paired.gain)}, {100 * rule.confidence:.4g}% confidence interval "
        f"{_points(low)} to {_points(high)} (paired bootstrap)",
        f"discordant pairs: {paired.better} better, {paired.worse} worse",
        f"p = {p:.4g}{margin} ({test}; must be at most {alpha:.4g})",
    ]
    if not passed:
        conclusion, power_figures = _explain_failure(rule, paired)
        parts.append(conclusion)
        figures |= power_figures
    return RuleResult(text, passed, True, "; ".join(parts), figures)


def _explain_failure(rule: OverChampion, paired: PairedResult) -> tuple[str, dict[str, Figure]]:
    """Returns the conclusion (significantly worse or inconclusive), with power figures if the test is inconclusive."""
    reverse = PairedResult(paired.images, paired.worse, paired.better)
    if significance.p_value(reverse, -rule.margin) <= 1 - rule.confidence:
        return "significantly worse than required", {}
    # The observed rate is estimated from few images, and a gain requires a discordant rate of at least the same size.
    discordant = max(paired.discordant_rate, NOTABLE_GAIN, abs(rule.margin + NOTABLE_GAIN))
    effect = significance.TrueEffect(rule.margin + NOTABLE_GAIN, discordant, rule.margin)
    power = significance.power(paired.images, effect, rule.confidence)
    required = significance.required_images(effect, rule.confidence, POWER)
    conclusion = (
        f"inconclusive: the probability of detecting a true gain of {_points(effect.gain)} with {paired.images} images "
        f"is {power:.2f}; about {required} images are needed for a probability of {POWER:g}"
    )
    return conclusion, {"power": power, "images_needed": required}


def _per_class_recall(text: str, rule: PerClassRecall, pairs: _PairedPredictions) -> RuleResult:
    classes = sorted(set(pairs.labels.tolist()))
    counts = {name: pairs.count(pairs.labels == name) for name in classes}
    p_values = significance.holm_adjust(
        {name: significance.mcnemar(paired.worse, paired.better) for name, paired in counts.items()}
    )
    alpha = 1 - rule.confidence
    lost = [name for name in classes if p_values[name] <= alpha]
    worst = min(classes, key=p_values.__getitem__)
    # With fewer images per class, even misclassifying all of them would not be significant.
    fewest = math.ceil(-math.log2(alpha / len(classes)))
    too_few = [name for name, paired in counts.items() if paired.images < fewest and name not in lost]
    figures: dict[str, Figure] = {
        "champion": pairs.version,
        "classes": len(classes),
        "lost": ", ".join(lost),
        "worst": worst,
        "worst_gain": counts[worst].gain,
        "p": p_values[worst],
    }
    details = ", ".join(_describe_class(name, counts[name], p_values[name]) for name in lost or [worst])
    summary = "recall is significantly lower" if lost else "recall is not significantly lower in any class"
    reason = (
        f"{summary} than the champion's (version {pairs.version}); "
        f"{'' if lost else 'lowest p-value: '}{details} "
        f"(exact McNemar tests, Holm correction for {len(classes)} classes; "
        f"significant if p is at most {alpha:.4g})"
    )
    if too_few:
        reason += f"; classes with too few images to detect a loss (fewer than {fewest}): {', '.join(too_few)}"
    return RuleResult(text, not lost, True, reason, figures)


def _describe_class(name: str, paired: PairedResult, p: float) -> str:
    return (
        f"{name}: recall {_points(paired.gain)} on {paired.images} images, "
        f"{paired.better} better, {paired.worse} worse, p = {p:.4g}"
    )


def _points(difference: float) -> str:
    return f"{100 * difference:+.1f} points"


def _require_same_length(labels: Sequence[str], predicted: Sequence[str], model: str) -> None:
    if len(labels) == 0 or len(labels) != len(predicted):
        raise RegistryError(
            f"{model} has {len(predicted)} predictions for {len(labels)} test images; "
            "the gate needs at least one image, and exactly one prediction per image"
        )
