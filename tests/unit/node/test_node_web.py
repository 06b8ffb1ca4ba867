"""The page shows urgency without names; health is proven by traffic; metrics keep the invariant."""

import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from config import Settings
from ledger.completion import Completion
from ledger.ledger import Ledger
from ledger.records import Disposition, Stage, TriagePriority
from node import notices
from node.watching import health, no_model
from node.web.app import make_app
from node.web.headers import HEADERS
from node.wiring import open_ledger
from tests.support import ledgers
from tests.support.asgi import Client
from tests.support.peers import free_port
from tests.support.records import received


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    receive = {"host": "127.0.0.1", "port": free_port(), "free_disk_min_bytes": 0}
    return Settings.model_validate(
        {"node": {"state_dir": tmp_path}, "receive": receive, "web": {"oldest_job_max_s": 300}}
    )


@pytest.fixture
def ledger(settings: Settings) -> Iterator[Ledger]:
    opened = open_ledger(settings)
    yield opened
    opened.close()


@pytest.fixture
def page(settings: Settings, ledger: Ledger) -> Client:
    return Client(make_app(settings, ledger))


def judged(ledger: Ledger, number: int, probability: float, priority: TriagePriority) -> str:
    received = ledgers.admit(ledger, number)
    (job,) = ledger.claim(Stage.ANALYSE, "test", 1, 60.0)
    ledger.finish_analysis(job, [ledgers.analysed(probability, priority)])
    return received.study_instance_uid


def test_the_list_is_most_urgent_first_and_never_says_low_or_that_a_study_is_well(page: Client, ledger: Ledger) -> None:
    low = judged(ledger, 1, 0.05, TriagePriority.LOW)
    high = judged(ledger, 2, 0.95, TriagePriority.HIGH)
    medium = judged(ledger, 3, 0.55, TriagePriority.MEDIUM)
    text = page.get("/").text
    assert text.index(high) < text.index(medium) < text.index(low)
    assert "pneumonia 0.95 ± 0.04" in text
    assert "no flagged finding; other disease was not looked for" in text
    assert "normal" not in text.lower()
    assert ">LOW<" not in text


def came(ledger: Ledger, number: int, ago: timedelta) -> str:
    """Received so long ago. Its UID."""
    instance = replace(received(f"2.25.77{number}"), received_at=datetime.now(UTC) - ago)
    ledger.admit(instance, Completion(20.0))
    return instance.study_instance_uid


def test_the_list_says_how_old_a_study_is_and_when_it_came(page: Client, ledger: Ledger) -> None:
    came(ledger, 1, timedelta(hours=3 * 24, minutes=1))
    [row] = re.findall(r'<td class="num age">(.*?)</td>', page.get("/?since=7d").text, re.DOTALL)
    first_at = ledger.worklist()[0].first_received_at
    assert ">3 d</time>" in row
    assert f'datetime="{first_at.isoformat()}"' in row
    assert f'data-since="{first_at.timestamp()}"' in row
    assert f"{first_at.astimezone():%H:%M}</small>" in row


def test_the_list_shows_studies_of_the_time_that_was_chosen(page: Client, ledger: Ledger) -> None:
    new = came(ledger, 1, timedelta())
    older = came(ledger, 2, timedelta(days=3))
    oldest = came(ledger, 3, timedelta(days=12))
    shown = {since: page.get(f"/?since={since}").text for since in ("1h", "7d", "30d")}
    there = {since: [uid for uid in (new, older, oldest) if uid in text] for since, text in shown.items()}
    assert there == {"1h": [new], "7d": [new, older], "30d": [new, older, oldest]}


def test_a_parked_job_asks_for_a_person_on_the_page(page: Client, ledger: Ledger) -> None:
    ledgers.admit(ledger)
    (job,) = ledger.claim(Stage.ANALYSE, "test", 1, 60.0)
    ledger.park(job, "The decoder <died>.")
    text = page.get("/parked").text
    assert "1<span" in page.get("/").text  # beside the way there
    assert "The decoder &lt;died&gt;." in text
    assert f"opentriage release {job.job_id}" in text


@pytest.mark.parametrize("path", ["/", "/healthz", "/metrics", "/style.css", "/nothing-here"])
def test_every_answer_carries_the_security_headers(page: Client, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "own_echo", lambda settings, timeout_s: False)
    answer = page.get(path)
    assert {name: answer.headers.get(name) for name in HEADERS} == HEADERS


def test_nothing_is_loaded_from_elsewhere(page: Client) -> None:
    text = page.get("/").text + page.get("/style.css").text + page.get("/page.js").text
    assert "http://" not in text
    assert "https://" not in text
    assert text.count("<script") == 1
    assert '<script src="/page.js" defer></script>' in text


def test_a_strange_host_header_is_refused(page: Client) -> None:
    for host in ("evil.example", "evil.example:127.0.0.1", "[::1].evil.example", "[::1]@evil.example", ""):
        refused = page.get("/healthz", headers={"Host": host})
        assert (refused.status_code, refused.headers["content-type"]) == (400, "application/problem+json"), host
        assert refused.json()["detail"].startswith("This node is asked on this machine alone")
    for host in ("localhost", "LOCALHOST:8080", "127.0.0.1:8080", "[::1]", "[::1]:8080"):
        assert page.get("/style.css", headers={"Host": host}).status_code == 200, host


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_the_page_is_read_only(page: Client, method: str) -> None:
    assert page.request(method, "/").status_code == 405


def test_health_is_red_when_the_echo_is_not_answered(page: Client) -> None:
    answer = page.get("/healthz")  # nobody listens: a real C-ECHO fails
    assert answer.status_code == 503
    assert answer.json()["reasons"] == ["the node's own C-ECHO was not answered"]


def test_health_says_what_the_models_run_on(page: Client, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "own_echo", lambda settings, timeout_s: True)
    assert page.get("/healthz").json()["provider"] is None
    notices.publish(settings, "analyse", provider="cpu", degraded=True)
    answer = page.get("/healthz")
    assert (answer.status_code, answer.json()["provider"], answer.json()["degraded"]) == (200, "cpu", True)


def test_a_refused_package_is_an_alarm_everywhere_and_the_node_goes_on(
    page: Client, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "own_echo", lambda settings, timeout_s: True)
    sentence = "the model package nan 1.0.0 is refused: <not finite>"
    notices.publish(settings, "analyse", provider="cpu", degraded=False, refused=[])
    assert (page.get("/healthz").json()["degraded"], page.get("/healthz").json()["alarms"]) == (False, [])
    assert "refused" not in page.get("/").text
    notices.publish(settings, "analyse", provider="cpu", degraded=False, refused=[sentence])
    answer = page.get("/healthz")
    assert (answer.status_code, answer.json()["degraded"], answer.json()["alarms"]) == (200, True, [sentence])
    assert "nan 1.0.0 is refused: &lt;not finite&gt;" in page.get("/").text
    lines = page.get("/metrics").text.splitlines()
    assert "opentriage_packages_refused 1.0" in lines
    assert "opentriage_provider_degraded 0.0" in lines  # another thing


def test_a_node_without_any_model_is_red_everywhere_and_says_what_to_do(
    page: Client, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "own_echo", lambda settings, timeout_s: True)
    notices.publish(settings, "analyse", provider="cpu", degraded=False, refused=[], models=[])
    answer = page.get("/healthz")
    assert (answer.status_code, answer.json()["reasons"]) == (503, [no_model.SENTENCE])
    assert "no model is installed, so every image is not assessed: put a model package" in page.get("/").text
    assert "opentriage_models_loaded 0.0" in page.get("/metrics").text.splitlines()
    notices.publish(settings, "analyse", provider="cpu", degraded=False, refused=[], models=["one 1.0.0"])
    assert page.get("/healthz").status_code == 200
    assert "opentriage_models_loaded 1.0" in page.get("/metrics").text.splitlines()


def test_health_is_red_when_a_due_job_waits_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.support.waiting import wait_until

    monkeypatch.setattr(health, "own_echo", lambda settings, timeout_s: True)
    table = {"node": {"state_dir": tmp_path}, "receive": {"free_disk_min_bytes": 0}, "web": {"oldest_job_max_s": 0.2}}
    tight = Settings.model_validate(table)
    opened = open_ledger(tight)
    client = Client(make_app(tight, opened))
    assert client.get("/healthz").status_code == 200
    ledgers.admit(opened)
    wait_until(lambda: client.get("/healthz").status_code == 503, 30)
    assert "the limit is 0 s" in client.get("/healthz").json()["reasons"][0]
    opened.close()


def test_received_is_terminal_plus_in_flight(page: Client, ledger: Ledger) -> None:
    judged(ledger, 1, 0.95, TriagePriority.HIGH)
    ledgers.admit(ledger, 2)
    ledgers.admit(ledger, 3, disposition=Disposition.PRIOR)
    ledgers.admit(ledger, 4, disposition=Disposition.NOT_AN_IMAGE)
    lines = dict(line.rsplit(" ", 1) for line in page.get("/metrics").text.splitlines() if not line.startswith("#"))
    assert lines["opentriage_instances_received_total"] == "4.0"
    assert lines["opentriage_instances_terminal"] == "3.0"
    assert lines["opentriage_instances_in_flight"] == "1.0"
    assert lines["opentriage_instances_drift"] == "0.0"
    assert lines['opentriage_jobs{stage="analyse",state="queued"}'] == "1.0"
    assert lines['opentriage_jobs{stage="deliver",state="parked"}'] == "0.0"
    assert "opentriage_oldest_job_age_seconds" in lines
    assert "opentriage_provider_degraded" in lines
