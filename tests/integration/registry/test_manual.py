"""Rollback, manual promotion, audit, and the commands that show them."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import replace

import mlflow
import pytest
from click.testing import CliRunner
from mlflow.tracking import MlflowClient

from transfer_platform.cli import main
from transfer_registry import overview
from transfer_registry.audit import verify
from transfer_registry.errors import ChampionMovedError, RegistryError
from transfer_registry.ledger import EntryKind, Ledger, LedgerEntry
from transfer_registry.manual import promote_version, roll_back
from transfer_registry.rules import OverChampion

RULES = {"over_champion": OverChampion()}

pytestmark = [
    pytest.mark.filterwarnings(
        "ignore:The ``noload`` loader strategy is deprecated:sqlalchemy.exc.SADeprecationWarning"
    ),
    pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType:UserWarning"),
]


@pytest.fixture
def decided(world):
    """Version 1 was champion, 2 succeeded it, 3 succeeded that, 4 was refused."""
    first, evaluation = world.candidate(wrong=30)
    evaluations = [evaluation, *(world.evaluation(wrong) for wrong in (20, 10, 9))]
    world.predict = world.without_loading(*evaluations)
    for evaluation in evaluations:
        run = world.client.create_run(mlflow.get_experiment_by_name("tests").experiment_id)
        world.promote((replace(first, run_id=run.info.run_id), evaluation), RULES)
    assert world.champion() == 3
    world.predict = world.loading
    return world


def test_a_rollback_restores_the_previous_champion_and_says_so_everywhere(decided) -> None:
    move = roll_back("ants-bees", decided.ledger, "it confuses wasps")
    assert (move.kind, move.version, move.previous_version) == (EntryKind.ROLLBACK, 2, 3)
    assert decided.champion() == decided.ledger.last_move("ants-bees").version == 2
    version = decided.client.get_model_version("ants-bees", "2")
    assert version.tags["platform.ledger_entry"] == str(move.id)
    assert "**Champion again**" in version.description
    assert "rolled back from version 3: it confuses wasps" in version.description
    assert verify(decided.ledger) == ()


def test_a_second_rollback_goes_back_further_and_the_first_champion_has_none_before_it(decided) -> None:
    roll_back("ants-bees", decided.ledger)
    roll_back("ants-bees", decided.ledger)
    assert decided.champion() == 1
    with pytest.raises(RegistryError, match="version 1 is the first champion"):
        roll_back("ants-bees", decided.ledger)
    with pytest.raises(RegistryError, match="the ledger contains no promotion of wasps"):
        roll_back("wasps", decided.ledger)


def test_a_rollback_to_a_version_that_was_deleted_names_those_that_are_there(decided) -> None:
    decided.client.delete_model_version("ants-bees", "2")
    with pytest.raises(RegistryError, match="no version 2; available versions: 1, 3, 4"):
        roll_back("ants-bees", decided.ledger)
    assert decided.champion() == 3


def test_an_alias_that_was_moved_by_hand_is_not_rolled_back_but_settled(decided) -> None:
    decided.client.set_registered_model_alias("ants-bees", "champion", "1")
    with pytest.raises(RegistryError, match="points to version 1, but the champion in the ledger is version 3"):
        roll_back("ants-bees", decided.ledger)
    with pytest.raises(RegistryError, match="changed by hand; to promote it anyway, use --override"):
        promote_version("ants-bees", 1, decided.ledger)
    promote_version("ants-bees", 1, decided.ledger, "the old one after all")
    assert decided.champion() == decided.ledger.last_move("ants-bees").version == 1
    assert verify(decided.ledger) == ()
    for before in (3, 2, 1):
        roll_back("ants-bees", decided.ledger)
        assert decided.champion() == before
    with pytest.raises(RegistryError, match="is the first champion"):
        roll_back("ants-bees", decided.ledger)


def test_a_champion_that_was_put_back_by_hand_still_has_one_before_it(decided) -> None:
    decided.client.set_registered_model_alias("ants-bees", "champion", "1")
    promote_version("ants-bees", 3, decided.ledger, "put back")
    roll_back("ants-bees", decided.ledger)
    assert decided.champion() == 2


def test_no_rollback_takes_a_version_for_a_deleted_one_of_its_number(decided) -> None:
    decided.client.delete_registered_model("ants-bees")
    refused, passed = decided.candidate(wrong=30), decided.candidate(wrong=5)
    assert not decided.promote(refused).promoted
    assert decided.promote(passed).promoted
    with pytest.raises(RegistryError, match="has no version 3; available versions: 1, 2"):
        roll_back("ants-bees", decided.ledger)
    assert decided.champion() == 2


def test_a_refused_version_needs_a_reason_which_the_ledger_keeps(decided) -> None:
    with pytest.raises(RegistryError, match=r"did not pass the gate \(ledger entry 7: over_champion"):
        promote_version("ants-bees", 4, decided.ledger)
    assert decided.champion() == 3
    move = promote_version("ants-bees", 4, decided.ledger, "the old camera is gone")
    assert decided.champion() == 4
    assert move.reason.startswith("override: the old camera is gone (it did not pass the gate")
    assert "override: the old camera is gone" in decided.client.get_model_version("ants-bees", "4").description
    with pytest.raises(RegistryError, match="is already the champion"):
        promote_version("ants-bees", 4, decided.ledger)


def test_a_version_that_passed_against_another_champion_or_was_never_judged_needs_a_reason(decided) -> None:
    with pytest.raises(RegistryError, match="judged against version 1, not against the current champion"):
        promote_version("ants-bees", 2, decided.ledger)
    stray, _ = decided.candidate(wrong=1)
    mlflow.register_model(stray.model_uri, "ants-bees")
    with pytest.raises(RegistryError, match="was never judged"):
        promote_version("ants-bees", 5, decided.ledger)
    promote_version("ants-bees", 5, decided.ledger, "from the other team")
    assert "Never judged by the gate." in decided.client.get_model_version("ants-bees", "5").description
    assert verify(decided.ledger) == ()
    with pytest.raises(RegistryError, match="no version 9; available versions: 1, 2, 3, 4, 5"):
        promote_version("ants-bees", 9, decided.ledger)


def test_of_two_moves_that_were_decided_at_once_the_second_is_an_error(decided) -> None:
    last = decided.ledger.last_move("ants-bees")
    roll_back("ants-bees", decided.ledger)
    late = LedgerEntry(kind=EntryKind.PROMOTION, model="ants-bees", version=4, previous_version=3, reason="late")
    with pytest.raises(ChampionMovedError, match="made ants-bees version 2 champion at"):
        decided.ledger.append_move(late, expected_last=last)
    assert decided.ledger.last_move("ants-bees").version == 2


def execute(world, statement: str) -> None:
    """Changes the ledger's database directly."""
    with sqlite3.connect(world.folder / "ledger.db") as connection:
        connection.execute(statement)


def test_one_changed_entry_is_named(decided) -> None:
    execute(decided, "UPDATE entries SET reason = 'it was splendid' WHERE id = 7")
    (error,) = verify(decided.ledger)
    assert error.startswith("entry 7 (verdict, ants-bees version 4) or the previous entry was modified")


def test_an_entry_without_its_hash_is_named(decided) -> None:
    with pytest.raises(sqlite3.IntegrityError, match="hash"):
        execute(decided, "UPDATE entries SET hash = NULL WHERE id = 7")
    execute(decided, "UPDATE entries SET hash = '' WHERE id = 7")
    assert any(error.startswith("entry 7 (verdict") for error in verify(decided.ledger))


def test_a_deleted_entry_is_named(decided) -> None:
    execute(decided, "DELETE FROM entries WHERE id = 3")
    errors = verify(decided.ledger)
    assert "entry 3 is missing from the ledger" in errors
    assert "ants-bees version 2 has a tag for entry 3, which is not in the ledger" in errors


def test_a_ledger_that_was_rewritten_as_a_whole_differs_from_the_tags(decided) -> None:
    execute(decided, "UPDATE entries SET passed = 1 WHERE id = 7")
    before = None
    for entry in decided.ledger.entries():
        before = entry.digest(before)
        execute(decided, f"UPDATE entries SET hash = '{before}' WHERE id = {entry.id}")
    (error,) = verify(decided.ledger)
    assert "version 4 has a different hash for entry 7 than the ledger: the ledger was rewritten" in error


def test_an_alias_that_was_moved_or_removed_by_hand_is_found(decided) -> None:
    decided.client.set_registered_model_alias("ants-bees", "champion", "1")
    (error,) = verify(decided.ledger)
    assert "points to version 1, but the champion in the ledger is version 3: the alias was changed by hand" in error
    decided.client.delete_registered_model_alias("ants-bees", "champion")
    (error,) = verify(decided.ledger)
    assert "does not exist, but the champion in the ledger is version 3" in error


def test_a_deleted_model_is_not_an_error(decided) -> None:
    decided.client.delete_registered_model("ants-bees")
    assert verify(decided.ledger) == ()


def test_another_ledger_of_the_same_numbers_moves_the_alias_all_the_same(decided) -> None:
    with Ledger.open(f"sqlite:///{decided.folder / 'another.db'}") as another:
        promote_version("ants-bees", 2, another, "restored without its ledger")
    assert decided.champion() == 2


def test_a_deleted_champion_is_rolled_back_from(decided) -> None:
    decided.client.delete_model_version("ants-bees", "3")
    assert roll_back("ants-bees", decided.ledger).version == 2
    assert decided.champion() == 2


def test_a_candidate_that_is_judged_while_the_alias_is_gone_carries_that_with_it(decided) -> None:
    decided.client.delete_registered_model_alias("ants-bees", "champion")
    answer = decided.promote(decided.candidate(wrong=39), RULES)
    assert "does not exist, but the champion in the ledger is version 3" in answer.verdict.note
    assert "changed by hand" in decided.client.get_model_version("ants-bees", "5").description


def test_removed_and_unknown_tags_are_named(decided) -> None:
    decided.client.set_model_version_tag("ants-bees", "1", "platform.ledger_hash.abc", "x")
    decided.client.delete_model_version_tag("ants-bees", "2", "platform.ledger_hash.4")
    assert set(verify(decided.ledger)) == {
        "ants-bees version 2 has no tag for entry 4 (promotion): the tag was removed",
        "ants-bees version 1 has a tag for entry abc, which is not in the ledger",
    }


def test_an_interrupted_move_is_named_and_then_completed(decided, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "set_registered_model_alias", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            roll_back("ants-bees", decided.ledger)
    (error,) = verify(decided.ledger)
    assert "has no tag for entry 8 (rollback): the rollback was interrupted" in error
    with pytest.raises(RegistryError, match="already the champion"):
        promote_version("ants-bees", 2, decided.ledger)
    assert decided.champion() == 2
    assert verify(decided.ledger) == ()


def test_models_of_other_tools_are_ignored(decided) -> None:
    stray, _ = decided.candidate(wrong=1)
    mlflow.register_model(stray.model_uri, "bob's")
    decided.client.set_registered_model_alias("bob's", "champion", "1")
    for number in range(120):
        decided.client.create_registered_model(f"model-{number:03}")
    assert verify(decided.ledger) == ()
    assert {each.model for each in overview.list_versions(decided.ledger)} == {"ants-bees", "bob's"}
    decided.client.set_registered_model_alias("ants-bees", "champion", "1")
    assert len(verify(decided.ledger)) == 1


def test_two_versions_of_one_study_are_not_compared_by_its_run(decided) -> None:
    version = overview.describe_version(decided.ledger, "ants-bees", 1)
    with pytest.raises(RegistryError, match="both come from the same study"):
        overview.compare_versions(version, version)


def test_a_champion_trained_on_the_test_images_is_not_compared(world) -> None:
    candidate, evaluation = world.candidate(wrong=20)
    world.promote((replace(candidate, training_sha256=("elsewhere", *evaluation.sha256[:3])), evaluation))
    answer = world.promote(world.candidate(wrong=1))
    assert not answer.promoted
    assert "it was trained on 3 of the 40 test images" in answer.verdict.results[-1].reason


def test_every_verdict_on_a_test_set_is_counted(decided) -> None:
    answer = decided.promote(decided.candidate(wrong=1), RULES)
    assert answer.verdict.evaluations == 5
    assert "5th evaluation on this test set" in str(answer.verdict)
    assert "5th evaluation on this test set" in decided.client.get_model_version("ants-bees", "5").description


def test_versions_are_listed_and_described(decided) -> None:
    versions = overview.list_versions(decided.ledger)
    assert [(each.version, each.champion, each.verdict) for each in versions] == [
        (4, False, "failed"),
        (3, True, "passed"),
        (2, False, "passed"),
        (1, False, "passed"),
    ]
    assert overview.describe_version(decided.ledger, "ants-bees", 3) == versions[1]
    assert [finding["rule"] for finding in versions[1].rule_results] == ["serving parity", "over_champion at 0.95"]


def test_the_history_is_plain_values(decided) -> None:
    entries = json.loads(json.dumps(overview.history(decided.ledger, "ants-bees")))
    assert [entry["id"] for entry in entries] == list(range(1, 8))
    assert entries[0]["verdict"]["results"][0]["rule"] == "serving parity"
    assert {entry["kind"] for entry in entries} == {"verdict", "promotion"}
    with pytest.raises(RegistryError, match="no entries for wasps; models with entries: ants-bees"):
        overview.history(decided.ledger, "wasps")


def test_two_versions_differ_in_what_their_runs_differ_in(decided) -> None:
    client = MlflowClient()
    one, other = (overview.describe_version(decided.ledger, "ants-bees", number) for number in (1, 2))
    client.log_param(one.run_id, "training.epochs", 3)
    client.log_param(other.run_id, "training.epochs", 5)
    client.log_param(other.run_id, "seed", 0)
    client.log_metric(one.run_id, "test/accuracy", 0.5)
    assert [(each.kind, each.name, each.one, each.other) for each in overview.compare_versions(one, other)] == [
        ("parameter", "seed", None, "0"),
        ("parameter", "training.epochs", "3", "5"),
        ("metric", "test/accuracy", 0.5, None),
    ]


@pytest.fixture
def platform(decided, monkeypatch: pytest.MonkeyPatch):
    """Runs a command of `platform models` in the folder of the registry."""
    monkeypatch.chdir(decided.folder)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{decided.folder / 'mlflow.db'}")

    def run(*words: str, code: int = 0) -> str:
        done = CliRunner().invoke(main, ["models", *words])
        assert done.exit_code == code, done.output
        return done.output

    return run


def test_the_commands_print_versions_history_and_differences(platform) -> None:
    assert "champion" in next(line for line in platform("list").splitlines() if " 3 " in line)
    assert [each["version"] for each in json.loads(platform("list", "--json"))] == [4, 3, 2, 1]
    assert "Made champion" in platform("show", "ants-bees")
    assert json.loads(platform("show", "ants-bees/4", "--json"))["verdict"] == "failed"
    assert "promotion: version 3 replaces version 2" in platform("history", "ants-bees")
    assert platform("diff", "ants-bees/1", "ants-bees/2") == "no differences\n"
    assert "verified 7 ledger entries" in platform("verify")
    assert platform("rollback", "ants-bees", "--reason", "wasps").startswith("ants-bees version 2 is champion again")
    assert "to promote it anyway, use --override" in platform("promote", "ants-bees/4", code=1)
    assert "is champion; ledger entry 9" in platform("promote", "ants-bees/4", "--override", "so they said")
    assert "so they said" in platform("history", "ants-bees")


def test_a_command_names_what_is_there(platform) -> None:
    assert "registered models: ants-bees" in platform("show", "wasps", code=1)
    assert "available versions: 1, 2, 3, 4" in platform("show", "ants-bees/9", code=1)
    assert "models with entries: ants-bees" in platform("history", "wasps", code=1)


def test_a_verification_that_fails_exits_with_one(decided, platform) -> None:
    execute(decided, "UPDATE entries SET passed = 1 WHERE id = 7")
    assert "entry 7 (verdict, ants-bees version 4) or the previous entry was modified" in platform("verify", code=1)
