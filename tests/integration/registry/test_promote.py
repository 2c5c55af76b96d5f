"""Promotion of candidates with a real MLflow registry, a real ledger and small models."""

from __future__ import annotations

import contextlib
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import mlflow
import numpy as np
import pytest
from mlflow.tracking import MlflowClient

from transfer_registry.candidate import Candidate, Evaluation
from transfer_registry.errors import RegistryError
from transfer_registry.ledger import EntryKind, Ledger
from transfer_registry.mlflow_registry import champion_version, is_registered
from transfer_registry.promote import PromotionResult
from transfer_registry.rules import Threshold
from transfer_registry.version_files import load_predictions

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

pytestmark = [
    # MLflow's own: its tables on SQLAlchemy 2.1, and what it says to itself while it is imported
    pytest.mark.filterwarnings(
        "ignore:The ``noload`` loader strategy is deprecated:sqlalchemy.exc.SADeprecationWarning"
    ),
    pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType:UserWarning"),
]


def test_the_first_candidate_becomes_champion_and_mlflow_alone_tells_why(world) -> None:
    offered = world.candidate(wrong=4)
    promotion = world.promote(offered)
    assert (promotion.version, promotion.promoted, promotion.previous_champion) == (1, True, None)
    assert [result.rule for result in promotion.verdict.results] == [
        "serving parity",
        "test/accuracy >= 0.5",
        "over_champion at 0.95",
    ]
    assert world.champion() == 1
    assert [entry.kind for entry in world.ledger.entries()] == [EntryKind.VERDICT, EntryKind.PROMOTION]
    version = world.client.get_model_version("ants-bees", "1")
    assert version.tags["platform.verdict"] == "passed"
    assert version.tags["platform.test_fingerprint"] == "first-test-set"
    assert version.tags["platform.run"] == offered[0].run_id == version.run_id
    assert "**Made champion**" in version.description
    assert "there is no champion to compare with" in version.description
    assert world.loading.calls == ["models:/ants-bees/1"]


def test_better_by_more_than_chance_succeeds_and_the_ledger_knows_whom(world) -> None:
    world.promote(world.candidate(wrong=9))
    promotion = world.promote(world.candidate(wrong=2))
    assert (promotion.version, promotion.promoted, promotion.previous_champion) == (2, True, 1)
    assert promotion.verdict.results[-1].figures["better"] == 7
    assert world.champion() == 2
    last = world.ledger.last_move("ants-bees")
    assert last is not None
    assert (last.version, last.previous_version) == (2, 1)
    # the first champion's predictions were kept: its code did not have to run again
    assert world.loading.calls == ["models:/ants-bees/1", "models:/ants-bees/2"]


def test_better_by_chance_leaves_the_champion_and_says_why(world) -> None:
    world.promote(world.candidate(wrong=4))
    promotion = world.promote(world.candidate(wrong=1))
    assert not promotion.promoted
    assert world.champion() == 1
    version = world.client.get_model_version("ants-bees", "2")
    assert version.tags["platform.verdict"] == "failed"
    assert "discordant pairs: 3 better, 0 worse" in version.tags["platform.reasons"]
    assert "**Rejected by the gate**; version 1 remains champion" in version.description


def test_asked_again_nothing_is_added_and_no_model_is_loaded(world) -> None:
    champion, refused = world.candidate(wrong=4), world.candidate(wrong=3)
    answers = [world.promote(champion), world.promote(refused)]
    before, calls = world.state("ants-bees"), list(world.loading.calls)
    assert [world.promote(champion), world.promote(refused)] == answers
    assert world.state("ants-bees") == before
    assert world.loading.calls == calls


def test_other_rules_need_another_verdict(world) -> None:
    world.promote(world.candidate(wrong=4))
    refused = world.candidate(wrong=2)
    assert not world.promote(refused).promoted
    assert world.promote(refused, {"test/accuracy": Threshold(at_least=0.9)}).promoted
    assert world.champion() == 2
    assert len(world.client.search_model_versions("name = 'ants-bees'")) == 2


def test_a_registered_model_that_answers_otherwise_is_refused(world) -> None:
    candidate, evaluation = world.candidate(wrong=4)
    drifted = replace(evaluation, probabilities=evaluation.probabilities + np.float32(0.001))
    promotion = world.promote((candidate, drifted))
    assert not promotion.promoted
    assert [result.passed for result in promotion.verdict.results] == [False, True, True]
    assert world.champion() is None
    assert world.ledger.last_move("ants-bees") is None


def test_half_precision_is_compared_like_with_like(world) -> None:
    candidate, evaluation = world.candidate(wrong=4, precision="bfloat16")
    rounded = replace(evaluation, probabilities=evaluation.probabilities + np.float32(0.01))
    assert world.promote((candidate, rounded)).promoted


def test_on_another_test_set_the_champion_runs_again_once(world) -> None:
    world.promote(world.candidate(wrong=9))
    world.loading.calls.clear()
    # one photograph has been taken anew; the champion has never seen it
    (world.folder / "39.png").write_text("another image 39")
    answers = world.folder / "artifacts"
    for file in answers.rglob("answers.json"):
        known = json.loads(file.read_text())
        file.write_text(json.dumps({**known, "another image 39": known["image 39"]}))
    for wrong in (8, 7):
        candidate, evaluation = world.candidate(wrong=wrong)
        world.promote((candidate, replace(evaluation, fingerprint="second-test-set")))
    assert world.loading.calls == ["models:/ants-bees/2", "models:/ants-bees/1", "models:/ants-bees/3"]


def test_classes_in_another_order_are_matched_by_name(world) -> None:
    world.promote(world.candidate(wrong=9))
    promotion = world.promote(world.candidate(wrong=2, classes=("bees", "ants")))
    assert promotion.promoted
    assert promotion.verdict.results[-1].figures["champion_accuracy"] == pytest.approx(31 / 40)


def test_other_classes_cannot_be_compared(world) -> None:
    world.promote(world.candidate(wrong=9))
    promotion = world.promote(world.candidate(wrong=0, classes=("ants", "bees", "wasps")))
    assert not promotion.promoted
    assert "only in the champion: none; only in the candidate: wasps" in promotion.verdict.results[-1].reason


@pytest.mark.parametrize("described", [True, False])
def test_a_champion_that_never_went_through_the_gate_is_compared_if_it_names_its_classes(
    world, described: bool
) -> None:
    stray, _ = world.candidate(wrong=9, metadata={"classes": ["ants", "bees"]} if described else None)
    mlflow.register_model(stray.model_uri, "ants-bees")
    world.client.set_registered_model_alias("ants-bees", "champion", "1")
    promotion = world.promote(world.candidate(wrong=0))
    assert promotion.promoted is described
    result = promotion.verdict.results[-1]
    assert ("discordant pairs: 9 better, 0 worse" if described else "its metadata has no class names") in result.reason


def test_an_alias_moved_by_hand_is_not_moved_back(world) -> None:
    first, second = world.candidate(wrong=9), world.candidate(wrong=1)
    world.promote(first)
    world.promote(second)
    world.client.set_registered_model_alias("ants-bees", "champion", "1")
    world.promote(second)
    assert world.champion() == 1


def test_a_deleted_champion_does_not_stop_the_next(world) -> None:
    world.promote(world.candidate(wrong=4))
    world.client.delete_model_version("ants-bees", "1")
    promotion = world.promote(world.candidate(wrong=3))
    assert promotion.promoted
    assert promotion.previous_champion is None


def test_a_metric_that_was_not_measured_stops_before_anything_is_registered(world) -> None:
    with pytest.raises(RegistryError, match="test/f1, which was not measured; measured: test/accuracy"):
        world.promote(world.candidate(wrong=4), {"test/f1": Threshold(at_least=0.5)})
    assert world.client.search_registered_models() == []


def test_a_registry_that_refuses_is_an_error_for_a_person(world) -> None:
    candidate, evaluation = world.candidate(wrong=4)
    with pytest.raises(RegistryError, match="MLflow's registry at sqlite"):
        world.promote((replace(candidate, model_uri="models:/m-0123456789abcdef0123456789abcdef"), evaluation))


def test_an_evaluation_whose_sizes_differ_is_refused(world) -> None:
    evaluation = world.evaluation(wrong=1)
    with pytest.raises(RegistryError, match="39 labels"):
        replace(evaluation, labels=evaluation.labels[1:])
    with pytest.raises(RegistryError, match="'wasps' is not one of the classes"):
        replace(evaluation, labels=("wasps", *evaluation.labels[1:]))


class Killed(BaseException):
    """The process ended here."""


WRITES = [
    (MlflowClient, "create_registered_model"),
    (MlflowClient, "_create_model_version"),
    (MlflowClient, "set_logged_model_tags"),
    (MlflowClient, "log_artifact"),
    (Ledger, "append"),
    (Ledger, "append_move"),
    (MlflowClient, "set_registered_model_alias"),
    (MlflowClient, "update_model_version"),
    (MlflowClient, "set_model_version_tag"),
]


class Killer:
    """Ends the process right after its n-th write; counts the writes and names the one it ended after."""

    def __init__(self, after: int) -> None:
        self.after, self.writes, self.last = after, 0, ""

    def wrap(self, name: str, write: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **named: Any) -> Any:
            answer = write(*arguments, **named)
            self.writes += 1
            if self.writes == self.after:
                self.last = name
                raise Killed
            return answer

        return wrapped


def killed_after(writes: int, call: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> str | None:
    """Runs until so many writes were done; the name of the last one, or None where it ended before."""
    killer = Killer(writes)
    with monkeypatch.context() as patch:
        for owner, name in WRITES:
            patch.setattr(owner, name, killer.wrap(name, getattr(owner, name)))
        try:
            call()
        except Killed:
            return killer.last
    return None


@pytest.mark.parametrize("wrong", [1, 8], ids=["promoted", "refused"])
def test_killed_after_any_write_the_same_call_ends_the_same(world, monkeypatch: pytest.MonkeyPatch, wrong: int) -> None:
    champion, offered = world.candidate(wrong=9), world.candidate(wrong=wrong)
    world.predict = world.without_loading(champion[1], offered[1])

    def under(model: str, what: tuple[Candidate, Evaluation]) -> PromotionResult:
        return world.promote((replace(what[0], model=model), what[1]))

    under("undisturbed", champion)
    expected_answer = under("undisturbed", offered)
    expected = world.state("undisturbed")
    seen = []
    for writes in range(1, 100):
        model = f"killed-{writes}"
        under(model, champion)
        last = killed_after(writes, lambda model=model: under(model, offered), monkeypatch)
        answer = under(model, offered)
        verdict = replace(answer.verdict, evaluations=expected_answer.verdict.evaluations)
        assert replace(answer, verdict=verdict) == replace(expected_answer, model=model)
        assert world.state(model) == expected, f"killed after write {writes}, {last}"
        if last is None:
            break
        seen.append(last)
    everything = {name for _, name in WRITES} - {"create_registered_model"}
    moving = {"append_move", "set_registered_model_alias"}
    assert set(seen) == (everything if wrong == 1 else everything - moving)


def test_the_very_first_promotion_survives_being_killed_too(world, monkeypatch: pytest.MonkeyPatch) -> None:
    candidate, evaluation = world.candidate(wrong=4)
    world.predict = world.without_loading(evaluation)
    world.promote((replace(candidate, model="undisturbed"), evaluation))
    for writes in range(1, 15):
        offered = (replace(candidate, model=f"killed-{writes}"), evaluation)
        last = killed_after(writes, lambda offered=offered: world.promote(offered), monkeypatch)
        world.promote(offered)
        assert world.state(offered[0].model) == world.state("undisturbed")
        if last is None:
            break


def test_a_move_that_was_not_applied_is_applied_by_the_next_call(world, monkeypatch: pytest.MonkeyPatch) -> None:
    world.promote(world.candidate(wrong=16))
    second, third = world.candidate(wrong=8), world.candidate(wrong=1)

    def dies(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "set_registered_model_alias", dies)
        with pytest.raises(Killed):
            world.promote(second)
    assert world.champion() == 1
    assert world.ledger.last_move("ants-bees").version == 2
    promotion = world.promote(third)
    assert promotion.previous_champion == 2
    assert world.champion() == 3
    assert world.client.get_model_version("ants-bees", "2").tags["platform.verdict"] == "passed"


def test_a_verdict_whose_promotion_was_interrupted_is_repeated_against_a_new_champion(
    world, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.promote(world.candidate(wrong=16))
    second, third = world.candidate(wrong=8), world.candidate(wrong=1)

    def dies(*_: object, **__: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "append_move", dies)
        with pytest.raises(Killed):
            world.promote(second)
    world.promote(third)
    assert not world.promote(second).promoted
    assert world.champion() == 3


def test_stored_predictions_that_are_incomplete_are_not_loaded(world) -> None:
    world.promote(world.candidate(wrong=9))
    version = world.client.get_model_version("ants-bees", "1")
    (file,) = (world.folder / "artifacts").rglob("test-*.npz")
    predictions = load_predictions(world.client, version, "first-test-set")
    assert predictions is not None
    np.testing.assert_array_equal(predictions.probabilities, world.evaluation(wrong=9).probabilities)
    for length in (file.stat().st_size - 30, 40, 0):
        file.write_bytes(file.read_bytes()[:length])
        assert load_predictions(world.client, version, "first-test-set") is None


def test_a_model_that_was_deleted_and_registered_anew_is_judged_anew(world) -> None:
    assert world.promote(world.candidate(wrong=4)).promoted
    world.client.delete_registered_model("ants-bees")
    again = world.promote(world.candidate(wrong=30))
    assert again.version == 1
    assert not again.promoted
    assert "0.25" in str(again.verdict)
    assert world.champion() is None
    assert [entry.kind for entry in world.ledger.entries()] == [
        EntryKind.VERDICT,
        EntryKind.PROMOTION,
        EntryKind.VERDICT,
    ]


def test_other_served_files_of_the_same_trial_are_another_version(world) -> None:
    first, evaluation = world.candidate(wrong=4)
    assert world.promote((first, evaluation)).version == world.promote((first, evaluation)).version == 1
    other, _ = world.candidate(wrong=4)
    assert world.promote((replace(other, run_id=first.run_id, artifact_digest="other"), evaluation)).version == 2


def test_a_later_trial_of_the_same_run_is_judged_anew_too(world) -> None:
    first, evaluation = world.candidate(wrong=4)
    assert world.promote((first, evaluation)).promoted
    world.client.delete_registered_model("ants-bees")
    other, worse = world.candidate(wrong=30)
    again = world.promote((replace(other, run_id=first.run_id, trial=8), worse))
    assert (again.version, again.promoted) == (1, False)
    assert world.champion() is None


def test_a_ledger_that_outlived_its_registry_decides_nothing_for_the_next_one(
    world, new_registry: Callable[[str], Path]
) -> None:
    assert world.promote(world.candidate(wrong=4)).promoted
    new_registry("another")
    world.client = MlflowClient()
    again = world.promote(world.candidate(wrong=30))
    assert (again.version, again.promoted) == (1, False)
    assert world.champion() is None


def test_of_two_that_are_judged_at_once_the_second_is_compared_with_the_first(world) -> None:
    offered = [world.candidate(wrong=4), world.candidate(wrong=4)]
    begun, both = threading.Event(), threading.Barrier(2, timeout=0.5)

    def slowly(model_uri: str, images: Sequence[Path]) -> NDArray[np.float32]:
        begun.set()
        with contextlib.suppress(threading.BrokenBarrierError):
            both.wait()  # the other one gets here too, if nothing keeps it out
        return world.loading(model_uri, images)

    world.predict = slowly
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(world.promote, offered[0])
        begun.wait()
        second = pool.submit(world.promote, offered[1])
        answers = [first.result(), second.result()]
    assert [answer.promoted for answer in answers] == [True, False]
    assert answers[1].previous_champion == answers[0].version == world.champion()


def test_the_champion_is_read_from_the_alias(world) -> None:
    candidate, _ = offered = world.candidate(wrong=4)
    assert champion_version("ants-bees") is None
    world.promote(offered)
    assert champion_version("ants-bees") == 1
    assert is_registered("ants-bees", 1, candidate.run_id)
    assert not is_registered("ants-bees", 1, "another run")
    world.client.delete_registered_model_alias("ants-bees", "champion")
    assert champion_version("ants-bees") is None
    world.client.delete_registered_model("ants-bees")
    assert not is_registered("ants-bees", 1, candidate.run_id)


def test_a_version_that_was_succeeded_is_asked_whether_it_is_better(world) -> None:
    first, second = world.candidate(wrong=12), world.candidate(wrong=2)
    world.promote(first)
    assert world.promote(second).promoted
    again = world.promote(first)
    assert (again.version, again.previous_champion, again.promoted) == (1, 2, False)
    assert not again.verdict.passed
    assert world.champion() == 2
    assert world.promote(first).verdict == again.verdict
    assert len([entry for entry in world.ledger.entries("ants-bees") if entry.version == 1]) == 3
