"""An archive answers a request for storage commitment on an association of its own: who may, and what is kept."""

import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from pydicom.dataset import Dataset

from config.settings import NodeSettings, PeerBinding, ReceiveSettings, Settings
from ledger.audit import AuditKind
from ledger.ledger import Ledger
from ledger.records import Job
from ledger.store import Store
from scp.callers.observing import Observer
from scp.receiver import Receiver
from tests.support.asked import asked_to_commit
from tests.support.certificates import Authority
from tests.support.committing import AE_TITLE, Archive
from tests.support.peers import free_port
from tests.support.rawscu import RawScu

TRANSACTION = "2.25.4711"
Start = Callable[..., int]


class Node:
    def __init__(
        self,
        folder: Path,
        archive: Archive,
        receive: dict[str, Any],
        destination: dict[str, Any],
        peers: tuple[PeerBinding, ...] = (),
        addresses: tuple[str, ...] = (),
    ) -> None:
        received = {"host": "127.0.0.1", "port": free_port(), "free_disk_min_bytes": 0, **receive}
        self.settings = Settings(
            node=NodeSettings(state_dir=folder),
            receive=ReceiveSettings(**received),
            destinations=(archive.destination(**destination),),
            peers=peers,
        )
        self.port = self.settings.receive.port
        self.ledger = Ledger.open(self.settings.database_url, Store(folder / "store"))
        self.receiver = Receiver(self.settings, self.ledger)
        self.receiver.start()
        self.job: Job
        self.job, self.uids = asked_to_commit(self.ledger, "archive", TRANSACTION, addresses)

    def reasons(self) -> dict[str, int | None]:
        commitment = self.ledger.commitment(self.job)
        assert commitment is not None
        return dict(commitment.reasons)


@pytest.fixture
def archive() -> Archive:
    return Archive()


@pytest.fixture
def start(tmp_path: Path, archive: Archive) -> Iterator[Callable[..., Node]]:
    started: list[Node] = []

    def starter(
        destination: dict[str, Any] | None = None,
        peers: tuple[PeerBinding, ...] = (),
        addresses: tuple[str, ...] = (),
        **receive: Any,
    ) -> Node:
        started.append(Node(tmp_path, archive, receive, destination or {}, peers, addresses))
        return started[-1]

    yield starter
    for node in started:
        node.receiver.stop(0.0)
        node.ledger.close()


def _answer(committed: list[str], failed: list[str], transaction: str = TRANSACTION) -> tuple[Dataset, int]:
    answer = Dataset()
    answer.TransactionUID = transaction
    for name, uids in (("ReferencedSOPSequence", committed), ("FailedSOPSequence", failed)):
        items = []
        for uid in uids:
            item = Dataset()
            item.ReferencedSOPClassUID = "1.2.840.10008.5.1.4.1.1.88.22"
            item.ReferencedSOPInstanceUID = uid
            if name == "FailedSOPSequence":
                item.FailureReason = 0x0112
            items.append(item)
        if items:
            setattr(answer, name, items)
    return answer, 2 if failed else 1


@pytest.mark.parametrize("role", [True, False], ids=["role selection", "no role selection"])
def test_the_answer_is_kept_and_confirmed(start: Callable[..., Node], archive: Archive, role: bool) -> None:
    node = start()
    first, second = node.uids
    assert archive.report(*_answer([first], [second]), node.port, role=role) == 0x0000
    assert node.reasons() == {first: 0, second: 0x0112}


def test_an_archive_may_answer_although_it_may_not_store(start: Callable[..., Node], archive: Archive) -> None:
    node = start(allowed_calling_ae_titles=["CT1"], destination={"calling_ae_title": "TRIAGE_OUT"})
    for called in ("OPENTRIAGE", "TRIAGE_OUT"):
        assert archive.report(*_answer(node.uids, []), node.port, called=called) == 0x0000
    assert set(node.reasons().values()) == {0}
    ct = ("1.2.840.10008.5.1.4.1.1.2", ("1.2.840.10008.1.2",))
    with RawScu(("127.0.0.1", node.port), [ct], calling=AE_TITLE) as scu:
        assert scu.results[1][0] == 3  # abstract syntax not supported


def test_a_stranger_gets_no_context_to_answer_in(start: Callable[..., Node], archive: Archive) -> None:
    node = start()
    assert archive.report(*_answer(node.uids, []), node.port, calling="STRANGER") == -1
    assert set(node.reasons().values()) == {None}


def test_a_destination_that_is_not_asked_to_commit_cannot_answer(start: Callable[..., Node], archive: Archive) -> None:
    node = start(destination={"proof": ("find",)})
    assert archive.report(*_answer(node.uids, []), node.port) == -1
    assert set(node.reasons().values()) == {None}


def test_an_answer_to_what_nobody_asked_is_refused(start: Callable[..., Node], archive: Archive) -> None:
    node = start()
    assert archive.report(*_answer(node.uids, [], "2.25.1"), node.port) == 0x0115
    assert set(node.reasons().values()) == {None}


def test_nonsense_is_refused_and_the_next_answer_is_heard(start: Callable[..., Node], archive: Archive) -> None:
    node = start()
    nonsense = Dataset()
    nonsense.QueryRetrieveLevel = "IMAGE"
    assert archive.report(nonsense, 1, node.port) == 0x0115
    answer, _ = _answer(node.uids, [])
    assert archive.report(answer, 7, node.port) == 0x0113
    assert archive.report(answer, 1, node.port) == 0x0000


def test_an_endless_answer_is_cut_off(start: Callable[..., Node], archive: Archive) -> None:
    node = start()
    with pytest.raises(AttributeError):  # no status: the association was aborted
        archive.report(_answer([f"2.25.1{n:030d}" for n in range(20_000)], [])[0], 1, node.port)
    assert archive.report(*_answer(node.uids, []), node.port) == 0x0000


ELSEWHERE = {"host": "192.0.2.7"}  # another machine than the one that answers in these tests


def _untouched(node: Node) -> bool:
    commitment = node.ledger.commitment(node.job)
    assert commitment is not None
    return not commitment.answered and set(node.reasons().values()) == {None}


def test_whoever_calls_himself_as_the_destination_does_from_elsewhere_changes_nothing(
    start: Callable[..., Node], archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Observer, "_loop", lambda self: None)  # nothing is handed over before it stops
    node = start(ELSEWHERE, addresses=("192.0.2.7", "2001:db8::7"))
    with structlog.testing.capture_logs() as logged:
        for _ in range(2):
            assert archive.report(*_answer(node.uids, []), node.port) == 0x0115
    assert _untouched(node)
    [line, _] = [one for one in logged if one["event"] == "commitment_answer_from_elsewhere"]
    assert (line["log_level"], line["peer"], line["destination"]) == ("warning", "127.0.0.1", "archive")
    assert "answers_from" in line["cure"]
    node.receiver.stop(0.0)  # hands over what was counted
    [alert] = [one for one in node.ledger.audit_log() if one.kind is AuditKind.SECURITY_ALERT]
    assert (alert.actor, alert.peer) == (f"ae:{AE_TITLE}", "127.0.0.1")
    assert alert.detail == {"what": "turned_away", "reason": "commitment_answer", "count": 2}


@pytest.mark.parametrize(
    ("destination", "addresses"),
    [
        (ELSEWHERE | {"answers_from": ["192.0.2.9", "127.0.0.0/8"]}, ()),
        ({"host": "archive.example"}, ("2001:db8::7", "127.0.0.1")),
        ({"host": "::ffff:127.0.0.1"}, ()),
    ],
    ids=["named in the settings", "an address of its name when it was asked", "an address of another family"],
)
def test_an_answer_counts_from_where_the_destination_is(
    start: Callable[..., Node], archive: Archive, destination: dict[str, Any], addresses: tuple[str, ...]
) -> None:
    node = start(destination, addresses=addresses)
    assert archive.report(*_answer(node.uids, []), node.port) == 0x0000
    assert set(node.reasons().values()) == {0}


def test_a_destination_that_shows_its_certificate_may_answer_from_anywhere(
    start: Callable[..., Node], archive: Archive, tmp_path: Path
) -> None:
    authority = Authority(tmp_path / "pki")
    own, its, others = (authority.issue(name) for name in ("node", "archive", "other"))
    files = {"certificate_file": own.certificate, "key_file": own.key, "ca_file": authority.certificate}
    peer = PeerBinding(ae_title=AE_TITLE, certificate_names=("archive",))
    node = start(ELSEWHERE, peers=(peer,), tls={"enabled": True, **files})

    def answered(shown: Any) -> int:
        context = ssl.create_default_context(cafile=authority.certificate)
        context.check_hostname = False
        context.load_cert_chain(shown.certificate, shown.key)
        return archive.report(*_answer(node.uids, []), node.port, tls=context)

    assert answered(others) == -1
    assert _untouched(node)
    assert answered(its) == 0x0000
    assert set(node.reasons().values()) == {0}


def test_an_answer_without_a_word_on_what_was_asked_is_none(start: Callable[..., Node], archive: Archive) -> None:
    node = start()
    for uids in ([], ["2.25.1"]):
        assert archive.report(*_answer(uids, []), node.port) == 0x0115
    assert _untouched(node)
