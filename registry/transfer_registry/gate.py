"""The gate: metrics and predictions in, a verdict with every rule, its figures and its reason out.

Pure functions. Nothing here reads a file, a database or the registry, so a verdict can be computed again
from what the ledger and the run have kept.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from transfer_platform.errors import RegistryError
from transfer_registry.verdict import Finding, Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True)
class Threshold:
    """An absolute rule on one metric.

    Attributes:
        metric: Its name, such as `test/accuracy`.
        at_least: The smallest value that passes.
        at_most: The largest value that passes.
    """

    metric: str
    at_least: float | None = None
    at_most: float | None = None

    def __post_init__(self) -> None:
        if self.at_least is None and self.at_most is None:
            raise RegistryError(f"the rule on {self.metric} has no limit: give it at_least or at_most")

    def __str__(self) -> str:
        lower = [] if self.at_least is None else [f">= {self.at_least:g}"]
        upper = [] if self.at_most is None else [f"<= {self.at_most:g}"]
        return f"{self.metric} {' and '.join(lower + upper)}"


@dataclass(frozen=True)
class OverChampion:
    """The candidate must be better than the champion by more than chance.

    Attributes:
        confidence: 1 - the probability with which an equal candidate is let through; from 0.5 to below 1.
            Under one half, two models could each be "better" than the other.
    """

    confidence: float = 0.95

    def __post_init__(self) -> None:
        if not 0.5 <= self.confidence < 1:
            raise RegistryError(
                f"over_champion.confidence is {self.confidence}, but 0.5 <= confidence < 1 must hold "
                "(0.95 is usual)"
            )

    def __str__(self) -> str:
        return f"over_champion at {self.confidence:g}"


Rule = Threshold | OverChampion


@dataclass(frozen=True)
class Champion:
    """Today's champion on the candidate's test images.

    Attributes:
        version: Its version of the registered model.
        predicted: The label it gives each image, by name, in the order of the candidate's labels (N).
            None where the two cannot be compared.
        incomparable: Why they cannot; empty where they can.
    """

    version: int
    predicted: Sequence[str] | None
    incomparable: str = ""


def read_rules(gate: Mapping[str, Mapping[str, float]]) -> tuple[Rule, ...]:
    """The rules of a recipe's `promotion.gate`.

    Args:
        gate: `{"test/accuracy": {"at_least": 0.9}, "over_champion": {"confidence": 0.95}}`.

    Raises:
        RegistryError: A rule has a limit that does not exist, none at all, or one out of range.
    """
    return tuple(_read_rule(name, limits) for name, limits in gate.items())


def _read_rule(name: str, limits: Mapping[str, float]) -> Rule:
    allowed = {"confidence"} if name == "over_champion" else {"at_least", "at_most"}
    if unknown := sorted(set(limits) - allowed):
        known = " and ".join(sorted(allowed))
        raise RegistryError(f"the gate rule {name} has no setting {unknown[0]!r}; it has {known}")
    return OverChampion(**limits) if name == "over_champion" else Threshold(name, **limits)


def check(rules: Sequence[Rule], metrics: Mapping[str, float]) -> None:
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


def judge(
    metrics: Mapping[str, float],
    labels: Sequence[str],
    predicted: Sequence[str],
    rules: Sequence[Rule],
    champion: Champion | None = None,
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
    check(rules, metrics)
    _same_length(labels, predicted, "the candidate")
    return Verdict(
        tuple(
            _threshold(rule, metrics)
            if isinstance(rule, Threshold)
            else _over_champion(rule, labels, predicted, champion)
            for rule in rules
        )
    )


def mcnemar(better: int, worse: int) -> float:
    """One-sided exact McNemar test: the chance of at least `better` heads in `better + worse` fair tosses.

    Only the images on which exactly one of two models is right say anything about which is better; were the
    models equal, each of those images would fall to either with probability 1/2.

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


def _threshold(rule: Threshold, metrics: Mapping[str, float]) -> Finding:
    value = float(metrics[rule.metric])
    finite = math.isfinite(value)
    passed = (
        finite
        and (rule.at_least is None or value >= rule.at_least)
        and (rule.at_most is None or value <= rule.at_most)
    )
    reason = f"{value:.4g}" if finite else f"{value}, which is not a number that could pass"
    figures = {"value": value if finite else None, "at_least": rule.at_least, "at_most": rule.at_most}
    return Finding(str(rule), passed, True, reason, figures)


def _over_champion(
    rule: OverChampion, labels: Sequence[str], predicted: Sequence[str], champion: Champion | None
) -> Finding:
    if champion is None:
        return Finding(str(rule), True, False, "there is no champion yet to compare with")
    if champion.predicted is None:
        reason = f"cannot be compared with the champion, version {champion.version}: {champion.incomparable}"
        return Finding(str(rule), False, True, reason, {"champion": champion.version})
    _same_length(labels, champion.predicted, f"the champion, version {champion.version}")
    right = np.asarray(predicted) == np.asarray(labels)
    champion_right = np.asarray(champion.predicted) == np.asarray(labels)
    figures: dict[str, float | int] = {
        "champion": champion.version,
        "images": len(labels),
        "accuracy": float(right.mean()),
        "champion_accuracy": float(champion_right.mean()),
        "better": int((right & ~champion_right).sum()),
        "worse": int((~right & champion_right).sum()),
        "fewest_discordant": _fewest_discordant(rule.confidence),
    }
    figures["p"] = mcnemar(int(figures["better"]), int(figures["worse"]))
    passed = figures["p"] <= 1 - rule.confidence
    return Finding(str(rule), passed, True, _comparison(figures, rule.confidence), figures)


def _comparison(figures: Mapping[str, float | int], confidence: float) -> str:
    discordant = int(figures["better"] + figures["worse"])
    too_thin = (
        f"; too little evidence whatever the outcome: {discordant} images tell the two apart, "
        f"at least {figures['fewest_discordant']} are needed"
    )
    return (
        f"accuracy {figures['accuracy']:.4f} against {figures['champion_accuracy']:.4f} of the champion, "
        f"version {figures['champion']}, on {figures['images']} images; right where the other is wrong: "
        f"b = {figures['better']} against c = {figures['worse']}, "
        f"p = {figures['p']:.4g} (McNemar; {1 - confidence:.4g} or less is needed)"
        f"{too_thin if discordant < figures['fewest_discordant'] else ''}"
    )


def _fewest_discordant(confidence: float) -> int:
    """The fewest images telling two models apart that could convince, all of them for the candidate."""
    return next(count for count in itertools.count(1) if 0.5**count <= 1 - confidence)


def _same_length(labels: Sequence[str], predicted: Sequence[str], whose: str) -> None:
    if len(labels) == 0 or len(labels) != len(predicted):
        raise RegistryError(
            f"{whose} has {len(predicted)} predictions for {len(labels)} test images; "
            "the gate needs one for each of at least one image"
        )
