"""Whether a destination holds what it accepted: asked of archives that commit, list, forget, or will not say."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_primitives import N_EVENT_REPORT

from config.settings import Settings
from ledger.audit import AuditKind
from ledger.delivery_records import DeliveryState, Proof
from ledger.records import Stage
from ledger.trail import Asked
from node.roles.prove import ASKS, addresses_of
from scp.receiver import Receiver
from tests.support.asked import queue_report
from tests.support.committing import Archive
from tests.support.proving import STUDY, WITHIN_S, Delivering
from tests.support.waiting import wait_until


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Delivering]:
    made = Delivering(tmp_path)
    yield made
    made.close()


def test_an_archive_that_answers_on_the_same_association_commits(node: Delivering) -> None:
    with Archive() as archive:
        node.begin(archive.destination())
        objects = node.all_are(Proof.COMMITTED)
    assert len(archive.transactions) == 1
    assert all("took responsibility" in one.proof_text and one.proven_at for one in objects)
    said = [one.proof_text for one in objects] + [event.text for event in node.ledger.events(STUDY)]
    assert not any(archive.transactions[0] in text for text in said)  # who reads it could answer in its place
    assert archive.queries == 0


def test_an_archive_hears_that_its_answer_came_before_the_association_is_released(
    node: Delivering, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slowly(dimse: DIMSEServiceProvider, primitive: Any, context_id: int) -> None:
        if isinstance(primitive, N_EVENT_REPORT) and primitive.MessageIDBeingRespondedTo is not None:
            time.sleep(0.5)
        send(dimse, primitive, context_id)

    send = DIMSEServiceProvider.send_msg
    monkeypatch.setattr(DIMSEServiceProvider, "send_msg", slowly)
    with Archive() as archive:
        node.begin(archive.destination())
        node.all_are(Proof.COMMITTED)
        assert wait_until(lambda: archive.answered, WITHIN_S) == [0x0000]


def test_an_archive_that_answers_on_an_association_of_its_own_commits(
    node: Delivering, hear: Callable[[Settings], None]
) -> None:
    with Archive(reply_to=node.port) as archive:
        settings = node.settings(archive.destination(), commitment_wait_s=0.2)
        hear(settings)
        queue_report(node.ledger, "archive", STUDY)
        node.run(settings)
        node.all_are(Proof.COMMITTED)
        wait_until(lambda: archive.answered, 30)
    assert archive.answered == [0x0000]
    assert archive.queries == 0


def test_an_archive_that_never_answers_is_read_back(node: Delivering) -> None:
    with Archive(silent=True) as archive:
        node.begin(archive.destination(), commitment_wait_s=0.1, commitment_answer_max_s=0.5)
        node.all_are(Proof.FOUND)
    assert len(archive.transactions) == 1


def test_the_audit_trail_says_when_a_transfer_begins_and_what_the_archive_was_asked(node: Delivering) -> None:
    with Archive(silent=True) as archive:
        node.begin(archive.destination(), commitment_wait_s=0.1, commitment_answer_max_s=0.5)
        objects = node.all_are(Proof.FOUND)
    lines = [line for line in reversed(node.ledger.audit_log(Asked(study_uid=STUDY))) if line.detail.get("to")]
    begins = [line for line in lines if line.kind is AuditKind.TRANSFERS]
    assert len(begins) == 1  # of one association and study, however many objects
    assert sum(begins[0].detail["sop_classes"].values()) == len(objects)
    assert lines.index(begins[0]) < min(n for n, line in enumerate(lines) if line.kind is AuditKind.TRANSFERRED)
    assert {line.detail["how"] for line in lines if line.kind is AuditKind.QUERY} == {"storage commitment", "C-FIND"}


def test_an_archive_that_breaks_off_at_every_question_leaves_it_unproven_and_says_what_to_do(node: Delivering) -> None:
    with Archive(breaks_off=True) as archive:
        node.begin(archive.destination())
        objects = node.all_are(Proof.UNPROVEN)
    assert archive.queries <= 2
    assert all("make this AE title known there" in one.proof_text for one in objects)


@pytest.fixture
def hear(node: Delivering) -> Iterator[Callable[[Settings], None]]:
    """Start our own AE beside the loops."""
    started: list[Receiver] = []

    def start(settings: Settings) -> None:
        started.append(Receiver(settings, node.ledger))
        started[-1].start()

    yield start
    for receiver in started:
        receiver.stop(0.0)


def test_an_answer_that_comes_after_a_restart_is_used(node: Delivering, hear: Callable[[Settings], None]) -> None:
    with Archive(silent=True) as archive:
        settings = node.begin(archive.destination(), commitment_wait_s=0.1)
        wait_until(lambda: archive.asked and node.ledger.counts()["commitments"], WITHIN_S)
        node.pause()
        node.run(settings)
        hear(settings)
        assert archive.report(*archive.answer_to(archive.asked[0]), node.port) == 0x0000
        node.all_are(Proof.COMMITTED)
    assert len(archive.transactions) == 1


def test_an_answer_that_comes_too_late_still_counts(node: Delivering, hear: Callable[[Settings], None]) -> None:
    with Archive(silent=True) as archive:
        settings = node.begin(archive.destination(), commitment_wait_s=0.1, commitment_answer_max_s=0.3)
        hear(settings)
        node.all_are(Proof.FOUND)
        assert archive.report(*archive.answer_to(archive.asked[0]), node.port) == 0x0000
        assert set(node.proofs()) == {Proof.COMMITTED}


@pytest.mark.parametrize("one_only", [False, True], ids=["list of UIDs", "one UID only"])
def test_an_archive_that_lists_is_believed(node: Delivering, one_only: bool) -> None:
    with Archive(commits=False, lists_one_uid_only=one_only) as archive:
        node.begin(archive.destination())
        objects = node.all_are(Proof.FOUND)
    assert {one.proof_text for one in objects} == {"archive lists it (C-FIND)."}


def test_an_archive_that_offers_no_way_to_ask_leaves_it_unproven_and_says_why(node: Delivering) -> None:
    with Archive(commits=False, finds=False) as archive:
        node.begin(archive.destination())
        objects = node.all_are(Proof.UNPROVEN)
        wait_until(node.idle, 60)
    assert {one.state for one in objects} == {DeliveryState.DELIVERED}
    assert "does not offer Storage Commitment" in objects[0].proof_text
    assert "does not offer Study Root" in objects[0].proof_text
    assert node.ledger.parked() == []


@pytest.mark.parametrize("commits", [True, False], ids=["commitment", "read-back"])
def test_what_is_lost_after_it_was_accepted_is_sent_again(node: Delivering, commits: bool) -> None:
    lost: list[str] = []

    def once(uid: str, time: int) -> bool:
        if not lost:
            lost.append(uid)
        return uid in lost and time == 1

    with Archive(commits=commits, loses=once) as archive:
        node.begin(archive.destination())
        node.all_are(Proof.COMMITTED if commits else Proof.FOUND)
        wait_until(node.idle, 60)
        assert sorted(archive.held) == sorted(one.sop_instance_uid for one in node.objects())
    assert [archive.came.count(uid) for uid in archive.held] == [2 if uid in lost else 1 for uid in archive.held]
    assert len(node.events("proof_missing")) == 1


def test_what_is_lost_again_and_again_is_parked_with_a_sentence(node: Delivering) -> None:
    with Archive(loses=lambda uid, time: uid.endswith("1")) as archive:
        node.begin(archive.destination(proof=("find",)))
        [parked] = wait_until(node.ledger.parked, WITHIN_S)
    assert parked.stage is Stage.PROVE
    assert "has accepted objects of this report 3 times and says that it does not have them" in parked.reason
    lost = [one for one in node.objects() if one.proof is Proof.MISSING]
    assert {one.state for one in lost} == {DeliveryState.REFUSED}
    assert {archive.came.count(one.sop_instance_uid) for one in lost} == {3}
    assert node.ledger.claim(Stage.DELIVER, "test", 9, 60) == []


def test_a_conflict_is_a_sentence_and_not_a_reason_to_send_again(node: Delivering) -> None:
    with Archive(loses=lambda uid, time: True, failure_reason=0x0119) as archive:
        node.begin(archive.destination())
        objects = node.all_are(Proof.UNPROVEN)
    assert "another SOP class" in objects[0].proof_text
    assert len(archive.came) == len(objects)


def test_an_archive_that_cannot_commit_to_something_is_read_back(node: Delivering) -> None:
    with Archive(commits_to=lambda uid: uid.endswith("1"), failure_reason=0x0110) as archive:
        node.begin(archive.destination())
        objects = node.all_are(Proof.COMMITTED, Proof.FOUND)
        assert archive.came.count(objects[0].sop_instance_uid) == 1
    assert [one.proof for one in objects] == [Proof.COMMITTED, Proof.FOUND, Proof.FOUND]


def test_an_archive_that_is_away_is_asked_when_it_is_back(node: Delivering) -> None:
    archive = Archive()
    with archive:
        settings = node.deliver(archive.destination())
    node.run_prover(settings)
    wait_until(lambda: node.events("prove_retry"), WITHIN_S)
    assert set(node.proofs()) == {Proof.WAITING}
    with archive:
        node.all_are(Proof.COMMITTED)


def test_a_slow_proof_delays_no_delivery(node: Delivering) -> None:
    answer = threading.Event()
    with Archive(commits_to=lambda uid: answer.wait(120)) as archive:
        node.begin(archive.destination(), commitment_wait_s=120.0)
        wait_until(lambda: archive.transactions, WITHIN_S)  # the prover sits on its association from now on
        queue_report(node.ledger, "archive", "1.2.4")
        wait_until(lambda: {one.state for one in node.ledger.study_objects("1.2.4")} == {DeliveryState.DELIVERED}, 60)
        assert set(node.proofs()) == {Proof.WAITING}
        answer.set()
        node.all_are(Proof.COMMITTED)


def test_an_archive_that_refuses_everything_leaves_nothing_to_prove(node: Delivering) -> None:
    with Archive(stores=False, commits=False, finds=False) as archive:
        node.begin(archive.destination())
        [parked] = wait_until(node.ledger.parked, WITHIN_S)
    assert parked.stage is Stage.DELIVER
    assert {(one.state, one.proof) for one in node.objects()} == {(DeliveryState.REFUSED, Proof.NONE)}
    assert not any(key.startswith("prove") for key in node.ledger.counts()["jobs"])


def test_a_destination_that_is_not_to_be_asked_is_not_asked(node: Delivering) -> None:
    with Archive() as archive:
        node.begin(archive.destination(proof=()))
        node.all_are(Proof.UNPROVEN)
    assert (archive.transactions, archive.queries) == ([], 0)


def test_an_archive_that_answers_and_never_decides_is_not_asked_for_ever(
    node: Delivering, hear: Callable[[Settings], None]
) -> None:
    with Archive(silent=True, commits_to=lambda uid: False, failure_reason=0x0110) as archive:
        settings = node.settings(archive.destination(proof=("commitment",)), commitment_wait_s=0.1)
        hear(settings)
        queue_report(node.ledger, "archive", STUDY)
        node.run(settings)

        answered: list[int] = []

        def waits_or_is_done() -> bool:
            waits = len(archive.asked) > len(answered) and node.ledger.counts()["jobs"].get("prove:queued", 0) > 0
            return waits or set(node.proofs()) == {Proof.UNPROVEN}

        while len(answered) <= ASKS:
            wait_until(waits_or_is_done, WITHIN_S)
            if set(node.proofs()) == {Proof.UNPROVEN}:
                break
            answered.append(archive.report(*archive.answer_to(archive.asked[-1]), node.port))
    assert set(answered) == {0x0000}
    assert 1 <= len(archive.asked) <= ASKS
    assert "could not process the request" in node.objects()[0].proof_text


def test_the_addresses_of_a_destination_are_kept_with_what_it_was_asked(node: Delivering) -> None:
    with Archive(silent=True) as archive:
        node.begin(archive.destination(host="localhost"), commitment_wait_s=0.1)
        wait_until(lambda: archive.transactions, WITHIN_S)
        [transaction] = archive.transactions
        asked = node.ledger.commitment_transaction(transaction)
    assert asked is not None
    assert "127.0.0.1" in asked.addresses
    assert addresses_of("no.such.host.invalid") == addresses_of("a" * 70 + ".example") == ()
