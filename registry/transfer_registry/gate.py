"""The gate: metrics and predictions in, a verdict with every rule, its figures and its reason out.

Pure functions. Nothing here reads a file, a database or the registry, so a verdict can be computed again
from what the ledger and the run have kept.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from transfer_registry import significance
from transfer_registry.errors import RegistryError
from transfer_registry.rules import OverChampion, PerClassRecall, Threshold
from transfer_registry.significance import PairedResult
from transfer_registry.verdict import Figure, RuleResult, Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from transfer_registry.rules import Rule

NOTABLE_GAIN = 0.02
"""A gain in accuracy that most would want to see; what a test set can show is told by it."""
POWER = 0.8
"""The chance of seeing it that is usually asked of a test."""


@dataclass(frozen=True)
class ChampionPredictions:
    """Today's champion on the candidate's test images.

    Attributes:
        version: Its version of the registered model.
        predicted: The label it gives each image, by name, in the order of the candidate's labels (N).
            None where the two cannot be compared.
        incomparable: Why they cannot; empty where they can.
        caution: What a comparison has to be read with; empty where there is nothing.
    """

    version: int
    predicted: Sequence[str] | None
    incomparable: str = ""
    warning: str = ""


def require_metrics(rules: Sequence[Rule], metrics: Mapping[str, float]) -> None:
    """Makes sure that every rule has something to judge.

    Raises:
        RegistryError: A rule names a metric that was not measured; the message lists those that were.
    """
    for rule in rules:
        if isinstance(rule, Threshold) and rule.metric not in metrics:
            raise RegistryError(
                f"the gate has a rule on {rule.metric}, which was not measured; "
                f"there is {', '.join(sorted(metrics)) or 'no metric at all'}"
            )


def evaluate_rules(
    metrics: Mapping[str, float],
    labels: Sequence[str],
    predicted: Sequence[str],
    rules: Sequence[Rule],
    champion: ChampionPredictions | None = None,
) -> Verdict:
    """Applies every rule to a candidate; none is skipped because another has failed.

    Args:
        metrics: The candidate's, by name (`test/accuracy`).
        labels: The true class of each test image, by name (N).
        predicted: The candidate's class for each, in the same order (N).
        rules: In the order in which their findings are wanted.
        champion: Today's, on the same images; None where there is none.

    Raises:
        RegistryError: A rule names a metric that does not exist, or the numbers of images differ.
    """
    require_metrics(rules, metrics)
    _same_length(labels, predicted, "the candidate")
    return Verdict(
        tuple(
            _threshold(rule, metrics)
            if isinstance(rule, Threshold)
            else _relative(rule, labels, predicted, champion)
            for rule in rules
        )
    )


def _threshold(rule: Threshold, metrics: Mapping[str, float]) -> RuleResult:
    value = float(metrics[rule.metric])
    finite = math.isfinite(value)
    passed = (
        finite
        and (rule.at_least is None or value >= rule.at_least)
        and (rule.at_most is None or value <= rule.at_most)
    )
    reason = f"{value:.4g}" if finite else f"{value}, which is not a number that could pass"
    figures = {"value": value if finite else None, "at_least": rule.at_least, "at_most": rule.at_most}
    return RuleResult(str(rule), passed, True, reason, figures)


def _relative(
    rule: OverChampion | PerClassRecall,
    labels: Sequence[str],
    predicted: Sequence[str],
    champion: ChampionPredictions | None,
) -> RuleResult:
    if champion is None:
        return RuleResult(str(rule), True, False, "there is no champion yet to compare with")
    if champion.predicted is None:
        reason = f"cannot be compared with the champion, version {champion.version}: {champion.incomparable}"
        return RuleResult(str(rule), False, True, reason, {"champion": champion.version})
    _same_length(labels, champion.predicted, f"the champion, version {champion.version}")
    truth = np.asarray(labels)
    both = _Both(
        champion.version, truth, np.asarray(predicted) == truth, np.asarray(champion.predicted) == truth
    )
    found = _over_champion(rule, both) if isinstance(rule, OverChampion) else _per_class(rule, both)
    return replace(found, reason=f"{found.reason}; {champion.warning}") if champion.warning else found


@dataclass(frozen=True)
class _Both:
    """Candidate and champion on the same images (N)."""

    version: int
    labels: np.ndarray
    right: np.ndarray
    champion_right: np.ndarray

    def paired(self, among: np.ndarray | None = None) -> PairedResult:
        """How the two did, on all images or among some of them."""
        chosen = np.ones(len(self.labels), bool) if among is None else among
        better, worse = self.right & ~self.champion_right, ~self.right & self.champion_right
        return PairedResult(int(chosen.sum()), int((better & chosen).sum()), int((worse & chosen).sum()))


def _over_champion(rule: OverChampion, both: _Both) -> RuleResult:
    paired = both.paired()
    chance, allowed = significance.p_value(paired, rule.margin), 1 - rule.confidence
    low, high = significance.gain_interval(paired, rule.confidence)
    figures: dict[str, Figure] = {
        "champion": both.version,
        "images": paired.images,
        "accuracy": float(both.right.mean()),
        "champion_accuracy": float(both.champion_right.mean()),
        "better": paired.better,
        "worse": paired.worse,
        "gain": paired.gain,
        "gain_low": low,
        "gain_high": high,
        "margin": rule.margin,
        "p": chance,
    }
    passed = chance <= allowed
    test = "score test" if rule.margin else "exact McNemar test"
    margin = f" of more than {_points(rule.margin)}" if rule.margin else ""
    parts = [
        f"accuracy {both.right.mean():.4f} against {both.champion_right.mean():.4f} of the champion, "
        f"version {both.version}, on {paired.images} images: a gain of {_points(paired.gain)}, "
        f"{rule.confidence:.4g} interval {_points(low)} to {_points(high)} (paired bootstrap)",
        f"right where the other is wrong: b = {paired.better} against c = {paired.worse}, "
        f"p = {chance:.4g} for a gain{margin} ({test}; {allowed:.4g} or less is needed)",
    ]
    if not passed:
        conclusion, more = _not_shown(rule, paired)
        parts.append(conclusion)
        figures |= more
    return RuleResult(str(rule), passed, True, "; ".join(parts), figures)


def _not_shown(rule: OverChampion, paired: PairedResult) -> tuple[str, dict[str, Figure]]:
    """Why a candidate does not pass: it is worse, or the images are too few to tell."""
    if (
        significance.p_value(PairedResult(paired.images, paired.worse, paired.better), -rule.margin)
        <= 1 - rule.confidence
    ):
        return "it is worse than asked for, by more than chance", {}
    # What is seen is a share of few images; but no gain comes without images that tell the two apart.
    discordant = max(paired.discordant_rate, NOTABLE_GAIN, abs(rule.margin + NOTABLE_GAIN))
    true = significance.TrueEffect(rule.margin + NOTABLE_GAIN, discordant, rule.margin)
    chance = significance.power(paired.images, true, rule.confidence)
    needed = significance.required_images(true, rule.confidence, POWER)
    enough = (
        f"nothing can be concluded: on {paired.images} images a true gain of {_points(true.gain)} is seen "
        f"with probability {chance:.2f}; for {POWER:g} about {needed} images are needed"
    )
    return enough, {"power": chance, "images_needed": needed}


def _per_class(rule: PerClassRecall, both: _Both) -> RuleResult:
    classes = sorted(set(both.labels.tolist()))
    outcomes = {name: both.paired(both.labels == name) for name in classes}
    chances = significance.holm_adjust(
        {name: significance.mcnemar(paired.worse, paired.better) for name, paired in outcomes.items()}
    )
    allowed = 1 - rule.confidence
    lost = [name for name in classes if chances[name] <= allowed]
    worst = min(classes, key=chances.__getitem__)
    # With fewer images than this of a class, not even the loss of all of them is evidence.
    fewest = math.ceil(-math.log2(allowed / len(classes)))
    silent = [name for name, paired in outcomes.items() if paired.images < fewest and name not in lost]
    figures: dict[str, Figure] = {
        "champion": both.version,
        "classes": len(classes),
        "lost": ", ".join(lost),
        "worst": worst,
        "worst_gain": outcomes[worst].gain,
        "p": chances[worst],
    }
    told = [
        f"{name}: {_points(outcomes[name].gain)} in recall on {outcomes[name].images} images, "
        f"b = {outcomes[name].better} against c = {outcomes[name].worse}, p = {chances[name]:.4g}"
        for name in lost or [worst]
    ]
    reason = (
        f"{'' if lost else 'no class is '}recognised worse than by the champion, version {both.version}, "
        f"by more than chance; {'' if lost else 'nearest to it '}{'; '.join(told)} "
        f"(exact McNemar tests, Holm over {len(classes)} classes; {allowed:.4g} or less is evidence)"
    )
    if silent:
        reason += f"; too few images to tell, under {fewest}: {', '.join(silent)}"
    return RuleResult(str(rule), not lost, True, reason, figures)


def _points(share: float) -> str:
    """A difference of accuracies in percentage points."""
    return f"{100 * share:+.1f} points"


def _same_length(labels: Sequence[str], predicted: Sequence[str], whose: str) -> None:
    if len(labels) == 0 or len(labels) != len(predicted):
        raise RegistryError(
            f"{whose} has {len(predicted)} predictions for {len(labels)} test images; "
            "the gate needs one for each of at least one image"
        )
