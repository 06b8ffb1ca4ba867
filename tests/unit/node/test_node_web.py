"""The page shows urgency without names; health is proven by traffic; metrics keep the invariant."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from config import Settings
from ledger.ledger import Ledger
from ledger.records import Disposition, Stage, TriagePriority
from node import health, notices
from node.web import HEADERS, make_app
from node.wiring import open_ledger
from tests.support import ledgers
from tests.support.asgi import Client


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings.model_validate({"node": {"state_dir": tmp_path}, "web": {"oldest_job_max_s": 300}})


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


def test_a_parked_job_asks_for_a_person_on_the_page(page: Client, ledger: Ledger) -> None:
    ledgers.admit(ledger)
    (job,) = ledger.claim(Stage.ANALYSE, "test", 1, 60.0)
    ledger.park(job, "The decoder <died>.")
    text = page.get("/").text
    assert "The decoder &lt;died&gt;." in text
    assert f"opentriage release {job.job_id}" in text


@pytest.mark.parametrize("path", ["/", "/healthz", "/metrics", "/style.css", "/nothing-here"])
def test_every_answer_carries_the_security_headers(page: Client, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "own_echo", lambda settings, timeout_s: False)
    answer = page.get(path)
    assert {name: answer.headers.get(name) for name in HEADERS} == HEADERS


def test_nothing_is_loaded_from_elsewhere(page: Client) -> None:
    text = page.get("/").text + page.get("/style.css").text
    assert "http://" not in text
    assert "https://" not in text
    assert "<script" not in text


def test_a_strange_host_header_is_refused(page: Client) -> None:
    assert page.get("/", headers={"Host": "evil.example"}).status_code == 400


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


def test_health_is_red_when_a_due_job_waits_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.support.waiting import wait_until

    monkeypatch.setattr(health, "own_echo", lambda settings, timeout_s: True)
    tight = Settings.model_validate({"node": {"state_dir": tmp_path}, "web": {"oldest_job_max_s": 0.2}})
    opened = open_ledger(tight)
    client = Client(make_app(tight, opened))
    assert client.get("/healthz").status_code == 200
    ledgers.admit(opened)
    wait_until(lambda: client.get("/healthz").status_code == 503, 5)
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
