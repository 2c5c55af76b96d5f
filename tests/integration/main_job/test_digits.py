"""The embedded digits: no photographs, no network, and a gate that also says no."""

from __future__ import annotations

import re

import pytest
from mlflow import MlflowClient

SMALL = ("training.epochs=1", "backbone.freeze_through=all", "dataset.image_size=32", "dataset.splits.test=0.1")
QUICK = tuple(word for change in SMALL for word in ("-o", change))


@pytest.fixture(scope="module")
def refused(workplaces):
    """A folder in which a run by the recipe's name asked for more than one epoch can give."""
    place = workplaces("digits")
    out, _ = place.run("platform", "run", "digits", *QUICK, "-o", "promotion.gate={test/accuracy: {at_least: 0.9999}}")
    return place, out


def test_a_failed_gate_registers_and_explains_but_moves_nothing(refused) -> None:
    place, out = refused
    assert re.search(r"^failed +test/accuracy >= 0.9999: 0\.\d+", out, re.MULTILINE)
    assert "digits version 1 is registered, but did not become champion" in out
    client = MlflowClient(tracking_uri=f"sqlite:///{place.folder}/mlflow.db")
    assert client.get_registered_model("digits").aliases == {}
    tags = client.get_model_version("digits", "1").tags
    assert tags["platform.verdict"] == "failed"


def test_other_rules_are_asked_of_the_same_version(refused) -> None:
    place, _ = refused
    rules = "{test/accuracy: {at_least: 0.5}, served/latency_ms: {at_most: 60000}, served/size_mb: {at_most: 50}}"
    out, err = place.run("platform", "run", "digits", *QUICK, "-o", f"promotion.gate={rules}")
    assert "digits version 1 is champion" in out
    assert re.search(r"^passed +served/latency_ms <= 60000: \d", out, re.MULTILINE)
    assert re.search(r"^passed +served/size_mb <= 50: 1\d", out, re.MULTILINE)
    assert "all trials have finished" in err


def test_another_seed_meets_the_champion(refused) -> None:
    place, _ = refused
    out, _ = place.run(
        "platform", "run", "digits", *QUICK, "-o", "seed=1", "-o", "promotion.gate={over_champion: {confidence: 0.95}}"
    )
    assert re.search(r"over_champion at 0.95: .*p = ", out)
    assert re.search(r"digits version 2 is ", out)


def test_a_model_that_is_searched_in_python(isolated) -> None:
    import transfer_platform

    overrides = [*SMALL, "promotion=null"]
    outcome = transfer_platform.run("digits", overrides=overrides)
    assert outcome.verdict is None
    assert outcome.metrics["test/accuracy"] > 0.5
    outcome.study.close()
    crops = transfer_platform.run("digits", overrides=[*overrides, "evaluation.crops=10"])
    crops.study.close()
    assert crops.run_id == outcome.run_id  # trained once
    assert crops.metrics["test/accuracy_10_crops"] > 0.5
    assert crops.metrics["test/loss_10_crops"] != crops.metrics["test/loss"] == outcome.metrics["test/loss"]
    assert outcome.network.spec.classes == 10
    assert [trial.state for trial in outcome.study.trials] == ["COMPLETE"]
    outcome.study.close()
