from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import ValidationError

from transfer_registry.candidate import ServedOutput
from transfer_registry.errors import RegistryError
from transfer_registry.gate import ChampionPredictions, evaluate_rules
from transfer_registry.parity import parity
from transfer_registry.rules import OverChampion, PerClassRecall, Rule, Threshold
from transfer_registry.significance import mcnemar
from transfer_registry.verdict import RuleResult, Verdict


def outcomes(both: int, only_candidate: int, only_champion: int, neither: int = 0) -> tuple[list[str], ...]:
    """Labels, the candidate's and the champion's predictions with so many images of each kind."""
    candidate = ["ant"] * (both + only_candidate) + ["bee"] * (only_champion + neither)
    champion = ["ant"] * both + ["bee"] * only_candidate + ["ant"] * only_champion + ["bee"] * neither
    return ["ant"] * len(candidate), candidate, champion


def over_champion(both: int, only_candidate: int, only_champion: int, confidence: float = 0.95) -> RuleResult:
    labels, candidate, champion = outcomes(both, only_candidate, only_champion)
    verdict = evaluate_rules(
        {}, labels, candidate, {"over_champion": OverChampion(confidence=confidence)}, ChampionPredictions(3, champion)
    )
    return verdict.results[0]


@pytest.mark.parametrize(
    ("better", "worse", "p"),
    [
        (0, 0, 1.0),
        (1, 0, 1 / 2),
        (5, 0, 1 / 32),
        (3, 1, 5 / 16),  # (4 + 1) / 2^4
        (8, 2, 56 / 1024),  # (45 + 10 + 1) / 2^10
        (9, 1, 11 / 1024),  # (10 + 1) / 2^10
        (0, 4, 1.0),
    ],
)
def test_mcnemar_is_the_exact_binomial_tail(better: int, worse: int, p: float) -> None:
    assert mcnemar(better, worse) == pytest.approx(p, rel=1e-12)


def test_a_clearly_better_candidate_passes_with_its_figures() -> None:
    result = over_champion(both=140, only_candidate=9, only_champion=1)
    assert result.passed
    assert result.figures["p"] == pytest.approx(11 / 1024)
    assert (result.figures["better"], result.figures["worse"]) == (9, 1)
    assert result.figures["accuracy"] == pytest.approx(149 / 150)
    assert result.figures["champion_accuracy"] == pytest.approx(141 / 150)
    assert "discordant pairs: 9 better, 1 worse" in result.reason
    assert "p = 0.01074" in result.reason
    assert "accuracy 0.9933, champion (version 3) 0.9400" in result.reason


def test_eight_against_two_is_not_enough() -> None:
    result = over_champion(both=140, only_candidate=8, only_champion=2)
    assert not result.passed
    assert "inconclusive" in result.reason


def test_identical_predictions_fail_as_inconclusive() -> None:
    result = over_champion(both=150, only_candidate=0, only_champion=0)
    assert not result.passed
    assert result.figures["p"] == 1.0
    assert "inconclusive: the probability of detecting a true gain of +2.0 points with 150 images" in result.reason
    assert result.figures["images_needed"] > 150


def test_four_to_nothing_is_too_thin_and_five_is_not() -> None:
    assert "inconclusive" in over_champion(100, 4, 0).reason
    assert over_champion(100, 5, 0).passed


def test_a_candidate_that_is_worse_is_called_so() -> None:
    result = over_champion(both=140, only_candidate=1, only_champion=9)
    assert not result.passed
    assert "significantly worse than required" in result.reason


def test_a_negative_margin_lets_an_equal_candidate_pass_where_there_are_images_enough() -> None:
    labels, candidate, champion = outcomes(1980, 10, 10)
    rule = OverChampion(margin=-0.02)
    result = evaluate_rules({}, labels, candidate, {"over_champion": rule}, ChampionPredictions(3, champion)).results[0]
    assert result.passed
    assert result.rule == "over_champion by -0.02 at 0.95"
    assert "p = " in result.reason
    assert "for a gain above -2.0 points (score test" in result.reason
    labels, candidate, champion = outcomes(93, 3, 4)
    assert not evaluate_rules({}, labels, candidate, {"over_champion": rule}, ChampionPredictions(3, champion)).passed


def of_classes(**classes: tuple[int, int, int]) -> tuple[list[str], list[str], list[str]]:
    """Labels and predictions; for each class the images of `both`, `only_candidate`, `only_champion`."""
    labels, candidate, champion = [], [], []
    for name, (both, only_candidate, only_champion) in classes.items():
        labels += [name] * (both + only_candidate + only_champion)
        candidate += [name] * (both + only_candidate) + ["wrong"] * only_champion
        champion += [name] * both + ["wrong"] * only_candidate + [name] * only_champion
    return labels, candidate, champion


def per_class(**classes: tuple[int, int, int]) -> RuleResult:
    labels, candidate, champion = of_classes(**classes)
    rules = {"per_class_recall": PerClassRecall()}
    return evaluate_rules({}, labels, candidate, rules, ChampionPredictions(3, champion)).results[0]


def test_a_gain_that_costs_a_class_is_refused_and_the_class_is_named() -> None:
    classes = {"ant": (100, 40, 0), "bee": (100, 0, 0), "wasp": (30, 0, 10)}
    labels, candidate, champion = of_classes(**classes)
    rules = {"over_champion": OverChampion(), "per_class_recall": PerClassRecall()}
    verdict = evaluate_rules({}, labels, candidate, rules, ChampionPredictions(3, champion))
    assert [result.passed for result in verdict.results] == [True, False]
    assert "wasp: recall -25.0 points on 40 images" in verdict.results[1].reason
    assert verdict.results[1].figures["lost"] == "wasp"
    # 1 / 2^10, times three classes
    assert verdict.results[1].figures["p"] == pytest.approx(3 / 1024)


def test_a_loss_that_chance_explains_refuses_nobody() -> None:
    result = per_class(ant=(100, 4, 0), bee=(100, 0, 4))
    assert result.passed
    assert "lowest p-value: bee: recall -3.8 points" in result.reason


def test_a_class_with_too_few_images_is_named() -> None:
    result = per_class(ant=(100, 0, 0), bee=(0, 0, 5))
    assert result.passed
    assert result.reason.endswith("too few images to detect a loss (fewer than 6): bee")
    assert not per_class(ant=(100, 0, 0), bee=(0, 0, 6)).passed


@given(
    both=st.integers(0, 50),
    only_candidate=st.integers(0, 60),
    only_champion=st.integers(0, 60),
    confidence=st.floats(0.5, 0.9999, exclude_min=True),
)
@settings(max_examples=40)
def test_two_models_are_never_each_better_than_the_other(
    both: int, only_candidate: int, only_champion: int, confidence: float
) -> None:
    labels, first, second = outcomes(both + 1, only_candidate, only_champion)
    rules = {"over_champion": OverChampion(confidence=confidence)}
    assert not (
        evaluate_rules({}, labels, first, rules, ChampionPredictions(1, second)).passed
        and evaluate_rules({}, labels, second, rules, ChampionPredictions(1, first)).passed
    )


@given(st.integers(0, 100), st.integers(0, 100))
def test_a_wrong_image_more_is_never_evidence_for_the_candidate(better: int, worse: int) -> None:
    assert mcnemar(better, worse + 1) >= mcnemar(better, worse)


def test_without_a_champion_the_relative_rule_does_not_apply() -> None:
    result = evaluate_rules({}, ["ant"], ["bee"], {"over_champion": OverChampion()}).results[0]
    assert result.passed
    assert not result.applicable
    assert "no champion" in result.reason
    assert str(result).startswith("n/a")


def test_a_champion_that_cannot_be_compared_fails_the_rule() -> None:
    verdict = evaluate_rules(
        {}, ["ant"], ["ant"], {"over_champion": OverChampion()}, ChampionPredictions(4, None, "their classes differ")
    )
    assert not verdict.passed
    assert "(version 4): their classes differ" in verdict.results[0].reason


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("rule", [Threshold(at_least=-1e9), Threshold(at_most=1e9)])
def test_a_metric_that_is_no_number_never_passes(rule: Threshold, value: float) -> None:
    verdict = evaluate_rules({"m": value}, ["ant"], ["ant"], {"m": rule})
    assert not verdict.passed
    assert Verdict.from_json(verdict.to_json()) == verdict


@pytest.mark.parametrize(
    ("rule", "passed"),
    [
        (Threshold(at_least=0.9), True),
        (Threshold(at_least=0.9001), False),
        (Threshold(at_most=0.9), True),
        (Threshold(at_most=0.8999), False),
        (Threshold(at_least=0.5, at_most=0.95), True),
        (Threshold(at_least=0.95, at_most=0.99), False),
    ],
)
def test_a_limit_itself_passes(rule: Threshold, passed: bool) -> None:
    assert evaluate_rules({"m": 0.9}, ["ant"], ["ant"], {"m": rule}).passed is passed


def test_a_rule_on_a_metric_that_was_not_measured_lists_those_that_were() -> None:
    with pytest.raises(RegistryError, match="test/acc, which was not measured; measured: test/accuracy, test/ece"):
        evaluate_rules({"test/ece": 0.1, "test/accuracy": 1.0}, ["ant"], ["ant"], {"test/acc": Threshold(at_least=0.9)})


def test_every_rule_is_applied_even_after_one_has_failed() -> None:
    rules = {"a": Threshold(at_least=1), "b": Threshold(at_most=1), "over_champion": OverChampion(confidence=0.9)}
    verdict = evaluate_rules({"a": 0.0, "b": 0.0}, ["ant"], ["ant"], rules)
    assert [result.passed for result in verdict.results] == [False, True, True]
    assert not verdict.passed
    assert verdict.reasons == ("a >= 1: 0",)
    assert len(str(verdict).splitlines()) == 3


def test_the_json_has_all_figures() -> None:
    labels, candidate, champion = outcomes(140, 9, 1)
    rules = {"test/accuracy": Threshold(at_least=0.9), "over_champion": OverChampion()}
    verdict = evaluate_rules({"test/accuracy": 0.99}, labels, candidate, rules, ChampionPredictions(3, champion))
    content = json.loads(verdict.to_json())
    assert content["passed"] is True
    assert content["results"][1]["figures"]["better"] == 9
    assert Verdict.from_json(verdict.to_json()) == verdict


@pytest.mark.parametrize(
    ("rule", "settings", "message"),
    [
        (Threshold, {}, "a threshold requires at_least, at_most or both"),
        (Threshold, {"atleast": 1.0}, "atleast\n  Extra inputs are not permitted"),
        (OverChampion, {"at_least": 1.0}, "at_least\n  Extra inputs are not permitted"),
        (OverChampion, {"confidence": 95}, "confidence\n  Input should be less than 1"),
        (OverChampion, {"confidence": 0.3}, "confidence\n  Input should be greater than 0.5"),
        (OverChampion, {"confidence": 0.5}, "confidence\n  Input should be greater than 0.5"),
        (PerClassRecall, {"confidence": 0.5}, "confidence\n  Input should be greater than 0.5"),
        (OverChampion, {"confidence": math.nan}, "confidence\n  Input should be a finite number"),
        (OverChampion, {"margin": -2}, "margin\n  Input should be greater than -1"),
        (PerClassRecall, {"no_significant_regression": False}, "Input should be True"),
    ],
)
def test_invalid_rules_are_errors(rule: type[Rule], settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        rule.model_validate(settings)


@pytest.mark.parametrize("predicted", [[], ["ant", "bee"]])
def test_a_prediction_for_every_image_is_needed(predicted: list[str]) -> None:
    with pytest.raises(RegistryError, match="1 test images"):
        evaluate_rules({}, ["ant"], predicted, {})
    with pytest.raises(RegistryError, match=r"the champion \(version 2\)"):
        evaluate_rules({}, ["ant"], ["ant"], {"over_champion": OverChampion()}, ChampionPredictions(2, predicted))


OWN = np.array([[0.9, 0.1], [0.51, 0.49], [0.3, 0.7]], dtype=np.float32)
OOD_SCORES = np.array([0.1, 0.2, 0.8], dtype=np.float32)


def output(
    probabilities: NDArray[np.float32],
    ood_scores: NDArray[np.float32] | None = None,
    unknown: tuple[bool | None, ...] = (None, None, None),
) -> ServedOutput:
    return ServedOutput(probabilities, np.full(3, np.nan, np.float32) if ood_scores is None else ood_scores, unknown)


@pytest.mark.parametrize(
    ("shift", "precision", "passed"),
    [
        (0.0, "float32", True),
        (5e-5, "float32", True),
        (2e-4, "float32", False),
        (0.015, "bfloat16", True),  # changes the second label, whose classes were only 0.02 apart
        (0.015, "float16", True),
        (0.03, "bfloat16", False),
        (math.nan, "float32", False),
        (math.nan, "bfloat16", False),
    ],
)
def test_parity_allows_what_the_precision_explains(shift: float, precision: str, passed: bool) -> None:
    served = OWN + np.array([-shift, shift], dtype=np.float32)
    finding = parity(output(OWN), output(served), precision)
    assert finding.passed is passed
    json.dumps(dict(finding.figures), allow_nan=False)


def test_the_reason_counts_identical_images_and_names_the_largest_differences() -> None:
    assert parity(output(OWN), output(OWN)).reason == "3 of 3 images identical"
    served = OWN.copy()
    served[0] += np.array([-5e-5, 5e-5], dtype=np.float32)
    assert parity(output(OWN), output(served)).reason == (
        "2 of 3 images identical; largest differences: probability 5e-05 (allowed in float32: 0.0001)"
    )
    unknown = parity(output(OWN, OOD_SCORES, (False, False, True)), output(OWN, OOD_SCORES, (False, True, True)))
    assert unknown.reason == "2 of 3 images identical; the `unknown` flags are not consistent with a single threshold"


def test_parity_names_clear_labels_that_changed() -> None:
    finding = parity(output(OWN), output(OWN[:, ::-1]), "bfloat16")
    assert finding.figures["clear_labels_changed"] == 2
    assert "labels that changed despite a clear margin: 2" in finding.reason


def test_parity_of_other_shapes_fails_and_of_an_unknown_precision_is_an_error() -> None:
    assert "returned probabilities of shape (3, 1), expected (3, 2)" in parity(output(OWN), output(OWN[:, :1])).reason
    with pytest.raises(RegistryError, match="int8"):
        parity(output(OWN), output(OWN), "int8")


@pytest.mark.parametrize(
    ("ood_score", "unknown", "passed"),
    [
        (OOD_SCORES, (False, False, True), True),
        (OOD_SCORES + np.float32(5e-5), (False, False, True), True),
        (OOD_SCORES + np.float32(2e-4), (False, False, True), False),
        (OOD_SCORES, (False, True, True), False),  # another threshold
        (OOD_SCORES, (None, None, None), False),
        (OOD_SCORES * np.float32(math.nan), (False, False, True), False),
    ],
)
def test_parity_is_asked_of_the_unknown_too(
    ood_score: NDArray[np.float32], unknown: tuple[bool | None, ...], passed: bool
) -> None:
    own = output(OWN, OOD_SCORES, (False, False, True))
    finding = parity(own, output(OWN, ood_score, unknown))
    assert finding.passed is passed
    assert "difference_of_ood_score" in finding.figures
    assert ("out-of-distribution score" in finding.reason) is bool((ood_score != OOD_SCORES).any())
    json.dumps(dict(finding.figures), allow_nan=False)


def test_different_rules_have_different_texts() -> None:
    assert Threshold(at_least=0.9).describe("test/accuracy") == "test/accuracy >= 0.9"
    assert Threshold(at_least=0.9, at_most=1).describe("m") == "m >= 0.9 and <= 1"
    assert Threshold(at_least=0.9).describe("m") != Threshold(at_least=0.9000001).describe("m")
    assert OverChampion(margin=-0.02).describe("over_champion") == "over_champion by -0.02 at 0.95"
    assert OverChampion(margin=1e-9).describe("m") != OverChampion(margin=2e-9).describe("m")
    assert PerClassRecall(confidence=0.95).describe("m") != PerClassRecall(confidence=0.9500001).describe("m")


@pytest.mark.parametrize(
    ("evaluations", "ordinal"), [(2, "2nd"), (3, "3rd"), (4, "4th"), (11, "11th"), (21, "21st"), (112, "112th")]
)
def test_repeated_verdicts_on_a_test_set_carry_a_warning(evaluations: int, ordinal: str) -> None:
    assert Verdict((), 1).reuse_warning == ""
    assert str(Verdict((), evaluations)).strip() == (
        f"{ordinal} evaluation on this test set; reuse raises the risk of a false promotion"
    )
