"""A sender asks whether we keep what it sent: who is told, when, and on what our word rests."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE, build_role
from pynetdicom.pdu import A_ASSOCIATE_RJ
from sqlalchemy import create_engine, func, select
from structlog.testing import capture_logs

from config.settings import Settings
from ledger import commitment_requests
from ledger.commitment_requests import RequestState
from ledger.errors import LedgerUnavailable
from ledger.ledger import Ledger
from ledger.store import Store
from ledger.tables import awaited_instances
from scp.commitment.requests import CommitmentRequests
from scp.receiver import ENGINES
from tests.support.committer import telling
from tests.support.encoded import CR, CT, data_set, element
from tests.support.modality import PUSH_MODEL, PUSH_MODEL_INSTANCE, Heard, Modality, act, action
from tests.support.rawscu import EXPLICIT_LITTLE, Aborted, RawScu, command, p_data, ui, us
from tests.support.receiving import Receiving, StartReceiving
from tests.support.waiting import wait_until

WITHIN_S = 30.0
A, B = "1.2.3.4", "1.2.3.5"
LISTED = [(CT, A), (CT, B)]


both = pytest.mark.parametrize("engine", sorted(ENGINES), indirect=True)


@pytest.fixture
def engine(request: pytest.FixtureRequest) -> str:
    """Native but for the tests of what an engine takes part in."""
    return str(getattr(request, "param", "native"))


@pytest.fixture
def ct() -> Modality:
    return Modality()


@pytest.fixture
def node(start: StartReceiving, ct: Modality) -> Receiving:
    """Commits to CT1, at once: what is listed and not here is not waited for."""
    return start(requestors=[ct.requestor()], commitment_patience_s=0)


def heard(modality: Modality, count: int = 1) -> Heard:
    """The last of so many reports."""
    wait_until(lambda: len(modality.heard) >= count, WITHIN_S)
    assert len(modality.heard) == count
    return modality.heard[-1]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The association that asked gets no head start."""
    monkeypatch.setattr(commitment_requests, "SAME_ASSOCIATION_S", 0.0)


def told(node: Receiving, modality: Modality, asked: Dataset) -> Heard:
    """What the sender hears on an association that we open, because it did not wait for it on its own."""
    with modality, telling(node.ledger, node.settings):
        before = len(modality.heard)
        assert modality.ask(node.address, asked) == 0x0000
        return heard(modality, before + 1)


def confirmed(ledger: Ledger, title: str = "CT1") -> bool:
    return RequestState.CONFIRMED in ledger.commitments_so_far().get(title, {})


# --- the result, on either association ---


@both
def test_a_sender_that_waits_is_told_on_its_own_association_where_the_engine_can(
    node: Receiving, ct: Modality, engine: str
) -> None:
    ct.store(node.address, A, B)
    with ct, ct.associated(node.address) as association, telling(node.ledger, node.settings):
        assert act(association, action(LISTED)) == 0x0000
        said = heard(ct)
        wait_until(lambda: confirmed(node.ledger), WITHIN_S)
    assert said == Heard(1, "2.25.4712", (A, B), {}, on_own_association=engine == "native")


@pytest.mark.parametrize("implicit", [False, True], ids=["explicit", "implicit"])
def test_the_result_speaks_the_syntax_of_the_request(node: Receiving, ct: Modality, implicit: bool) -> None:
    ct.store(node.address, A)
    with ct.associated(node.address, implicit) as association:
        assert act(association, action(LISTED)) == 0x0000
        said = heard(ct)
    assert said == Heard(2, "2.25.4712", (A,), {B: 0x0112}, on_own_association=True)


@both
def test_a_sender_that_has_gone_is_told_on_an_association_of_ours(node: Receiving, ct: Modality) -> None:
    ct.store(node.address, A, B)
    said = told(node, ct, action(LISTED))
    assert (said.event_type, said.committed, said.failed) == (1, (A, B), {})
    assert ct.roles == [(False, True)]  # who opens an association is SCU otherwise
    wait_until(lambda: confirmed(node.ledger), WITHIN_S)
    [given] = [event for event in node.ledger.events("1.2.3.1") if event.name == "commitment_given"]
    assert given.text.startswith("CT1 was told that 2 of 2 instances are kept here")


def test_what_was_asked_before_a_restart_is_answered_after_it(node: Receiving, ct: Modality) -> None:
    ct.store(node.address, A)
    assert ct.ask(node.address, action(LISTED)) == 0x0000
    node.receiver.stop(0.0)
    node.ledger.close()
    again = Ledger.open(node.settings.database_url, Store(node.store.root))
    with ct, telling(again, node.settings):
        assert heard(ct).failed == {B: 0x0112}
        wait_until(lambda: confirmed(again), WITHIN_S)
    again.close()


def test_a_sender_that_is_away_is_told_when_it_is_back(node: Receiving, ct: Modality) -> None:
    ct.store(node.address, A)
    with telling(node.ledger, node.settings), capture_logs() as logs:
        assert ct.ask(node.address, action([(CT, A)])) == 0x0000
        wait_until(lambda: len([one for one in logs if one["event"] == "requestor_unreachable"]) > 1, WITHIN_S)
        with ct:
            assert heard(ct).committed == (A,)
            wait_until(lambda: confirmed(node.ledger), WITHIN_S)


def test_a_sender_that_does_not_confirm_is_told_again(node: Receiving, ct: Modality) -> None:
    ct.store(node.address, A)
    ct.statuses = [0x0110, 0x0110]
    with ct, telling(node.ledger, node.settings):
        assert ct.ask(node.address, action([(CT, A)])) == 0x0000
        assert heard(ct, 3).committed == (A,)
        wait_until(lambda: confirmed(node.ledger), WITHIN_S)


def test_a_request_is_given_up_after_a_day_and_tried_once_more_when_the_sender_was_reached(
    node: Receiving, ct: Modality, monkeypatch: pytest.MonkeyPatch
) -> None:
    ct.store(node.address, A)
    with telling(node.ledger, node.settings):
        with monkeypatch.context() as late:
            late.setattr(commitment_requests, "GIVE_UP_S", 0.0)
            assert ct.ask(node.address, action([(CT, A)], "2.25.1")) == 0x0000
            wait_until(lambda: node.ledger.commitments_so_far()["CT1"] == {RequestState.PARKED: 1}, WITHIN_S)
        with ct:
            assert ct.ask(node.address, action([(CT, A)], "2.25.2")) == 0x0000
            heard(ct, 2)
            wait_until(lambda: node.ledger.commitments_so_far()["CT1"] == {RequestState.CONFIRMED: 2}, WITHIN_S)
    assert [one.transaction_uid for one in ct.heard] == ["2.25.2", "2.25.1"]


# --- what our word rests on ---


def damage(path: Path, at: int = -1) -> None:
    """One bit, as a disk does: name, size and time stay."""
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    before = path.stat()
    path.write_bytes(bytes(content))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def damage_header(path: Path) -> None:
    """The transfer syntax in the file meta information: the data set is whole, and nobody can read it."""
    damage(path, path.read_bytes().index(EXPLICIT_LITTLE.encode()) + 3)


@pytest.mark.parametrize("harm", [damage, damage_header, Path.unlink], ids=["damaged", "header", "gone"])
def test_a_file_that_is_not_whole_on_the_disk_is_not_committed_to(
    node: Receiving, ct: Modality, harm: Callable[[Path], None]
) -> None:
    ct.store(node.address, A)
    [file] = node.files()
    ct.store(node.address, B)
    harm(file)
    with capture_logs() as logs:
        said = told(node, ct, action(LISTED))
    assert (said.event_type, said.committed, said.failed) == (2, (B,), {A: 0x0110})
    [alarm] = [one for one in logs if one["event"] == "commitment_file_damaged"]
    assert (alarm["log_level"], alarm["damaged"]) == ("error", 1)
    assert alarm["instances"] == [{"sop_instance_uid": A, "study_instance_uid": "1.2.3.1"}]
    assert "sent again" in alarm["cure"]
    assert node.ledger.damaged_count() == len(node.ledger.damaged_of("1.2.3.1")) == 1
    ct.store(node.address, A)  # the cure
    assert node.ledger.damaged_count() == 0
    assert told(node, ct, action(LISTED, "2.25.4713")).committed == (A, B)
    names = [event.name for event in node.ledger.events("1.2.3.1")]
    assert (names.count("file_damaged"), names.count("file_healed")) == (1, 1)


def test_the_page_cache_is_forgotten_before_a_file_is_read_again(
    node: Receiving, ct: Modality, monkeypatch: pytest.MonkeyPatch
) -> None:
    ct.store(node.address, A)
    [file] = node.files()
    steps: list[str] = []

    def forgets(fd: int, offset: int, length: int, advice: int) -> None:
        if (offset, length, advice) == (0, 0, os.POSIX_FADV_DONTNEED):
            steps.append(str(Path(f"/proc/self/fd/{fd}").readlink()))

    real = commitment_requests.result
    monkeypatch.setattr("ledger.commitment_results.os.posix_fadvise", forgets)
    monkeypatch.setattr(
        "ledger.commitment_results.is_whole", lambda path, *_: bool(steps.append(f"read {path}")) or True
    )
    monkeypatch.setattr(commitment_requests, "result", lambda *held: (steps.append("say"), real(*held))[1])
    assert told(node, ct, action([(CT, A)])).committed == (A,)
    assert steps[:3] == [str(file), f"read {file}", "say"]


def test_what_came_longer_ago_than_it_is_kept_is_not_committed_to(start: StartReceiving, ct: Modality) -> None:
    node = start(requestors=[ct.requestor(retention_days=1e-9)], commitment_patience_s=0)
    ct.store(node.address, A)
    assert told(node, ct, action([(CT, A)])).failed == {A: 0x0213}


def test_an_instance_of_another_class_is_a_conflict(node: Receiving, ct: Modality) -> None:
    ct.store(node.address, A, B)
    said = told(node, ct, action([(CR, A), (CT, B)]))
    assert (said.committed, said.failed) == ((B,), {A: 0x0119})


def test_of_several_versions_the_newest_is_committed_to(node: Receiving, ct: Modality) -> None:
    ct.store(node.address, A)
    [first] = node.files()
    with RawScu(node.address, [(CT, (EXPLICIT_LITTLE,))]) as scu:
        newer = data_set(tail=element(0x7FE00010, "OW", bytes(100)))
        assert scu.store(CT, A, newer).status == 0
    damage(first)
    assert told(node, ct, action([(CT, A)])).committed == (A,)
    [newest] = [path for path in node.files() if path != first]
    damage(newest)
    assert told(node, ct, action([(CT, A)], "2.25.2")).failed == {A: 0x0110}


@pytest.mark.usefixtures("quick")
def test_what_is_still_on_its_way_is_waited_for(start: StartReceiving, ct: Modality) -> None:
    node = start(requestors=[ct.requestor()], commitment_patience_s=3600)
    ct.store(node.address, A)
    with ct, telling(node.ledger, node.settings):
        assert ct.ask(node.address, action(LISTED)) == 0x0000
        assert ct.ask(node.address, action([(CT, A)], "2.25.2")) == 0x0000
        assert heard(ct).transaction_uid == "2.25.2"  # the later request was ready: the first one waits
        ct.store(node.address, B)
        said = heard(ct, 2)
    assert (said.transaction_uid, said.committed) == ("2.25.4712", (A, B))


# --- one request and another ---


def test_the_same_request_again_is_answered_again(node: Receiving, ct: Modality) -> None:
    ct.store(node.address, A)
    assert told(node, ct, action(LISTED)).failed == {B: 0x0112}
    ct.store(node.address, B)
    said = told(node, ct, action(LISTED[::-1]))  # the same list
    assert (said.event_type, set(said.committed)) == (1, {A, B})


def test_another_list_under_the_same_transaction_is_a_duplicate(node: Receiving, ct: Modality) -> None:
    ct.store(node.address, A, B)
    assert told(node, ct, action([(CT, A)])).committed == (A,)
    said = told(node, ct, action([(CT, B)]))
    assert (said.committed, said.failed) == ((), {B: 0x0131})


def test_what_is_listed_twice_is_answered_once(node: Receiving, ct: Modality) -> None:
    ct.store(node.address, A)
    assert told(node, ct, action([(CT, A), (CT, A)])).committed == (A,)


# --- who may ask ---


def awaited(settings: Settings) -> int:
    """Instances that are known from a list alone."""
    engine = create_engine(settings.database_url)
    with engine.connect() as connection:
        count = connection.execute(select(func.count()).select_from(awaited_instances)).scalar_one()
    engine.dispose()
    return count


@both
def test_a_sender_that_is_not_enabled_is_refused_and_its_list_is_kept(node: Receiving) -> None:
    other = Modality("CT2")
    other.store(node.address, A)
    with capture_logs() as logs:
        for transaction in ("2.25.1", "2.25.2"):
            assert other.ask(node.address, action(LISTED, transaction)) == 0x0124
    [said] = [one for one in logs if one["event"] == "commitment_not_enabled"]  # once
    assert said["calling_ae_title"] == "CT2"
    assert "commitment_requestors" in said["cure"]
    assert awaited(node.settings) == 1
    assert node.ledger.commitments_so_far() == {}


def test_the_list_of_a_sender_that_is_enabled_is_kept_too(node: Receiving, ct: Modality) -> None:
    ct.store(node.address, A)
    assert ct.ask(node.address, action(LISTED)) == 0x0000
    assert awaited(node.settings) == 1


def test_lists_alone_are_not_taken_where_the_site_does_not_want_them(start: StartReceiving, ct: Modality) -> None:
    node = start(requestors=[ct.requestor()], keep_stated_lists=False)
    with Modality("CT2").associated(node.address) as association:
        assert not association.is_established  # no context was accepted
    assert ct.ask(node.address, action(LISTED)) == 0x0000


def test_who_may_not_store_may_not_ask(start: StartReceiving, ct: Modality) -> None:
    node = start(requestors=[ct.requestor()], allowed_calling_ae_titles=["CT9"])
    answers: list[A_ASSOCIATE_RJ] = []
    with ct.associated(node.address, rejections=answers) as association:
        assert not association.is_established
        wait_until(lambda: answers, WITHIN_S)
    [said] = answers
    assert (said.result, said.source, said.reason_diagnostic) == (1, 1, 3)  # calling AE title not recognised


@both
def test_an_ae_that_only_asks_gets_no_role_as_provider(node: Receiving, ct: Modality) -> None:
    ae = AE(ae_title="CT1")
    ae.add_requested_context(PUSH_MODEL)
    association = ae.associate(*node.address, ae_title="OPENTRIAGE", ext_neg=[build_role(PUSH_MODEL, scp_role=True)])
    assert not association.is_established  # the only context was refused
    association = ae.associate(
        *node.address, ae_title="OPENTRIAGE", ext_neg=[build_role(PUSH_MODEL, scu_role=True, scp_role=True)]
    )
    assert [(one.as_scu, one.as_scp) for one in association.accepted_contexts] == [(True, False)]
    association.release()


# --- what is no request ---


@both
@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"action_type": 2}, 0x0123),
        ({"sop_instance": "1.2.840.10008.1.20.1.2"}, 0x0112),
    ],
)
def test_what_is_not_asked_for_by_the_book_gets_the_status_of_the_book(
    node: Receiving, ct: Modality, changes: dict[str, Any], status: int
) -> None:
    with ct.associated(node.address) as association:
        assert act(association, action(LISTED), **changes) == status
        assert act(association, action(LISTED)) == 0x0000


def uid(tag: int, value: str) -> bytes:
    return element(tag, "UI", value)


def sequence(tag: int, *items: bytes) -> bytes:
    body = b"".join(element(0xFFFEE000, "", one) for one in items)
    return element(tag, "SQ", body)


def listing(*instance_uids: str, transaction: str = "2.25.1") -> bytes:
    items = [uid(0x00081150, CT) + uid(0x00081155, one) for one in instance_uids]
    return uid(0x00081195, transaction) + sequence(0x00081199, *items)


def nested(levels: int) -> bytes:
    inner = uid(0x00081155, A)
    for _ in range(levels):
        inner = sequence(0x00081199, inner)
    return uid(0x00081195, "2.25.1") + inner


SECRET = "DOE^JANE"
HOSTILE = {
    "nothing": b"",
    "no list": uid(0x00081195, "2.25.1"),
    "an empty list": listing(),
    "no transaction": sequence(0x00081199, uid(0x00081150, CT) + uid(0x00081155, A)),
    "a transaction that is no UID": listing(A, transaction=SECRET),
    "an instance that is no UID": listing(A, SECRET),
    "two UIDs in one": listing(A + "\\" + B),
    "an endless UID": listing("1." + "2" * 70),
    "an item without a class": uid(0x00081195, "2.25.1") + sequence(0x00081199, uid(0x00081155, A)),
    "a list that is text": uid(0x00081195, "2.25.1") + element(0x00081199, "LO", SECRET),
    "nested without end": nested(2000),
    "cut off": listing(A, B)[:-7],
}


def n_action(scu: RawScu, data: bytes, step: int = 16_000) -> int:
    """The status that these very bytes get."""
    scu.message_id += 1
    rq = {0x3: ui(PUSH_MODEL), 0x100: us(0x130), 0x110: us(scu.message_id), 0x1001: ui(PUSH_MODEL_INSTANCE)}
    rq |= {0x1008: us(1), 0x800: us(1)}
    scu.socket.sendall(p_data(1, 3, command(rq)))
    for start in range(0, len(data) or 1, step):
        scu.socket.sendall(p_data(1, 2 if start + step >= len(data) else 0, data[start : start + step]))
    return scu.read_response().status


@pytest.fixture
def scu(node: Receiving) -> Iterator[RawScu]:
    with RawScu(node.address, [(PUSH_MODEL, (EXPLICIT_LITTLE,))], calling="CT1") as scu:
        yield scu


@both
def test_what_is_no_list_is_refused_and_nothing_of_it_is_said(
    node: Receiving, scu: RawScu, recwarn: pytest.WarningsRecorder
) -> None:
    with capture_logs() as logs:
        statuses = {name: n_action(scu, data) for name, data in HOSTILE.items()}
        assert n_action(scu, listing(A)) == 0x0000  # the association goes on
    assert set(statuses.values()) == {0x0115}, statuses
    assert "DOE" not in str(logs) + "".join(str(one.message) for one in recwarn)
    assert node.ledger.commitments_so_far() == {"CT1": {RequestState.WAITING: 1}}


@both
def test_a_list_of_thousands_is_kept_and_one_of_more_than_a_megabyte_is_cut_off(
    start: StartReceiving, ct: Modality
) -> None:
    node = start(requestors=[ct.requestor()])
    many = listing(*(f"2.25.9{n:029d}" for n in range(12_000)))
    assert 1_000_000 < len(many) < 1 << 20
    context = (PUSH_MODEL, (EXPLICIT_LITTLE,))
    with RawScu(node.address, [context], calling="CT1") as scu, pytest.raises((Aborted, ConnectionError)):
        n_action(scu, many + many)
    with RawScu(node.address, [(PUSH_MODEL, (EXPLICIT_LITTLE,))], calling="CT1") as scu:
        assert n_action(scu, many) == 0x0000


def test_nothing_is_acknowledged_that_the_ledger_did_not_take(
    node: Receiving, ct: Modality, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(*arguments: object) -> int:
        raise LedgerUnavailable("the disk is full")

    with monkeypatch.context() as broken:
        broken.setattr(node.ledger, "commitment_requested", refuses)
        assert ct.ask(node.address, action(LISTED)) == 0x0110
    kept: list[int] = []
    real = CommitmentRequests.act

    def watched(self: CommitmentRequests, request: Any) -> Any:
        answer = real(self, request)
        kept.append(node.ledger.commitments_so_far()["CT1"][RequestState.WAITING])
        return answer

    monkeypatch.setattr(CommitmentRequests, "act", watched)
    assert ct.ask(node.address, action(LISTED)) in (0x0000, -1)
