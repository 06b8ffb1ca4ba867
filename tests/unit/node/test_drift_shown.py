"""Drift is shown where people look, to everybody around the ledger, and never makes a node that works look broken."""

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import structlog
from structlog.testing import capture_logs
from typer.testing import CliRunner

from config import Settings
from ledger.errors import LedgerUnavailable
from ledger.ledger import Ledger
from ledger.records import TriagePriority
from node import log_events
from node.chores.drift import Watch, run
from node.cli import app
from node.console import out
from node.watching import drift, health
from node.watching.drift import Found, Kind, State, Subject
from node.watching.health import HealthCheck
from node.watching.metrics import make_registry, render
from node.web import page_drift
from node.web.app import make_app
from node.wiring import open_ledger
from tests.support.asgi import Client
from tests.support.ledger_story import Story
from tests.support.records import judged
from tests.support.waiting import wait_until


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A settings file, and a ledger in which one finding has moved: 20 studies of today, 40 of ten days ago."""
    folder = tmp_path_factory.mktemp("drifting")
    path = folder / "site.toml"
    path.write_text(f'[node]\nstate_dir = "{folder}"\n[drift]\nstudies_min = 20\n')
    ledger = open_ledger(settings_in(folder))
    story, now = Story(ledger), datetime.now(UTC)
    for number in range(60):
        old = number >= 20
        result = judged(TriagePriority.LOW, 0.1) if old else judged(TriagePriority.HIGH, 0.9)
        at = now - timedelta(days=10) if old else now
        story.image(result, study=f"1.2.{number}", patient=f"{number:064}", received_at=at)
    ledger.close()
    return path


def settings_in(folder: Path, **changes: object) -> Settings:
    table = {"node": {"state_dir": folder}, "drift": {"studies_min": 20, **changes}}
    return Settings.model_validate(table)


@pytest.fixture
def settings(site: Path) -> Settings:
    return settings_in(site.parent)


@pytest.fixture
def ledger(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ledger]:
    """Nobody has looked yet."""
    monkeypatch.setattr(health, "own_echo", lambda settings, timeout_s: True)
    opened = open_ledger(settings)
    opened.keep_drift("none")
    yield opened
    opened.close()


def looked(settings: Settings, ledger: Ledger) -> Found:
    structlog.reset_defaults()
    Watch(settings, ledger, threading.Event()).once()
    found = drift.kept(ledger, settings.drift, datetime.now(UTC))
    assert found is not None
    return found


def test_the_chore_looks_and_says_each_drift_once(settings: Settings, ledger: Ledger) -> None:
    watch = Watch(settings, ledger, threading.Event())
    structlog.reset_defaults()
    with capture_logs() as logged:
        watch.once()
        watch.once()
    said = [line for line in logged if line["event"] == log_events.DRIFT_FOUND]
    assert {line["kind"] for line in said} == {"probability", "flagged"}
    assert len(said) == 2
    assert "1.2." not in json.dumps(said)


def test_a_second_machine_does_not_look_again_and_one_that_is_told_to_stop_stops(
    settings: Settings, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = looked(settings, ledger)
    assert looked(settings, ledger) == first
    monkeypatch.setattr(Ledger, "said_since", lambda *_: pytest.fail("it looked"))
    looked(settings, ledger)
    stop = threading.Event()
    thread = threading.Thread(target=run, args=(settings_in(settings.node.state_dir, every_s=0), ledger, stop))
    thread.start()
    stop.set()
    thread.join(10)
    assert not thread.is_alive()


def test_a_look_taken_by_a_clock_that_was_ahead_is_neither_shown_nor_waited_for(
    settings: Settings, ledger: Ledger
) -> None:
    now = datetime.now(UTC)
    first = looked(settings, ledger)
    drift.keep(ledger, replace(first, made_at=now + timedelta(days=300)))
    assert drift.kept(ledger, settings.drift, now) is None
    assert abs(looked(settings, ledger).made_at - now) < timedelta(minutes=1)
    drift.keep(ledger, replace(first, made_at=now + drift.AHEAD))  # another machine's clock
    assert drift.kept(ledger, settings.drift, now) is not None


@pytest.mark.parametrize(
    "change",
    [{"since": "2026-01-01"}, {"recent_days": 6}, {"reference_days": 29}, {"studies_min": 21}, {"psi": 0.3},
     {"share": 0.3}, {"false_alarms": 0.003}],
    ids=lambda change: next(iter(change)),
)  # fmt: skip
def test_a_node_started_with_other_measures_looks_at_once(
    settings: Settings, ledger: Ledger, change: dict[str, object]
) -> None:
    looked(settings, ledger)
    other = settings_in(settings.node.state_dir, **change)
    assert looked(other, ledger).is_by(other.drift)


def test_the_chore_outlives_a_ledger_that_is_away_and_does_not_wait_an_hour_for_it(
    settings: Settings, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    once, failures = Watch.once, [LedgerUnavailable("away")]

    def fails_first(self: Watch) -> None:
        if failures:
            raise failures.pop()
        once(self)

    monkeypatch.setattr(Watch, "once", fails_first)
    monkeypatch.setattr("node.chores.drift.RETRY_S", 0.01)
    stop = threading.Event()
    thread = threading.Thread(target=run, args=(settings, ledger, stop))
    thread.start()
    try:
        wait_until(lambda: drift.kept(ledger, settings.drift, datetime.now(UTC)) is not None, within_s=10)
    finally:
        stop.set()
        thread.join(10)
    assert not thread.is_alive()


def test_drift_is_an_alarm_and_no_reason_to_be_red(settings: Settings, ledger: Ledger) -> None:
    before = HealthCheck(settings, ledger).check()
    looked(settings, ledger)
    after = HealthCheck(settings, ledger).check()
    new = set(after.alarms) - set(before.alarms)
    assert len(new) == 2
    assert all("chest-pneumonia/1.0.0" in one and "docs/runbooks/drift.md" in one for one in new)
    assert (after.reasons, after.degraded) == (before.reasons, before.degraded)


def test_metrics_say_what_was_found_and_name_no_study(settings: Settings, ledger: Ledger) -> None:
    empty = render(make_registry(settings, ledger)).decode()
    assert "opentriage_drift_period_seconds 3600.0" in empty
    assert "opentriage_drift_age_seconds " not in empty.replace("# HELP opentriage_drift_age_seconds ", "").replace(
        "# TYPE opentriage_drift_age_seconds ", ""
    )
    looked(settings, ledger)
    text = render(make_registry(settings, ledger)).decode()
    of_model = 'model="chest-pneumonia/1.0.0",name="pneumonia",sender=""'
    assert f'opentriage_drift{{kind="probability",{of_model}}} 1.0' in text
    assert f'opentriage_drift_share{{kind="flagged",{of_model},span="reference"}} 0.0' in text
    assert "1.2.0" not in text


def test_the_page_of_models_draws_both_spans_and_says_what_to_do(settings: Settings, ledger: Ledger) -> None:
    page = Client(make_app(settings, ledger))
    assert "Nobody has looked yet" in page.get("/models").text
    looked(settings, ledger)
    text = page.get("/models").text
    assert text.count('class="bar before"') == 2  # the legend's, and all studies of before in one bin
    assert "20 studies of the last 7 days beside 40 of the 28 days before; drifts" in text
    assert "docs/runbooks/drift.md" in text
    assert "studies in which chest-pneumonia/1.0.0 found pneumonia: 100 % of 20 in the last 7 days, 0.0 % of 40" in text
    for address in ("/", "/models"):
        assert "population stability index" in page.get(address).text
    assert "normal" not in text.lower()


def test_too_few_studies_are_said_and_nothing_is_alarmed(settings: Settings, ledger: Ledger) -> None:
    more = settings.model_copy(update={"drift": settings.drift.model_copy(update={"studies_min": 100})})
    assert looked(more, ledger).drifting == []
    text = Client(make_app(more, ledger)).get("/models").text
    assert "Not enough yet: it takes 100 studies in the last days and 200 before" in text


def test_what_a_caller_calls_himself_is_no_markup(settings: Settings, ledger: Ledger) -> None:
    found = looked(settings, ledger)
    line = replace(found.lines[0], subject=replace(found.lines[0].subject, sender="<b>X</b>", model=""))
    drift.keep(ledger, replace(found, lines=(line,)))
    text = Client(make_app(settings, ledger)).get("/models").text
    assert "<b>X</b>" not in text
    assert "&lt;b&gt;X" in text


def test_who_sends_by_stow_is_named_to_who_has_signed_in_alone(settings: Settings, ledger: Ledger) -> None:
    found = looked(settings, ledger)
    moved, steady = (
        drift.Line(Subject(Kind.REASON, "", f"STOW:{name}", "age_unknown"), state, 200, 800, now, 0.1, size)
        for name, state, now, size in (("anna", State.DRIFTS, 0.5, 0.9), ("bert", State.STEADY, 0.1, 0.0))
    )
    drift.keep(ledger, replace(found, lines=(moved, steady)))
    metrics = render(make_registry(settings, ledger)).decode()
    assert [line for line in metrics.splitlines() if line.startswith("opentriage_drift{")] == [
        'opentriage_drift{kind="reason",model="",name="age_unknown",sender="STOW"} 1.0'
    ]
    alarms = " ".join(HealthCheck(settings, ledger).check().alarms)
    assert "the sender STOW with an image" in alarms
    pages = [Client(make_app(settings, ledger)).get(address).text for address in ("/", "/models")]
    for text in (metrics, alarms, *pages):
        assert "anna" not in text
        assert "bert" not in text
    drawn = page_drift.drawn(settings, ledger, may_read=True)
    assert [row.whose for row in drawn["rows"]] == ["STOW:anna", "STOW:bert"]


def test_a_look_at_a_site_without_studies_claims_no_more_than_it_saw(settings: Settings, ledger: Ledger) -> None:
    drift.keep(ledger, replace(looked(settings, ledger), lines=()))
    text = Client(make_app(settings, ledger)).get("/models").text
    assert "By then nothing had been said of any study" in text
    assert "<code>opentriage drift</code> looks now" in text


def test_what_another_release_kept_is_not_shown(settings: Settings, ledger: Ledger) -> None:
    ledger.keep_drift('{"made_at": 1}')
    assert drift.kept(ledger, settings.drift, datetime.now(UTC)) is None
    assert "Nobody has looked yet" in Client(make_app(settings, ledger)).get("/models").text


def test_the_command_says_it_beside_a_node_or_without_one(site: Path) -> None:
    done = CliRunner().invoke(app, ["drift", "-c", str(site)])
    assert done.exit_code == 0, done.output
    assert "drifts" in done.stdout
    assert "population stability index" in done.stderr
    assert "Not enough" not in done.stderr
    done = CliRunner().invoke(app, ["drift", "--json", "-c", str(site)])
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert [one["state"] for one in records] == ["drifts", "drifts"]
    assert {one["kind"]: (one["now"], one["before"]) for one in records}["flagged"] == (1.0, 0.0)


def test_whatever_a_sender_calls_himself_the_command_shows_it_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "site.toml"
    path.write_text(f'[node]\nstate_dir = "{tmp_path}"\n')
    ledger = open_ledger(settings_in(tmp_path))
    for number, sender in enumerate(("[/a]", "[red]X")):
        Story(ledger).image(judged(TriagePriority.LOW, 0.1), study=f"1.2.{number}", calling_ae_title=sender)
    ledger.close()
    done = CliRunner().invoke(app, ["drift", "-c", str(path)])
    assert done.exit_code == 0, done.output
    assert "[/a]" in done.stdout
    assert "[red]X" in done.stdout


def test_an_ordinary_terminal_shows_every_column_and_every_word(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(out, "_width", 80)
    lines = CliRunner().invoke(app, ["drift", "-c", str(site)]).stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert "…" not in "".join(lines)
    assert lines[0].split()[-6:] == ["last", "7", "days", "28", "days", "before"]
    flagged = next(line for line in lines if "flagged" in line)
    assert flagged.startswith("chest-pneumonia/1.0.0 ")
    assert " ".join(flagged.split()[-8:]) == "100 % of 20 0.0 % of 40"
    assert any(line.startswith("chest-pneumonia/1.0.0 ") and "40 studies" in line for line in lines)
    monkeypatch.setattr(out, "_width", 60)
    lines = CliRunner().invoke(app, ["drift", "-c", str(site)]).stdout.splitlines()
    assert any(line.endswith(" 100 % of 20     0.0 % of 40") for line in lines)


def test_the_command_makes_no_ledger(tmp_path: Path) -> None:
    path = tmp_path / "site.toml"
    path.write_text(f'[node]\nstate_dir = "{tmp_path / "none"}"\n')
    assert CliRunner().invoke(app, ["drift", "-c", str(path)]).exit_code == 1
    assert not (tmp_path / "none").exists()
