"""A study is complete on evidence: what shortens the wait for more images, what lengthens it, what is kept of it."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ledger import assembly
from ledger.completeness import COMPLETE
from ledger.completion import Completion
from ledger.database import transaction
from ledger.ledger import Ledger
from ledger.promises import TOPIC
from ledger.records import Disposition, ReportKind, Stage
from ledger.store import Store
from ledger.tables import awaited_instances, stated_contents
from tests.support.ledger_story import HOUR_S, LOW, SOON_S, STUDY, Story
from tests.support.records import judged, received
from tests.support.waiting import wait_until

QUIET = Completion(3600.0, 7200.0, "No image came for an hour.")


def list_of(ledger: Ledger, *uids: str, sender: str = "CT1", limit_s: float = 7200.0) -> None:
    with transaction(ledger._engine, write=True) as connection:
        assembly.stated(connection, sender, uids, limit_s)


def image(story: Story, study: str = STUDY, completion: Completion = QUIET, **values: object) -> str:
    """Received and analysed; its SOP Instance UID."""
    instance = received(study, **({"calling_ae_title": "CT1"} | values))
    story.ledger.admit(instance, completion)
    story.look(judged(LOW, 0.1))
    return instance.sop_instance_uid


def due_in_s(ledger: Ledger, study: str = STUDY) -> float:
    waiting = ledger.waiting(study)
    assert waiting is not None
    return (waiting.due_at - datetime.now(UTC)).total_seconds()


def grounds(story: Story, study: str = STUDY) -> list[str]:
    return [event.text for event in story.ledger.events(study) if event.name == COMPLETE]


def test_the_evidence_that_decided_is_kept(story: Story) -> None:
    image(story, completion=Completion(SOON_S, 900.0, "No image came for 0.01 s."))
    assert story.ledger.waiting(STUDY) is not None
    story.final()
    assert grounds(story) == ["No image came for 0.01 s."]
    assert story.ledger.waiting(STUDY) is None


def test_a_study_that_grew_on_while_it_was_reported_is_not_called_complete(story: Story) -> None:
    image(story, completion=Completion(SOON_S, 900.0, "First."))
    job = story.next(Stage.REPORT)
    story.receive(quiet_s=HOUR_S)
    story.report(job=job)
    assert grounds(story) == []


def test_a_study_that_never_stands_still_is_reported_at_the_limit(story: Story) -> None:
    for _ in range(3):
        image(story, completion=Completion(3600.0, 0.3, "Never."))
    story.final()
    assert grounds(story) == ["It was still growing 0 s after its first image: reported as it is."]


def test_the_limit_counts_from_the_first_image_since_the_study_was_last_open(story: Story) -> None:
    yesterday = datetime.now(UTC) - timedelta(days=1)
    image(story, completion=Completion(SOON_S, 200.0, "First."), received_at=yesterday)
    story.final()
    image(story, completion=Completion(1000.0, 2000.0, "Second."))
    assert due_in_s(story.ledger) > 900


def test_all_that_a_sender_lists_is_here_so_the_study_waits_no_longer(story: Story) -> None:
    uids = [image(story) for _ in range(3)]
    assert not story.claimable(Stage.REPORT)
    list_of(story.ledger, *uids)
    story.final()
    assert grounds(story) == ["CT1 asked to commit 3 instances and all are here."]


def test_what_a_sender_lists_and_has_not_come_is_waited_for(story: Story) -> None:
    first = image(story, completion=Completion(SOON_S, 900.0, "Quiet."))
    list_of(story.ledger, first, "1.9.1", "1.9.2")
    assert not story.claimable(Stage.REPORT)
    waiting = story.ledger.waiting(STUDY)
    assert waiting is not None
    assert [(one.calling_ae_title, one.listed, one.missing) for one in waiting.missing] == [("CT1", 3, 2)]
    image(story, completion=Completion(SOON_S, 900.0, "Quiet."), sop_instance_uid="1.9.1")
    assert due_in_s(story.ledger) > 7000
    image(story, completion=QUIET, sop_instance_uid="1.9.2")
    story.final()
    assert grounds(story) == ["CT1 asked to commit 3 instances and all are here."]


def test_what_is_listed_may_be_no_image(story: Story) -> None:
    first = image(story)
    list_of(story.ledger, first, "1.9.1")
    story.receive(sop_instance_uid="1.9.1", disposition=Disposition.NOT_AN_IMAGE)
    story.final()
    assert grounds(story) == ["CT1 asked to commit 2 instances and all are here."]


def test_what_is_listed_and_never_comes_is_waited_for_until_the_limit(story: Story) -> None:
    first = image(story)
    list_of(story.ledger, first, "1.9.1", limit_s=0.2)
    story.final()
    [text] = grounds(story)
    assert text.startswith("CT1 asked to commit 2 instances, 1 of which had not come 0 s after the first image")


def test_a_list_may_come_before_the_first_of_its_images(story: Story) -> None:
    list_of(story.ledger, "1.9.1", "1.9.2")
    image(story, completion=Completion(SOON_S, 900.0, "Quiet."), sop_instance_uid="1.9.1")
    assert due_in_s(story.ledger) > 7000
    image(story, sop_instance_uid="1.9.2")
    story.final()
    assert grounds(story) == ["CT1 asked to commit 2 instances and all are here."]


def test_a_list_of_two_studies_completes_both(story: Story) -> None:
    one, other = image(story, "1.1"), image(story, "1.2")
    list_of(story.ledger, one, other, "1.9.1")
    image(story, "1.2", sop_instance_uid="1.9.1")
    story.final()
    story.final()
    assert [len(grounds(story, study)) for study in ("1.1", "1.2")] == [1, 1]


def test_a_sender_that_lists_its_studies_piece_by_piece_cuts_no_wait_short(story: Story) -> None:
    list_of(story.ledger, image(story, "1.1"))
    story.final()
    list_of(story.ledger, image(story, "1.1"))  # the second piece: its lists do not say when a study is complete
    assert due_in_s(story.ledger, "1.1") > 3000
    list_of(story.ledger, image(story, "1.2"))
    assert due_in_s(story.ledger, "1.2") > 3000


def test_a_request_that_is_repeated_is_no_second_piece(story: Story) -> None:
    uid = image(story)
    for _ in range(2):
        list_of(story.ledger, uid)
    story.final()
    list_of(story.ledger, image(story, "1.5"))
    assert due_in_s(story.ledger, "1.5") < 5


def test_a_list_that_leaves_out_what_is_here_says_nothing(story: Story) -> None:
    image(story)
    list_of(story.ledger, image(story))
    assert due_in_s(story.ledger) > 3000


def rows(ledger: Ledger) -> list[int]:
    """How many lists are kept, and how many instances are awaited by them."""
    with transaction(ledger._engine, write=False) as connection:
        tables = (stated_contents, awaited_instances)
        return [len(connection.execute(table.select()).all()) for table in tables]


def test_a_hostile_sender_fills_no_table_with_lists(story: Story) -> None:
    first = image(story)
    for number in range(assembly.KEPT_OF_A_SENDER + 20):
        list_of(story.ledger, first, f"1.8.{number}")
    list_of(story.ledger, "no uid", "1" * 65)
    assert rows(story.ledger) == [assembly.KEPT_OF_A_SENDER, assembly.KEPT_OF_A_SENDER]


def test_of_lists_that_name_nothing_of_their_senders_own_a_few_are_kept(story: Story) -> None:
    for number in range(assembly.EARLY_OF_A_SENDER + 3):
        list_of(story.ledger, f"1.8.{number}")
    assert rows(story.ledger) == [assembly.EARLY_OF_A_SENDER, assembly.EARLY_OF_A_SENDER]
    for number in range(assembly.EARLY_IN_ALL):
        list_of(story.ledger, f"1.8.{number}", sender=f"EVIL{number}")
    assert rows(story.ledger) == [assembly.EARLY_IN_ALL, assembly.EARLY_IN_ALL]
    many = [f"1.7.{number}" for number in range(assembly.EARLY_LISTED + 1)]
    list_of(story.ledger, *many, sender="EVIL")
    assert rows(story.ledger) == [assembly.EARLY_IN_ALL, assembly.EARLY_IN_ALL]


def test_of_lists_that_name_nothing_of_their_senders_own_the_instances_are_bounded(
    story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(assembly, "EARLY_AWAITED", 10)
    for number in range(5):
        list_of(story.ledger, *(f"1.8.{number}.{n}" for n in range(4)), sender=f"EVIL{number}")
    assert rows(story.ledger) == [2, 8]
    list_of(story.ledger, image(story), "1.9.1")  # of the sender's own: they do not count
    assert rows(story.ledger) == [3, 9]


def test_a_list_of_what_somebody_else_sent_neither_delays_nor_hastens_and_is_not_kept(story: Story) -> None:
    first = image(story)
    before = due_in_s(story.ledger)
    list_of(story.ledger, first, sender="EVIL")
    assert rows(story.ledger) == [0, 0]
    list_of(story.ledger, first, "1.9.1", sender="EVIL", limit_s=900_000.0)
    image(story)
    assert abs(due_in_s(story.ledger) - before) < 600
    waiting = story.ledger.waiting(STUDY)
    assert waiting is not None
    assert (list(waiting.missing), grounds(story)) == ([], [])
    uids = [image(story, "1.6"), image(story, "1.6", calling_ae_title="EVIL")]
    list_of(story.ledger, *uids)  # two senders brought a study: each may list it
    story.final()
    assert len(grounds(story, "1.6")) == 1


def test_a_list_that_awaits_what_somebody_else_sends_weighs_on_its_senders_own_studies_alone(story: Story) -> None:
    own = image(story, "1.6", calling_ae_title="EVIL")
    list_of(story.ledger, own, "1.9.1", sender="EVIL")
    list_of(story.ledger, "1.9.1", sender="MORE EVIL")
    image(story, sop_instance_uid="1.9.1")  # of CT1, which goes on sending
    assert due_in_s(story.ledger) > 3000
    story.final()
    assert [len(grounds(story, study)) for study in ("1.6", STUDY)] == [1, 0]


def test_a_list_does_not_reach_a_study_by_one_image_that_its_sender_brought_there(story: Story) -> None:
    """What lies in studies of others does not count towards having listed all that is here."""
    others = [image(story, "1.6") for _ in range(4)]
    for _ in range(2):
        image(story)
    own = image(story, calling_ae_title="EVIL")
    list_of(story.ledger, own, *others, sender="EVIL")
    assert due_in_s(story.ledger) > 3000


def test_an_image_that_came_while_the_list_was_written_is_not_missing(story: Story) -> None:
    """Where transactions overlap (PostgreSQL), neither the list nor the image was seen by who wrote the other."""
    list_of(story.ledger, "1.9.1", "1.9.2")
    with transaction(story.ledger._engine, write=True) as connection:
        [statement] = connection.execute(stated_contents.select()).all()
        connection.execute(awaited_instances.delete())
    image(story, sop_instance_uid="1.9.1")
    with transaction(story.ledger._engine, write=True) as connection:
        awaited = [{"statement_id": statement.id, "sop_instance_uid": uid} for uid in ("1.9.1", "1.9.2")]
        connection.execute(awaited_instances.insert(), awaited)
    image(story, sop_instance_uid="1.9.2")
    story.final()
    assert grounds(story) == ["CT1 asked to commit 2 instances and all are here."]


def test_a_release_shortens_the_wait_of_the_studies_whose_newest_images_it_brought(story: Story) -> None:
    image(story, "1.1", association_id="a")
    image(story, "1.2", association_id="a")
    image(story, "1.2", association_id="b")
    story.ledger.released("a", ["1.1", "1.2"], SOON_S, "CT1 released its association.")
    story.final()
    assert grounds(story, "1.1") == ["CT1 released its association."]
    assert due_in_s(story.ledger, "1.2") > 3000


def test_a_release_does_not_lengthen_a_wait(story: Story) -> None:
    image(story, association_id="a", completion=Completion(SOON_S, 900.0, "Quiet."))
    story.ledger.released("a", [STUDY], 100.0, "Released.")
    story.final()
    assert grounds(story) == ["Quiet."]


def test_an_image_after_a_release_is_waited_for_anew(story: Story) -> None:
    image(story, association_id="a")
    story.ledger.released("a", [STUDY], 1000.0, "Released.")
    image(story, association_id="b")
    assert due_in_s(story.ledger) > 3000


def test_a_release_is_no_evidence_while_listed_instances_are_missing(story: Story) -> None:
    list_of(story.ledger, image(story, association_id="a"), "1.9.1")
    story.ledger.released("a", [STUDY], SOON_S, "Released.")
    assert due_in_s(story.ledger) > 7000


def test_a_report_that_is_put_back_is_made_when_the_study_has_been_quiet_once_more(story: Story) -> None:
    image(story, completion=Completion(SOON_S, 900.0, "Quiet."))
    job = story.next(Stage.REPORT)
    assert story.ledger.put_back(job, SOON_S, 900.0, "PACS lists 2, 1 is here.")
    again = story.next(Stage.REPORT)
    assert (again.job_id, again.attempt) == (job.job_id, 1)
    story.ledger.corroborated(again, "PACS lists as many.")
    story.report(job=again)
    assert grounds(story) == ["PACS lists 2, 1 is here. PACS lists as many."]


def test_a_report_is_not_put_back_beyond_the_limit(story: Story) -> None:
    image(story, completion=Completion(SOON_S, 900.0, "Quiet."))
    job = story.next(Stage.REPORT)
    assert not story.ledger.put_back(job, 100.0, 0.001, "More.")
    assert story.ledger.put_back(job, 1000.0, 200.0, "More.")
    assert due_in_s(story.ledger) < 201


def test_a_report_that_is_put_back_gives_way_to_a_newer_one(story: Story) -> None:
    image(story, completion=Completion(SOON_S, 900.0, "Quiet."))
    job = story.next(Stage.REPORT)
    image(story, completion=Completion(SOON_S, 900.0, "Newer."))
    assert story.ledger.put_back(job, SOON_S, 900.0, "More.")
    assert story.next(Stage.REPORT).job_id != job.job_id


def test_what_is_here_is_counted_as_an_archive_lists_it(story: Story) -> None:
    uid = image(story, series_instance_uid="1.1.1")
    image(story, series_instance_uid="1.1.1", sop_instance_uid=uid)  # other bytes, the same instance
    image(story, series_instance_uid="1.1.2")
    story.receive(disposition=Disposition.NOT_AN_IMAGE)
    story.receive(disposition=Disposition.OWN_RESULT)
    contents = story.ledger.contents(STUDY)
    assert (contents.received, contents.images, contents.own) == (3, {"1.1.1": 1, "1.1.2": 1}, 0)


@pytest.fixture
def reopened(url: str, tmp_path: Path) -> Iterator[list[Ledger]]:
    """Ledgers on the same database, one after the other."""
    ledgers: list[Ledger] = []
    yield ledgers
    for one in ledgers:
        one.close()


def test_a_hundred_open_studies_survive_a_restart_and_each_is_reported_once(
    url: str, tmp_path: Path, reopened: list[Ledger]
) -> None:
    before = Ledger.open(url, Store(tmp_path / "store"))
    for number in range(100):
        before.admit(received(f"1.7.{number}"), Completion(1.0, 900.0, "Quiet."))
    for job in before.claim(Stage.ANALYSE, "test", 100, 60.0):
        before.finish_analysis(job, [judged(LOW, 0.1)])
    before.close()
    reopened.append(Ledger.open(url, Store(tmp_path / "store")))
    [ledger] = reopened
    done: list[str] = []

    def all_done() -> bool:
        for job in ledger.claim(Stage.REPORT, "test", 100, 60.0):
            assert job.report_kind is ReportKind.FINAL
            ledger.finish_report(job, None)
            done.append(job.study_instance_uid)
        return len(done) >= 100

    wait_until(all_done, within_s=60)
    assert sorted(done) == sorted(f"1.7.{number}" for number in range(100))
    assert ledger.claim(Stage.REPORT, "test", 100, 60.0) == []
    counted = [[event.name for event in ledger.events(study)].count(COMPLETE) for study in done]
    assert counted == [1] * 100


def test_the_last_image_that_a_list_names_wakes_whoever_waited_for_it(story: Story) -> None:
    first, last = (received(STUDY, calling_ae_title="CT1") for _ in range(2))
    story.ledger.admit(first, QUIET)
    list_of(story.ledger, first.sop_instance_uid, last.sop_instance_uid)
    for topic in (Stage.REPORT, TOPIC):
        story.ledger._wake.listen(topic)
    story.ledger.admit(received(STUDY, calling_ae_title="CT1"), QUIET)
    assert not any(story.ledger._wake.wait(topic, 0.0) for topic in (Stage.REPORT, TOPIC))
    story.ledger.admit(last, QUIET)
    assert all(story.ledger._wake.wait(topic, 0.0) for topic in (Stage.REPORT, TOPIC))
