"""How soon studies are answered, as the page of pace and the list say it: what is said for the first time counts."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import text

from ledger.database import transaction
from ledger.ledger import Ledger
from ledger.pace import Promptness
from ledger.records import TriagePriority
from node.telling.triage_list import sent_after_s
from tests.support.ledger_story import HIGH, MEDIUM, PACS, Story
from tests.support.ledgers import open_fresh
from tests.support.records import judged

CAME = datetime.now(UTC) - timedelta(seconds=60)
if CAME.hour != (CAME + timedelta(seconds=30)).hour:  # what is here within 30 s is of one hour
    CAME -= timedelta(seconds=60)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = open_fresh(tmp_path)
    yield opened
    opened.close()


def answered(ledger: Ledger, study: str, priority: TriagePriority, *waits_s: float) -> None:
    """One image, reported as the plan has it and delivered each time, so long after its last byte."""
    story = Story(ledger)
    story.image(judged(priority), study=study, received_at=CAME, patient=study[-1] * 64)
    for wait_s in waits_s:
        story.report()
        story.deliver(PACS)
        _delivered(ledger, study, CAME + timedelta(seconds=wait_s))


def _delivered(ledger: Ledger, study: str, at: datetime) -> None:
    """That is when the newest report of the study was accepted."""
    newest = "SELECT id FROM objects WHERE report_id = (SELECT max(id) FROM reports WHERE study_uid = :study)"
    of_it = f"UPDATE deliveries SET changed_at = :at WHERE object_id IN ({newest})"
    with transaction(ledger._engine, write=True) as connection:
        assert connection.execute(text(of_it), {"at": at.timestamp(), "study": study}).rowcount


def promptness(ledger: Ledger, priority: TriagePriority) -> Promptness:
    return next(one for one in ledger.pace(hours=3).promptness if one.priority is priority)


def test_each_study_counts_once_by_its_first_report_and_not_by_the_final_one_that_repeats_it(ledger: Ledger) -> None:
    answered(ledger, "1.2.1", HIGH, 1.2, 22.0)
    answered(ledger, "1.2.2", HIGH, 3.5, 24.0)
    found = promptness(ledger, HIGH)
    assert (found.deliveries, found.p50_s, found.p95_s) == (2, pytest.approx(1.2), pytest.approx(3.5))
    assert [one for one in found.by_hour if one is not None] == [pytest.approx(3.5)]


def test_what_a_person_asks_for_says_nothing_of_how_soon_a_study_was_answered(ledger: Ledger) -> None:
    answered(ledger, "1.2.1", HIGH, 1.2, 22.0)
    assert ledger.look_again("1.2.1", "A better model.")
    story = Story(ledger)
    story.look(judged(MEDIUM))
    story.final()
    story.deliver(PACS)
    assert [promptness(ledger, one).deliveries for one in (HIGH, MEDIUM)] == [1, 0]
    [entry] = ledger.worklist()
    assert sent_after_s(entry) == pytest.approx(1.2)


def test_the_list_says_when_the_last_image_was_first_reported(ledger: Ledger) -> None:
    answered(ledger, "1.2.1", HIGH, 1.2, 22.0)
    [entry] = ledger.worklist()
    assert sent_after_s(entry) == pytest.approx(1.2)
    assert sent_after_s(replace(entry, delivered_at=None)) is None  # the final one is still under way


def test_a_report_before_the_last_image_is_no_answer_to_it(ledger: Ledger) -> None:
    answered(ledger, "1.2.1", HIGH, 1.2)
    story = Story(ledger)
    story.image(judged(HIGH), study="1.2.1", received_at=CAME + timedelta(seconds=5), patient="1" * 64)
    story.final()
    story.deliver(PACS)
    _delivered(ledger, "1.2.1", CAME + timedelta(seconds=25))
    [entry] = ledger.worklist()
    assert sent_after_s(entry) == pytest.approx(20.0)
