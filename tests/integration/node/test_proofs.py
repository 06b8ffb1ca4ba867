"""Whether a destination holds what it accepted: asked of archives that commit, list, forget, or will not say."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from config.settings import DeliverSettings, NodeSettings, ReceiveSettings, Settings
from ledger.ledger import Ledger
from ledger.records import DeliveryState, Proof, Stage, StoredObject
from ledger.views import ObjectDelivery
from node.roles.deliver import Deliverer
from node.roles.prove import Prover
from scp.receiver import Receiver
from sr_writer.guard import Guard
from tests.support.asked import queue_report
from tests.support.committing import Archive
from tests.support.ledgers import open_fresh
from tests.support.peers import free_port
from tests.support.waiting import wait_until

WITHIN_S = 60.0
STUDY = "1.2.3"


class Trusting:
    """These documents rest on no real image; whose they are is proven elsewhere."""

    def prove(self, item: StoredObject, content: bytes) -> None:
        """Everything may leave."""


class Node:
    """Delivery and proof to one destination, as the deliver role runs them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ledger: Ledger = open_fresh(folder)
        self.port = free_port()
        self.stop = threading.Event()
        self._threads: list[threading.Thread] = []

    def settings(self, archive: Archive, destination: dict[str, Any], deliver: dict[str, Any]) -> Settings:
        quick = {"prove_after_s": 0.05, "retry_first_s": 0.05, "retry_max_s": 0.2, "commitment_wait_s": 10.0}
        return Settings(
            node=NodeSettings(state_dir=self.folder),
            receive=ReceiveSettings(host="127.0.0.1", port=self.port, free_disk_min_bytes=0),
            deliver=DeliverSettings.model_validate(quick | deliver),
            destinations=(archive.destination(**destination),),
        )

    def run(self, settings: Settings) -> None:
        [destination] = settings.destinations
        guard = cast(Guard, Trusting())
        loops = (
            Deliverer(self.ledger, settings, destination, self.stop, guard),
            Prover(self.ledger, settings, destination, self.stop),
        )
        for loop in loops:
            self._threads.append(threading.Thread(target=loop.run, daemon=True))
            self._threads[-1].start()

    def objects(self) -> list[ObjectDelivery]:
        return self.ledger.study_objects(STUDY)

    def proofs(self) -> list[Proof]:
        return [one.proof for one in self.objects()]

    def all_are(self, *proofs: Proof) -> list[ObjectDelivery]:
        return wait_until(lambda: self.objects() if set(self.proofs()) == set(proofs) else [], WITHIN_S)

    def events(self, name: str) -> list[str]:
        return [event.text for event in self.ledger.events(STUDY) if event.name == name]

    def idle(self) -> bool:
        jobs = self.ledger.counts()["jobs"]
        return not any(
            jobs.get(f"{stage}:{state}") for stage in (Stage.DELIVER, Stage.PROVE) for state in ("queued", "running")
        )

    def close(self) -> None:
        self.stop.set()
        for thread in self._threads:
            thread.join(20)
        self.ledger.close()


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    made = Node(tmp_path)
    yield made
    made.close()


def begin(node: Node, archive: Archive, destination: dict[str, Any] | None = None, **deliver: Any) -> Settings:
    settings = node.settings(archive, destination or {}, deliver)
    queue_report(node.ledger, "archive", STUDY)
    node.run(settings)
    return settings


def test_an_archive_that_answers_on_the_same_association_commits(node: Node) -> None:
    with Archive() as archive:
        begin(node, archive)
        objects = node.all_are(Proof.COMMITTED)
    assert len(archive.transactions) == 1
    assert all(archive.transactions[0] in one.proof_text and one.proven_at for one in objects)
    assert archive.queries == 0


def test_an_archive_that_answers_on_an_association_of_its_own_commits(node: Node) -> None:
    with Archive(reply_to=node.port) as archive:
        settings = node.settings(archive, {}, {"commitment_wait_s": 0.2})
        receiver = Receiver(settings, node.ledger)
        receiver.start()
        try:
            queue_report(node.ledger, "archive", STUDY)
            node.run(settings)
            node.all_are(Proof.COMMITTED)
            wait_until(lambda: archive.answered, 10)
        finally:
            receiver.stop(0.0)
    assert archive.answered == [0x0000]
    assert archive.queries == 0


def test_an_archive_that_never_answers_is_read_back(node: Node) -> None:
    with Archive(silent=True) as archive:
        begin(node, archive, commitment_wait_s=0.1, commitment_answer_max_s=0.5)
        node.all_are(Proof.FOUND)
    assert len(archive.transactions) == 1


@pytest.mark.parametrize("one_only", [False, True], ids=["list of UIDs", "one UID only"])
def test_an_archive_that_lists_is_believed(node: Node, one_only: bool) -> None:
    with Archive(commits=False, lists_one_uid_only=one_only) as archive:
        begin(node, archive)
        objects = node.all_are(Proof.FOUND)
    assert {one.proof_text for one in objects} == {"archive lists it (C-FIND)."}


def test_an_archive_that_offers_no_way_to_ask_leaves_it_unproven_and_says_why(node: Node) -> None:
    with Archive(commits=False, finds=False) as archive:
        begin(node, archive)
        objects = node.all_are(Proof.UNPROVEN)
        wait_until(node.idle, 20)
    assert {one.state for one in objects} == {DeliveryState.DELIVERED}
    assert "does not offer Storage Commitment" in objects[0].proof_text
    assert "does not offer Study Root" in objects[0].proof_text
    assert node.ledger.parked() == []


@pytest.mark.parametrize("commits", [True, False], ids=["commitment", "read-back"])
def test_what_is_lost_after_it_was_accepted_is_sent_again(node: Node, commits: bool) -> None:
    lost: list[str] = []

    def once(uid: str, time: int) -> bool:
        if not lost:
            lost.append(uid)
        return uid in lost and time == 1

    with Archive(commits=commits, loses=once) as archive:
        begin(node, archive)
        node.all_are(Proof.COMMITTED if commits else Proof.FOUND)
        wait_until(node.idle, 20)
        assert sorted(archive.held) == sorted(one.sop_instance_uid for one in node.objects())
    assert [archive.came.count(uid) for uid in archive.held] == [2 if uid in lost else 1 for uid in archive.held]
    assert len(node.events("proof_missing")) == 1


def test_what_is_lost_again_and_again_is_parked_with_a_sentence(node: Node) -> None:
    with Archive(loses=lambda uid, time: uid.endswith("1")) as archive:
        begin(node, archive, {"proof": ("find",)})
        [parked] = wait_until(node.ledger.parked, WITHIN_S)
    assert parked.stage is Stage.PROVE
    assert "has accepted objects of this report 3 times and does not hold them" in parked.reason
    lost = [one for one in node.objects() if one.proof is Proof.MISSING]
    assert {one.state for one in lost} == {DeliveryState.REFUSED}
    assert {archive.came.count(one.sop_instance_uid) for one in lost} == {3}
    assert node.ledger.claim(Stage.DELIVER, "test", 9, 60) == []


def test_a_conflict_is_a_sentence_and_not_a_reason_to_send_again(node: Node) -> None:
    with Archive(loses=lambda uid, time: True, failure_reason=0x0119) as archive:
        begin(node, archive)
        objects = node.all_are(Proof.UNPROVEN)
    assert "another SOP class" in objects[0].proof_text
    assert len(archive.came) == len(objects)


def test_an_archive_that_cannot_commit_to_something_is_read_back(node: Node) -> None:
    with Archive(commits_to=lambda uid: uid.endswith("1"), failure_reason=0x0110) as archive:
        begin(node, archive)
        objects = node.all_are(Proof.COMMITTED, Proof.FOUND)
        assert archive.came.count(objects[0].sop_instance_uid) == 1
    assert [one.proof for one in objects] == [Proof.COMMITTED, Proof.FOUND, Proof.FOUND]


def test_an_archive_that_is_away_is_asked_when_it_is_back(node: Node) -> None:
    archive = Archive()
    with archive:
        settings = node.settings(archive, {}, {"prove_after_s": 1.0})
        queue_report(node.ledger, "archive", STUDY)
        node.run(settings)
        wait_until(lambda: len(archive.came) == len(node.objects()) > 0, WITHIN_S)
    wait_until(lambda: node.events("prove_retry"), WITHIN_S)
    assert set(node.proofs()) == {Proof.WAITING}
    with archive:
        node.all_are(Proof.COMMITTED)


def test_a_slow_proof_delays_no_delivery(node: Node) -> None:
    with Archive(silent=True) as archive:
        begin(node, archive, commitment_wait_s=30.0)
        wait_until(lambda: archive.transactions, WITHIN_S)  # the prover sits on its association from now on
        queue_report(node.ledger, "archive", "1.2.4")
        wait_until(lambda: {one.state for one in node.ledger.study_objects("1.2.4")} == {DeliveryState.DELIVERED}, 20)
        assert set(node.proofs()) == {Proof.WAITING}
