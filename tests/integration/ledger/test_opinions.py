"""What readers say of findings is kept as they said it, and becomes the truth of a table that `validate` reads."""

from pathlib import Path

import pytest

from ledger.ledger import Ledger
from ledger.opinions import Judged
from ledger.records import Stage, TriagePriority
from tests.support import ledgers

CHEST = ("chest-pneumonia", "1.0.0", "pneumonia")


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return ledgers.open_fresh(tmp_path)


def flagged(ledger: Ledger, number: int = 1, probability: float = 0.9) -> Judged:
    received = ledgers.admit(ledger, number)
    (job,) = ledger.claim(Stage.ANALYSE, "test", 1, 60.0)
    ledger.finish_analysis(job, [ledgers.analysed(probability, TriagePriority.HIGH)])
    (item,) = ledger.study_instances(received.study_instance_uid)
    return Judged(received.study_instance_uid, item.instance.instance_id, *CHEST)


def test_the_newest_word_of_each_person_holds(ledger: Ledger) -> None:
    judged = flagged(ledger)
    for by, agrees in (("ann", True), ("bob", True), ("ann", False)):
        assert ledger.give_opinion(judged, agrees, by)
    assert {one.by: one.agrees for one in ledger.opinions_of(judged.study_uid)} == {"ann": False, "bob": True}


@pytest.mark.parametrize(
    ("probability", "agrees", "truth"), [(0.9, True, True), (0.9, False, False), (0.1, True, False), (0.1, False, True)]
)
def test_the_truth_follows_from_what_was_said_and_whether_the_reader_agrees(
    ledger: Ledger, probability: float, agrees: bool, truth: bool
) -> None:
    judged = flagged(ledger, probability=probability)
    ledger.give_opinion(judged, agrees, "ann")
    (image,) = ledger.labelled_images()
    assert image.truth == {"pneumonia": truth}


def test_readers_who_contradict_each_other_leave_the_truth_open(ledger: Ledger) -> None:
    judged = flagged(ledger)
    ledger.give_opinion(judged, True, "ann")
    ledger.give_opinion(judged, False, "bob")
    (image,) = ledger.labelled_images("chest-pneumonia")
    assert (image.truth, image.opinions, image.disagreements) == ({"pneumonia": None}, 2, 1)
    assert ledger.labelled_images("another") == []


@pytest.mark.parametrize("change", [{"label": "tumour"}, {"version": "9"}, {"instance_id": 99}, {"study_uid": "1.2"}])
def test_nobody_can_judge_what_no_model_said(ledger: Ledger, change: dict[str, str]) -> None:
    judged = flagged(ledger)
    assert not ledger.give_opinion(Judged(**{**vars(judged), **change}), True, "ann")  # type: ignore[arg-type]
    assert ledger.labelled_images() == []


def test_the_pace_counts_studies_by_hour_and_nothing_that_was_not_sent(ledger: Ledger) -> None:
    flagged(ledger)
    pace = ledger.pace(hours=3)
    assert [hour.studies for hour in pace.hours][:1] == [0]
    assert sum(hour.studies for hour in pace.hours) == 1
    assert {one.deliveries for one in pace.promptness} == {0}
    assert {one.p95_s for one in pace.promptness} == {None}
