"""What may go with time goes, whole; what is still needed, or was promised, stays."""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import select, text, update

from ledger.audit import AuditKind
from ledger.commitment_results import CommitmentRequest, Listed
from ledger.completion import Completion
from ledger.database import transaction
from ledger.delivery_records import Proof, ProofOutcome
from ledger.ledger import Ledger
from ledger.records import Disposition, ReceivedInstance, Stage
from ledger.retention import DAY_S, Removed, Rules
from ledger.store import Store
from ledger.tables import audit_records, instances, results, studies
from node.watching.invariant import Instances, instances_of
from tests.support.ledger_story import HIGH, HOUR_S, LOW, PACS, STUDY, Story
from tests.support.ledgers import analysed
from tests.support.records import judged, not_applicable, received

RULES = Rules(images_s=30 * DAY_S, results_s=90 * DAY_S)
# The database is asked nothing special in these.
ON_SQLITE = pytest.mark.parametrize("url", ["sqlite"], indirect=True)
CT1 = "MODALITY"  # the calling AE title of tests.support.records


def stored(story: Story, **changes: object) -> ReceivedInstance:
    """A received instance with a file behind it."""
    plain = received(STUDY)
    content = plain.sha256.encode()
    digest = hashlib.sha256(content).hexdigest()
    path = story.ledger.store.put("instances", digest, ".dcm", content)
    return story.receive(**{"sha256": digest, "path": path, "size_bytes": len(content), **changes})


def proven(story: Story, proof: Proof = Proof.COMMITTED) -> ReceivedInstance:
    """An image with a picture and a mask, reported, delivered and asked for."""
    instance = stored(story)
    picture = story.ledger.store.put("pictures", "ab", ".png", b"picture")
    story.look(replace(analysed(), display_path=picture))
    story.final()
    while story.claimable(Stage.DELIVER):
        story.deliver(prove_after_s=0.0)
    while story.claimable(Stage.PROVE):
        job = story.next(Stage.PROVE, PACS)
        for item in story.ledger.unproven(job):
            story.ledger.record_proof(job, ProofOutcome(item.object_id, proof, "asked"))
        story.ledger.finish_proof(job)
    return instance


def age(ledger: Ledger, days: float) -> None:
    """Everything happened so long ago."""
    ago = days * DAY_S
    with transaction(ledger._engine, write=True) as connection:
        for table, columns in (
            ("studies", ("first_received_at", "last_received_at", "completed_at")),
            ("instances", ("received_at",)),
            ("jobs", ("queued_at", "finished_at")),
            ("deliveries", ("changed_at", "proven_at")),
            ("notifications", ("changed_at",)),
            ("reports", ("created_at",)),
        ):
            moved = ", ".join(f"{column} = {column} - {ago}" for column in columns)
            connection.execute(text(f"UPDATE {table} SET {moved}"))


def files(store: Store) -> dict[str, int]:
    return {kind: sum(path.is_file() for path in (store.root / kind).rglob("*")) for kind in Store.KINDS}


def audited(ledger: Ledger) -> list[str]:
    with transaction(ledger._engine, write=False) as connection:
        kinds = select(audit_records.c.detail).where(audit_records.c.kind == AuditKind.STUDY_DELETED)
        return list(connection.execute(kinds.order_by(audit_records.c.id)).scalars())


def test_images_go_when_all_is_proven_and_old_and_results_stay(story: Story) -> None:
    proven(story)
    ledger = story.ledger
    age(ledger, 29)
    assert ledger.remove_old(RULES, of_images=True) == Removed()
    age(ledger, 2)
    assert ledger.remove_old(RULES, of_images=True).instances == 1
    assert files(ledger.store)["instances"] == files(ledger.store)["pictures"] == 0
    assert files(ledger.store)["objects"] > 0
    [entry] = ledger.worklist()
    assert entry.priority is HIGH
    [item] = ledger.study_instances(STUDY)
    assert item.results[0].display_path is None  # nothing promises a file
    assert ledger.reconcile().lost == []
    assert ledger.kept().files == 0
    assert '"instances":1' in audited(ledger)[0]
    assert STUDY not in audited(ledger)[0]
    assert "images_removed" in story.events()
    assert ledger.remove_old(RULES, of_images=True) == Removed()


def test_results_go_later_and_leave_the_studys_row(story: Story) -> None:
    proven(story)
    ledger = story.ledger
    age(ledger, 91)
    assert ledger.remove_old(RULES, of_images=False) == Removed()  # its images are still here
    ledger.remove_old(RULES, of_images=True)
    assert ledger.remove_old(RULES, of_images=False).studies == 1
    assert set(files(ledger.store).values()) == {0}
    assert ledger.study_instances(STUDY) == ledger.study_objects(STUDY) == []
    assert story.events() == ["results_removed"]
    with transaction(ledger._engine, write=False) as connection:
        row = connection.execute(select(studies)).one()
    assert row.images_removed_at
    assert row.results_removed_at
    assert row.priority is None
    assert ledger.remove_old(RULES, of_images=False) == Removed()


def test_what_was_received_stays_counted_when_it_goes(story: Story) -> None:
    """A counter never shrinks, and nothing that was removed seems lost."""

    def counted() -> Instances:
        return instances_of(story.ledger.counts())

    proven(story)
    age(story.ledger, 91)
    stored(story, study="1.2.3.77")
    assert (counted().received, counted().in_flight) == (2, 1)
    for of_images in (True, False):
        assert story.ledger.remove_old(RULES, of_images=of_images).studies == 1
        assert (counted().received, counted().drift) == (2, 0)
    assert story.ledger.study_instances(STUDY) == []
    story.ledger.forget("1.2.3.77", "user:test", {}, despite=True)
    assert counted() == Instances(received=2, terminal=2, in_flight=0)


@ON_SQLITE
def test_no_object_of_a_removed_report_is_ever_made_again(story: Story) -> None:
    proven(story)
    age(story.ledger, 91)
    made = len({one.report_id for one in story.ledger.study_objects(STUDY)})
    story.ledger.remove_old(RULES, of_images=True)
    story.ledger.remove_old(RULES, of_images=False)
    story.image(judged(HIGH))
    provisional = story.report()
    assert provisional is not None
    assert provisional.revision == made  # a part of who its objects are


def _waits(story: Story) -> None:
    stored(story)
    story.look()
    story.final()


def _refused(story: Story) -> None:
    stored(story)
    story.look()
    job = None
    story.final()
    while story.claimable(Stage.DELIVER):
        job = story.next(Stage.DELIVER, PACS)
        story.ledger.park_delivery(job, "It does not want it.")


def _unproven(story: Story) -> None:
    proven(story, Proof.UNPROVEN)


def _held(story: Story) -> None:
    proven(story)
    with transaction(story.ledger._engine, write=True) as connection:
        connection.execute(update(studies).values(hold="Two patients."))


def _recalled(story: Story) -> None:
    proven(story)
    story.ledger.recall("It was wrong.", study_uid=STUDY)


def _being_looked_at(story: Story) -> None:
    proven(story)
    story.ledger.look_again(STUDY, "Again.")


@ON_SQLITE
@pytest.mark.parametrize("still", [_waits, _refused, _unproven, _held, _recalled, _being_looked_at])
def test_a_study_of_which_something_is_to_be_done_stays(story: Story, still: Callable[[Story], None]) -> None:
    still(story)
    age(story.ledger, 1000)
    assert story.ledger.remove_old(RULES, of_images=True) == Removed()
    assert files(story.ledger.store)["instances"] == 1


@ON_SQLITE
def test_what_cannot_be_proven_goes_where_acceptance_is_to_count(story: Story) -> None:
    _unproven(story)
    age(story.ledger, 31)
    accepted = replace(RULES, without_proof=True)
    assert story.ledger.remove_old(accepted, of_images=True).instances == 1


@ON_SQLITE
def test_what_was_never_to_be_delivered_goes_by_the_time_it_came(story: Story) -> None:
    stored(story, study="1.2.7", disposition=Disposition.PRIOR)
    stored(story, study="1.2.8", disposition=Disposition.NOT_AN_IMAGE)
    stored(story, study="1.2.9")
    story.look(not_applicable())
    assert story.report() is None
    age(story.ledger, 31)
    assert story.ledger.remove_old(RULES, of_images=True).studies == 3


@ON_SQLITE
def test_a_shadow_report_needs_no_proof(url: str, ledger: Ledger, tmp_path: Path) -> None:
    dark = Story(Ledger.open(url, Store(tmp_path / "store"), in_shadow=True))
    stored(dark)
    dark.look()
    dark.final()
    age(dark.ledger, 31)
    assert dark.ledger.remove_old(RULES, of_images=True).instances == 1
    dark.ledger.close()


@ON_SQLITE
def test_what_a_sender_was_promised_stays_as_long_as_promised(story: Story) -> None:
    proven(story)
    age(story.ledger, 50)
    assert story.ledger.remove_old(replace(RULES, promised_s={CT1: 60 * DAY_S}), of_images=True) == Removed()
    assert story.ledger.remove_old(replace(RULES, promised_s={CT1: 40 * DAY_S}), of_images=True).studies == 1


def test_what_we_committed_to_stays_when_nobody_knows_any_more_for_how_long(story: Story) -> None:
    instance = proven(story)
    listed = (Listed(instance.sop_class_uid, instance.sop_instance_uid),)
    story.ledger.commitment_requested(CommitmentRequest("OTHER_CT", "2.25.77", listed), 0.0)
    age(story.ledger, 400)
    assert story.ledger.remove_old(RULES, of_images=True) == Removed()  # it waits for our word
    held = story.ledger.claim_this_commitment(1, "test", 60.0)
    assert held is not None
    with transaction(story.ledger._engine, write=True) as connection:
        connection.execute(text("UPDATE commitment_request_items SET reason = 0"))
    story.ledger.commitment_told(held)
    assert story.ledger.remove_old(RULES, of_images=True) == Removed()
    known = replace(RULES, promised_s={"OTHER_CT": 60 * DAY_S})
    assert story.ledger.remove_old(known, of_images=True).studies == 1


def test_one_that_stays_does_not_keep_the_next_from_going(story: Story) -> None:
    for n in range(3):
        stored(story, study=f"1.2.{n}", disposition=Disposition.PRIOR, calling_ae_title="LONG" if n < 2 else CT1)
    age(story.ledger, 31)
    rules = replace(RULES, promised_s={"LONG": 1000 * DAY_S})
    assert story.ledger.remove_old(rules, of_images=True, limit=1).studies == 1


@ON_SQLITE
def test_a_removed_image_is_never_committed_to_and_is_no_alarm(story: Story) -> None:
    instance = proven(story)
    age(story.ledger, 31)
    story.ledger.remove_old(RULES, of_images=True)
    listed = (Listed(instance.sop_class_uid, instance.sop_instance_uid),)
    request = story.ledger.commitment_requested(CommitmentRequest("CT2", "2.25.78", listed), 0.0)
    held = story.ledger.claim_this_commitment(request, "test", 60.0)
    assert held is not None
    judgement = story.ledger.judge_commitment(held, 1000 * DAY_S)
    assert judgement is not None
    assert [reason for _, reason in judgement.result.judged] == [0x0213]
    assert judgement.damaged == ()


def test_a_removed_image_that_comes_again_is_kept_again_and_what_was_said_of_it_stands(story: Story) -> None:
    instance = proven(story)
    ledger = story.ledger
    age(ledger, 31)
    ledger.remove_old(RULES, of_images=True)
    again = replace(instance, path=ledger.store.put("instances", instance.sha256, ".dcm", instance.sha256.encode()))
    admission = ledger.admit(again, Completion(HOUR_S))
    assert admission.path == again.path
    assert not story.claimable(Stage.ANALYSE)
    assert ledger.remove_old(RULES, of_images=True) == Removed()  # it came today
    assert files(ledger.store)["instances"] == 1
    ref = ledger.find_instance(again.sop_instance_uid, again.sha256)
    assert ref is not None
    assert ledger.store.path(ref.path).exists()
    [item] = ledger.study_instances(STUDY)
    assert item.results


@ON_SQLITE
def test_an_image_that_comes_again_before_its_file_is_gone_does_not_lose_the_new_one(story: Story) -> None:
    """A crash, or another process, between the rows and the files."""
    instance = proven(story)
    ledger = story.ledger
    age(ledger, 31)
    ledger.finish_removals = lambda: 0  # type: ignore[method-assign]
    ledger.remove_old(RULES, of_images=True)
    del ledger.finish_removals  # type: ignore[attr-defined]
    again = replace(instance, path=ledger.store.put("instances", instance.sha256, ".dcm", b"again"))
    ledger.admit(again, Completion(HOUR_S))
    assert ledger.finish_removals() > 0
    assert not ledger.store.path(instance.path).exists()
    assert ledger.store.path(again.path).exists()


@ON_SQLITE
def test_a_start_finishes_what_a_crash_left_and_takes_nothing_for_unknown(story: Story) -> None:
    proven(story)
    ledger = story.ledger
    age(ledger, 91)
    ledger.finish_removals = lambda: 0  # type: ignore[method-assign]
    ledger.remove_old(RULES, of_images=True)
    ledger.remove_old(RULES, of_images=False)
    assert files(ledger.store)["objects"] > 0
    found = ledger.reconcile()
    assert (found.lost, found.orphans_moved, found.results_deleted) == ([], 0, 0)
    assert set(files(ledger.store).values()) == {0}


@ON_SQLITE
def test_the_picture_of_a_result_that_another_replaces_goes(story: Story) -> None:
    stored(story)
    for content in (b"first", b"second"):
        picture = story.ledger.store.put("pictures", "ab", ".png", content)
        story.look(replace(judged(LOW, 0.1), display_path=picture))
        story.ledger.look_again(STUDY, "Again.")
    assert story.ledger.finish_removals() == 1
    with transaction(story.ledger._engine, write=False) as connection:
        assert picture in connection.execute(select(results.c.body)).scalar_one()
    assert story.ledger.store.path(picture).exists()


@ON_SQLITE
def test_a_removed_image_is_not_looked_at_again(story: Story) -> None:
    proven(story)
    age(story.ledger, 31)
    story.ledger.remove_old(RULES, of_images=True)
    assert story.ledger.look_again(STUDY, "Again.") == 0
    with transaction(story.ledger._engine, write=False) as connection:
        assert connection.execute(select(instances.c.removed_at)).scalar_one()
