"""What is held against what over weeks: each patient's study once, by what is said of it now, with no name in it."""

from datetime import UTC, datetime, timedelta

import pytest

from config.drift import DriftSettings
from ledger.completion import Completion
from ledger.drift import SaidOfStudy
from ledger.ledger import Ledger
from ledger.records import Disposition, ReportKind, Stage, TriagePriority
from node.watching import drift, weeks
from node.watching.drift import Kind, State
from tests.integration.ledger.test_heartbeats import beat
from tests.integration.ledger.test_heartbeats import look as look_at_heartbeat
from tests.support.ledger_story import ANNA, Story
from tests.support.records import judged, refused

DAY = timedelta(days=1)
LOW, HIGH = TriagePriority.LOW, TriagePriority.HIGH


def said(ledger: Ledger, days: float = 35.0) -> list[SaidOfStudy]:
    now = datetime.now(UTC) + timedelta(seconds=1)
    return [study for page in ledger.said_since(now - days * DAY, now) for study in page]


def probabilities(ledger: Ledger) -> list[list[float]]:
    return [[one.findings[0].probability for _, one in study.said] for study in said(ledger)]


def test_a_study_is_all_its_images_and_whose_it_is_stands_there_as_a_hash(story: Story) -> None:
    story.image(judged(LOW, 0.1))
    story.image(judged(HIGH, 0.9), refused(), calling_ae_title="CT2")
    [study] = said(story.ledger)
    assert sorted((sender, len(result.findings)) for sender, result in study.said) == [
        ("CT2", 0),
        ("CT2", 1),
        ("MODALITY", 1),
    ]
    assert study.patient == ANNA


def test_no_heartbeat_and_no_prior_is_a_study_of_these_days(story: Story) -> None:
    story.ledger.admit(beat(story.ledger), Completion(0.001))
    look_at_heartbeat(story.ledger)
    story.receive("1.2.9", disposition=Disposition.PRIOR)
    assert said(story.ledger) == []
    story.image(judged(HIGH, 0.9), study="1.2.9")  # a current image: it is no prior any more
    assert probabilities(story.ledger) == [[0.9]]


def test_a_resend_and_a_second_look_count_once_with_what_was_said_last(story: Story) -> None:
    instance = story.image(judged(LOW, 0.1))
    story.ledger.admit(instance, Completion(0.001))
    assert story.claim(Stage.ANALYSE) == []
    assert story.ledger.look_again(instance.study_instance_uid, "A person asked.", "user:test") == 1
    story.look(judged(LOW, 0.2))
    assert probabilities(story.ledger) == [[0.2]]


def test_what_was_corrected_or_rejected_was_not_said(story: Story) -> None:
    first = story.image(judged(LOW, 0.1))
    story.receive_again(first)
    story.look(judged(LOW, 0.3))
    bad = story.image(judged(HIGH, 0.9))
    story.note("113001", bad)
    assert probabilities(story.ledger) == [[0.3]]


def test_what_was_withdrawn_was_not_said(story: Story) -> None:
    story.reported(judged(HIGH, 0.9))
    story.ledger.recall("It was wrong.", "1.2.3")
    findings = story.report(job=story.next(Stage.REPORT))
    assert findings is not None
    assert findings.kind is ReportKind.WITHDRAWN
    assert said(story.ledger) == []


def test_shadow_mode_counts_an_image_once(url: str, story: Story) -> None:
    dark = Story(Ledger.open(url, story.ledger.store, in_shadow=True))
    dark.image(judged(HIGH, 0.9))
    dark.final()
    dark.ledger.close()
    assert probabilities(story.ledger) == [[0.9]]


def test_a_late_image_does_not_make_a_study_a_new_one(story: Story) -> None:
    now = datetime.now(UTC)
    story.image(judged(LOW, 0.1), received_at=now - 20 * DAY)
    story.image(judged(LOW, 0.2))
    assert said(story.ledger, days=7) == []
    [study] = said(story.ledger)
    assert len(study.said) == 2


def test_every_study_is_read_once_however_many_pages_there_are(story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ledger.drift.PAGE", 3)
    for number in range(10):
        story.image(judged(LOW, number / 10), study=f"1.2.{number}")
    assert sorted(probabilities(story.ledger)) == [[number / 10] for number in range(10)]


def test_what_was_found_is_kept_for_every_machine_in_place_of_what_was_before(ledger: Ledger) -> None:
    assert ledger.kept_drift() is None
    for found in ("{}", '{"lines": []}'):
        ledger.keep_drift(found)
        assert ledger.kept_drift() == found


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)  # the databases are asked the same above
def test_weeks_that_differ_are_found_and_shown_while_they_are_news(story: Story) -> None:
    settings = DriftSettings(studies_min=20)
    now = datetime.now(UTC) + timedelta(seconds=1)
    for number in range(60):
        days, result = (2, judged(HIGH, 0.9)) if number < 20 else (10, judged(LOW, 0.1))
        story.image(result, study=f"1.2.{number}", patient=f"{number:064}", received_at=now - days * DAY)
    assert drift.kept(story.ledger, settings, now) is None
    *_, found = weeks.look(story.ledger, settings, now)
    assert found is not None
    states = {(line.subject.kind, line.state, line.recent, line.reference) for line in found.lines}
    drifts = {(kind, State.DRIFTS, 20, 40) for kind in (Kind.PROBABILITY, Kind.FLAGGED)}
    assert states == drifts
    drift.keep(story.ledger, found)
    assert drift.kept(story.ledger, settings, now) == found
    assert drift.kept(story.ledger, settings, now + 2 * DAY) is None
    assert drift.kept(story.ledger, DriftSettings(every_s=0), now) is None
    since = settings.model_copy(update={"since": (now - 5 * DAY).date()})
    *_, anew = weeks.look(story.ledger, since, now)
    assert anew is not None
    assert {line.state for line in anew.lines} == {State.NOT_ENOUGH}
