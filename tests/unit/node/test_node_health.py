"""Health is red while nothing looks at images, and says which: starting, never loaded, or dying again and again."""

import time
from pathlib import Path

import pytest

from config import Settings
from ledger.records import Stage
from node import notices
from node.roles.analyse import _spare_told
from node.watching import health
from node.watching.health import STARTING_S, HealthCheck, _parked_alarms
from node.wiring import open_ledger
from tests.support.ledger_story import Story
from tests.support.peers import free_port


def settings_in(folder: Path) -> Settings:
    node = Settings().node.model_copy(update={"state_dir": folder})
    receive = Settings().receive.model_copy(update={"host": "127.0.0.1", "port": free_port(), "free_disk_min_bytes": 0})
    return Settings().model_copy(update={"node": node, "receive": receive})


def reasons(settings: Settings) -> list[str]:
    ledger = open_ledger(settings)
    try:
        found = HealthCheck(settings, ledger).check().reasons
    finally:
        ledger.close()
    return list(found)


SILENT = "the node's own C-ECHO was not answered"


@pytest.mark.parametrize(
    ("age_s", "deaths", "said"),
    [
        (1.0, {}, ["starting: the models are being loaded"]),
        (STARTING_S + 1.0, {}, [SILENT, "no analyser has loaded its models"]),
        (1.0, {"analyse": [0.5]}, [SILENT, "no analyser has loaded its models"]),
    ],
)
def test_without_models_a_node_is_starting_or_red(
    tmp_path: Path, age_s: float, deaths: dict[str, list[float]], said: list[str]
) -> None:
    settings, now = settings_in(tmp_path), time.monotonic()
    died = {role: [now - ago for ago in ages_ago] for role, ages_ago in deaths.items()}
    notices.publish(settings, "supervisor", began=now - age_s, deaths=died, why={})
    assert reasons(settings) == said
    notices.publish(settings, "analyse", provider="cpu")
    notices.publish(settings, "receive", host="127.0.0.1", port=1, index=0)
    assert reasons(settings) == [SILENT]


def test_a_spare_that_cannot_be_had_is_told_and_makes_nothing_red(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    ledger = open_ledger(settings)
    try:
        tell = _spare_told(settings, {"provider": "cpu", "refused": []})
        check = HealthCheck(settings, ledger)
        tell("The models could not be loaded again: the process died")
        found = check.check()
        assert [alarm for alarm in found.alarms if "no spare" in alarm and alarm.endswith("the process died")]
        assert (found.provider, found.degraded, list(found.reasons)) == ("cpu", False, [SILENT])
        tell("")
        assert not [alarm for alarm in check.check().alarms if "spare" in alarm]
    finally:
        ledger.close()


def test_what_follows_from_starting_is_not_said_beside_it_and_nobody_is_called_in_vain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first answer of the receiver counts at once: no silence from before is remembered."""
    calls: list[float] = []

    def answered(settings: Settings, timeout_s: float) -> bool:
        calls.append(timeout_s)
        return True

    monkeypatch.setattr(health, "own_echo", answered)
    settings = settings_in(tmp_path)
    ledger = open_ledger(settings)
    check = HealthCheck(settings, ledger)
    try:
        notices.publish(settings, "supervisor", began=time.monotonic(), deaths={}, why={}, receivers=2)
        assert (check.check().reasons, calls) == (("starting: the models are being loaded",), [])
        notices.publish(settings, "analyse", provider="cpu")
        assert (check.check().reasons, calls) == (("starting: the receiver is about to listen",), [])
        notices.publish(settings, "receive-2", host="127.0.0.1", port=1, index=1)
        found = check.check()
        assert (found.reasons, found.echo_answered, len(calls)) == ((), True, 1)
    finally:
        ledger.close()


def test_a_receiver_that_died_at_the_start_is_not_about_to_listen(tmp_path: Path) -> None:
    settings, now = settings_in(tmp_path), time.monotonic()
    notices.publish(settings, "supervisor", began=now, deaths={"receive": [now]}, why={})
    notices.publish(settings, "analyse", provider="cpu")
    assert reasons(settings) == [SILENT]


def test_a_role_that_keeps_dying_is_named_with_what_it_said_and_one_old_death_is_forgotten(tmp_path: Path) -> None:
    settings, now = settings_in(tmp_path), time.monotonic()
    notices.publish(settings, "analyse", provider="cpu")
    deaths = {"report": [now - 3.0, now - 1.0], "deliver": [now - 1.0], "web": [now - 900.0, now - 2.0]}
    notices.publish(settings, "supervisor", began=now - 1000.0, deaths=deaths, why={"report": "because"})
    assert reasons(settings) == [SILENT, "the role report died 2 times in the last 10 minutes: because"]


def test_a_page_beside_no_supervisor_does_not_judge_the_roles_of_other_machines(tmp_path: Path) -> None:
    assert reasons(settings_in(tmp_path)) == [SILENT]


def test_a_receiver_that_is_missing_is_an_alarm_while_the_others_receive(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    notices.publish(settings, "supervisor", began=time.monotonic(), deaths={}, why={}, receivers=2)
    notices.publish(settings, "receive", host="127.0.0.1", port=1, index=0)
    ledger = open_ledger(settings)
    try:
        assert HealthCheck(settings, ledger).check().alarms == ("1 of 2 receivers are there",)
        notices.publish(settings, "receive-2", host="127.0.0.1", port=1, index=1)
        assert HealthCheck(settings, ledger).check().alarms == ()
    finally:
        ledger.close()


def test_parked_jobs_are_an_alarm_that_says_what_they_were_for_and_names_no_study(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    ledger = open_ledger(settings)
    try:
        story = Story(ledger)
        for study in ("1.2.3", "1.2.4"):
            story.receive(study=study)
            [job] = story.claim(Stage.ANALYSE)
            ledger.park(job, "it refused DOE^JANE")
        [said] = [alarm for alarm in HealthCheck(settings, ledger).check().alarms if "parked" in alarm]
    finally:
        ledger.close()
    assert "analysis: 2" in said
    assert "1.2.3" not in said
    assert "DOE" not in said


def test_what_is_parked_most_is_named_first() -> None:
    [said] = _parked_alarms({(Stage.ANALYSE, None): 1, (Stage.DELIVER, "main"): 3})
    assert "delivery to main: 3, analysis: 1" in said
    assert _parked_alarms({}) == []


def test_every_stage_that_can_be_parked_has_a_word_in_the_alarm() -> None:
    assert all(_parked_alarms({(stage, "x"): 1}) for stage in Stage)
