"""Health is red while nothing looks at images, and says which: starting, never loaded, or dying again and again."""

import time
from pathlib import Path

import pytest

from config import Settings
from node import notices
from node.health import STARTING_S, HealthCheck
from node.wiring import open_ledger
from tests.support.peers import free_port


def settings_in(folder: Path) -> Settings:
    node = Settings().node.model_copy(update={"state_dir": folder})
    receive = Settings().receive.model_copy(update={"host": "127.0.0.1", "port": free_port()})
    return Settings().model_copy(update={"node": node, "receive": receive})


def reasons(settings: Settings) -> list[str]:
    ledger = open_ledger(settings)
    try:
        found = HealthCheck(settings, ledger).check().reasons
    finally:
        ledger.close()
    assert found[0] == "the node's own C-ECHO was not answered"
    return list(found[1:])


@pytest.mark.parametrize(
    ("age_s", "deaths", "said"),
    [
        (1.0, {}, "starting: the models are being loaded"),
        (STARTING_S + 1.0, {}, "no analyser has loaded its models"),
        (1.0, {"analyse": [0.5]}, "no analyser has loaded its models"),
    ],
)
def test_without_models_a_node_is_starting_or_red(
    tmp_path: Path, age_s: float, deaths: dict[str, list[float]], said: str
) -> None:
    settings, now = settings_in(tmp_path), time.monotonic()
    died = {role: [now - ago for ago in ages_ago] for role, ages_ago in deaths.items()}
    notices.publish(settings, "supervisor", began=now - age_s, deaths=died, why={})
    assert reasons(settings) == [said]
    notices.publish(settings, "analyse", provider="cpu")
    assert reasons(settings) == []


def test_a_role_that_keeps_dying_is_named_with_what_it_said_and_one_old_death_is_forgotten(tmp_path: Path) -> None:
    settings, now = settings_in(tmp_path), time.monotonic()
    notices.publish(settings, "analyse", provider="cpu")
    deaths = {"report": [now - 3.0, now - 1.0], "deliver": [now - 1.0], "web": [now - 900.0, now - 2.0]}
    notices.publish(settings, "supervisor", began=now - 1000.0, deaths=deaths, why={"report": "because"})
    assert reasons(settings) == ["the role report died 2 times in the last 10 minutes: because"]


def test_a_page_beside_no_supervisor_does_not_judge_the_roles_of_other_machines(tmp_path: Path) -> None:
    assert reasons(settings_in(tmp_path)) == []
