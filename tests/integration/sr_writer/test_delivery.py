"""Each answer of a destination leads to what must happen next; over real sockets, against a scripted acceptor."""

import gc
import hashlib
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.filereader import read_dataset
from pynetdicom import AE, build_context, evt
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_STORE

from config.settings import DeliverSettings, Destination, Settings
from ledger.delivery_records import DeliveryOutcome, DeliveryState
from ledger.records import ResultObject, StoredObject, TriagePriority
from ledger.store import Store
from sr_writer.association import NotOffered, asking, associate
from sr_writer.build import build_objects
from sr_writer.deliver import Sender, data_set_bytes
from sr_writer.errors import NotNow, NotProven, Unreachable
from tests.support.findings import flagged_study, new_store
from tests.support.waiting import wait_until

# The acceptor's own side leaves the socket of a rejected association to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

DELIVERED, WAITING, REFUSED = DeliveryState.DELIVERED, DeliveryState.WAITING, DeliveryState.REFUSED
STOPPED = DeliveryState.STOPPED
HIGH, MEDIUM = TriagePriority.HIGH, TriagePriority.MEDIUM
SR, TEXT, SC = "1.2.840.10008.5.1.4.1.1.88.33", "1.2.840.10008.5.1.4.1.1.88.22", "1.2.840.10008.5.1.4.1.1.7"
ECHO = "1.2.840.10008.1.1"
EXPLICIT, IMPLICIT, JPEG = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2", "1.2.840.10008.1.2.4.50"
FAST = DeliverSettings(connect_timeout_s=5.0, response_timeout_s=5.0)


@dataclass
class Heard:
    """What the acceptor was asked to store."""

    sop_instance_uid: str
    priority: int
    data: bytes


@dataclass
class Acceptor:
    """Answers each C-STORE with what `answer` says: a status, or a function of the event."""

    answer: Callable[[evt.Event], int] = lambda _: 0x0000
    heard: list[Heard] = field(default_factory=list)
    associations: int = 0

    def on_store(self, event: evt.Event) -> int:
        request = event.request
        request.DataSet.seek(0)
        self.heard.append(Heard(str(request.AffectedSOPInstanceUID), request.Priority, request.DataSet.read()))
        return self.answer(event)

    def on_accepted(self, _: evt.Event) -> None:
        self.associations += 1


@contextmanager
def listening(acceptor: Acceptor, contexts: tuple[tuple[str, str], ...] = (), **ae: Any) -> Iterator[Destination]:
    """The acceptor on a free loopback port, as a destination."""
    entity = AE(ae_title="PACS")
    for sop_class, syntax in contexts or ((SR, EXPLICIT), (TEXT, EXPLICIT), (SC, EXPLICIT)):
        entity.add_supported_context(sop_class, syntax)
    for name, value in ae.items():
        setattr(entity, name, value)
    handlers = [(evt.EVT_C_STORE, acceptor.on_store), (evt.EVT_ACCEPTED, acceptor.on_accepted)]
    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
    try:
        yield _destination(server.socket.getsockname()[1])
    finally:
        server.shutdown()
        server.server_close()
        server.server_close()
        gc.collect()


def _destination(port: int) -> Destination:
    return Destination(ae_title="PACS", host="127.0.0.1", port=port, calling_ae_title="OPENTRIAGE")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return new_store(tmp_path_factory.mktemp("results"))


@pytest.fixture(scope="module")
def made(store: Store) -> list[ResultObject]:
    built = build_objects(flagged_study(store), store, Settings(), "2.25.7", "generic-pacs")
    wanted = [("measurement_sr", SR), ("text_sr", TEXT), ("secondary_capture", SC)]
    return [next(made for made in built if (made.kind, made.sop_class_uid) == one) for one in wanted]


@pytest.fixture(scope="module")
def objects(store: Store, made: list[ResultObject]) -> list[StoredObject]:
    return [_stored(item, store, i, HIGH) for i, item in enumerate(made, start=1)]


def _stored(item: ResultObject, store: Store, object_id: int, priority: TriagePriority) -> StoredObject:
    digest = hashlib.sha256(item.content).hexdigest()
    path = store.put("objects", digest, ".dcm", item.content)
    return StoredObject(
        object_id,
        item.kind,
        item.sop_class_uid,
        item.sop_instance_uid,
        item.transfer_syntax_uid,
        digest,
        path,
        priority,
    )


def in_forms(objects: list[StoredObject], *, report_id: int = 7) -> list[StoredObject]:
    """The first two as forms of one choice (the second made is preferred), the third alone."""
    first, second, third = objects
    return [
        replace(first, choice="measurements", preference=1, report_id=report_id),
        replace(second, choice="measurements", preference=0, report_id=report_id),
        replace(third, report_id=report_id),
    ]


def send(destination: Destination, objects: list[StoredObject], store: Store) -> dict[int, DeliveryOutcome]:
    outcomes: list[DeliveryOutcome] = []
    Sender(destination, FAST).send(objects, store, outcomes.append)
    assert len({outcome.object_id for outcome in outcomes}) == len(outcomes), "an object was heard of twice"
    return {outcome.object_id: outcome for outcome in outcomes}


def test_the_bytes_that_are_kept_are_the_bytes_that_arrive(store: Store, objects: list[StoredObject]) -> None:
    acceptor = Acceptor()
    with listening(acceptor) as destination:
        outcomes = send(destination, objects, store)
    assert {o.state for o in outcomes.values()} == {DELIVERED}
    assert acceptor.associations == 1
    for item, heard in zip(objects, acceptor.heard, strict=True):
        content = store.read(item.path)
        assert content.endswith(heard.data)
        assert (
            dcmread(BytesIO(content)).file_meta.FileMetaInformationGroupLength == len(content) - len(heard.data) - 144
        )


def test_a_high_study_is_sent_with_high_priority_any_other_with_medium(store: Store, made: list[ResultObject]) -> None:
    mild = _stored(made[1], store, 1, MEDIUM)
    urgent = _stored(made[0], store, 2, HIGH)
    acceptor = Acceptor()
    with listening(acceptor) as destination:
        send(destination, [mild, urgent], store)
    assert [(h.sop_instance_uid, h.priority) for h in acceptor.heard] == [
        (urgent.sop_instance_uid, 1),
        (mild.sop_instance_uid, 0),
    ]


@pytest.mark.parametrize(
    ("status", "state"),
    [
        *[(s, DELIVERED) for s in (0xB000, 0xB006, 0xB007, 0x0111)],
        *[(s, WAITING) for s in (0xA700, 0x0110, 0x0213)],
        *[(s, REFUSED) for s in (0xA900, 0xC000, 0x0117, 0x0122, 0x0124)],
    ],
)
def test_each_status_leads_to_its_outcome(
    status: int, state: DeliveryState, store: Store, objects: list[StoredObject]
) -> None:
    """One bad object does not keep the others back."""
    bad = objects[1].sop_instance_uid
    acceptor = Acceptor(lambda event: status if event.request.AffectedSOPInstanceUID == bad else 0x0000)
    with listening(acceptor) as destination:
        outcomes = send(destination, objects, store)
    assert (outcomes[2].state, outcomes[2].status) == (state, status)
    assert outcomes[1].state is outcomes[3].state is DELIVERED
    if state is REFUSED:
        assert "Enhanced SR Storage" in outcomes[2].reason
        assert destination.key in outcomes[2].reason


def test_of_an_object_that_was_refused_nobody_reads_that_it_was_stored(
    store: Store, objects: list[StoredObject]
) -> None:
    """Although the peer answered twice that it stored the one before."""

    def answer(event: evt.Event) -> int:
        if len(acceptor.heard) > 1:
            return 0xA900
        twin = C_STORE()
        twin.MessageIDBeingRespondedTo, twin.Status = event.request.MessageID, 0x0000
        event.assoc.dimse.send_msg(twin, event.context.context_id)
        return 0x0000

    acceptor = Acceptor(answer)
    with listening(acceptor) as destination:
        outcomes = send(destination, objects, store)
    assert [(outcomes[i].state, outcomes[i].status) for i in (1, 2, 3)] == [
        (DELIVERED, 0x0000),
        (REFUSED, 0xA900),
        (REFUSED, 0xA900),
    ]


def test_a_class_the_peer_does_not_take_is_refused_in_words_and_the_rest_goes(
    store: Store, objects: list[StoredObject]
) -> None:
    acceptor = Acceptor()
    with listening(acceptor, contexts=((TEXT, EXPLICIT), (SC, JPEG))) as destination:
        outcomes = send(destination, objects, store)
    assert [outcomes[i].state for i in (1, 2, 3)] == [REFUSED, DELIVERED, REFUSED]
    assert "Comprehensive SR Storage" in outcomes[1].reason
    assert outcomes[1].context == "Comprehensive SR Storage, class refused"
    assert "Secondary Capture Image Storage" in outcomes[3].reason
    assert "enable Explicit or Implicit VR Little Endian" in outcomes[3].reason
    assert outcomes[3].context == "Secondary Capture Image Storage, transfer syntax refused"


def test_a_peer_that_knows_implicit_vr_alone_gets_the_same_elements_in_it(
    store: Store, objects: list[StoredObject]
) -> None:
    acceptor = Acceptor()
    with listening(
        acceptor, contexts=((TEXT, EXPLICIT), (TEXT, IMPLICIT), (SR, IMPLICIT), (SC, IMPLICIT))
    ) as destination:
        outcomes = send(destination, objects, store)
    assert {outcome.state for outcome in outcomes.values()} == {DELIVERED}
    assert outcomes[1].context == "Comprehensive SR Storage, Implicit VR Little Endian"
    assert outcomes[2].context == "Enhanced SR Storage, Explicit VR Little Endian"  # that of the file, where it may be
    for item, heard in zip(objects, acceptor.heard, strict=True):
        kept = dcmread(BytesIO(store.read(item.path)))
        syntax = EXPLICIT if item.sop_class_uid == TEXT else IMPLICIT
        came = read_dataset(BytesIO(heard.data), syntax == IMPLICIT, True)
        assert {e.tag: e.value for e in came} == {e.tag: e.value for e in kept}  # 8-bit pixels are OW without a VR


def test_a_peer_that_takes_none_of_it_refuses_each(store: Store, objects: list[StoredObject]) -> None:
    with listening(Acceptor(), contexts=(("1.2.840.10008.1.1", EXPLICIT),)) as destination:
        outcomes = send(destination, objects, store)
    assert [outcomes[i].state for i in (1, 2, 3)] == [REFUSED] * 3


def test_an_unknown_ae_title_is_refused_with_what_to_correct(store: Store, objects: list[StoredObject]) -> None:
    with listening(Acceptor(), require_called_aet=True) as destination:
        wrong = destination.model_copy(update={"ae_title": "NOBODY"})
        outcomes = send(wrong, objects, store)
    assert {o.state for o in outcomes.values()} == {REFUSED}
    assert "AE title NOBODY" in outcomes[1].reason
    with listening(Acceptor(), require_calling_aet=["OTHER"]) as destination:
        outcomes = send(destination, objects, store)
    assert "calling AE title OPENTRIAGE" in outcomes[1].reason


def test_a_busy_peer_is_tried_again(store: Store, objects: list[StoredObject]) -> None:
    """Result 2, rejected transient: local limit exceeded."""
    with listening(Acceptor(), maximum_associations=1) as destination:
        first = AE().associate(destination.host, destination.port, [build_context(SR, EXPLICIT)], ae_title="PACS")
        assert first.is_established
        with pytest.raises(Unreachable, match="busy"):
            send(destination, objects, store)
        first.release()


def test_a_dead_peer_is_unreachable(store: Store, objects: list[StoredObject]) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        with pytest.raises(Unreachable, match="no connection to PACS@"):
            send(_destination(port), objects, store)


def test_a_peer_that_never_answers_the_association_is_unreachable(store: Store, objects: list[StoredObject]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        destination = _destination(silent.getsockname()[1])
        sender = Sender(destination, DeliverSettings(connect_timeout_s=0.5, response_timeout_s=0.5))
        with pytest.raises(Unreachable):
            sender.send(objects, store, lambda outcome: pytest.fail(str(outcome)))


def test_an_object_the_peer_chokes_on_does_not_hold_back_the_others(store: Store, objects: list[StoredObject]) -> None:
    bad = objects[0].sop_instance_uid

    def choke(event: evt.Event) -> int:
        if event.request.AffectedSOPInstanceUID == bad:
            association: Association = event.assoc
            association.abort()
        return 0x0000

    acceptor = Acceptor(choke)
    with listening(acceptor) as destination:
        outcomes = send(destination, objects, store)
    assert [outcomes[i].state for i in (1, 2, 3)] == [WAITING, DELIVERED, DELIVERED]
    assert acceptor.associations == 2


def test_silence_ends_the_attempt(store: Store, objects: list[StoredObject]) -> None:
    release = threading.Event()

    def silent(_: evt.Event) -> int:
        release.wait(20)
        return 0x0000

    acceptor = Acceptor(silent)
    outcomes: list[DeliveryOutcome] = []
    with listening(acceptor) as destination:
        sender = Sender(destination, DeliverSettings(connect_timeout_s=5.0, response_timeout_s=3.0))
        sender.send(objects, store, outcomes.append)
        release.set()
    assert [o.state for o in outcomes] == [WAITING] * 3
    assert len(acceptor.heard) == 1


def test_a_damaged_object_is_never_sent(store: Store, objects: list[StoredObject]) -> None:
    whole = store.read(objects[1].path)
    broken = whole[:-2] + b"xx"
    path = store.put("objects", "00" * 32, ".dcm", broken)
    damaged = StoredObject(**{**vars(objects[1]), "path": path})
    gone = StoredObject(**{**vars(objects[2]), "path": "objects/00/gone.dcm"})
    acceptor = Acceptor()
    with listening(acceptor) as destination:
        outcomes = send(destination, [objects[0], damaged, gone], store)
    assert [outcomes[i].state for i in (1, 2, 3)] == [DELIVERED, STOPPED, STOPPED]  # counted, and an alarm
    assert "damaged" in outcomes[2].reason
    assert len(acceptor.heard) == 1


def test_an_object_that_cannot_be_read_just_now_is_tried_again_and_nobody_is_alarmed(
    store: Store, objects: list[StoredObject]
) -> None:
    store.path("objects/elsewhere").mkdir()  # reading it is an OSError
    busy = StoredObject(**{**vars(objects[1]), "path": "objects/elsewhere"})
    with listening(Acceptor()) as destination:
        outcomes = send(destination, [objects[0], busy], store)
    assert [outcomes[i].state for i in (1, 2)] == [DELIVERED, WAITING]


def test_the_data_set_starts_behind_the_file_meta_information(made: list[ResultObject]) -> None:
    for item in made:
        data = data_set_bytes(item.content, hashlib.sha256(item.content).hexdigest())
        assert data[:4] == b"\x08\x00\x05\x00"  # SpecificCharacterSet


def test_small_segments_leave_at_once(
    store: Store, objects: list[StoredObject], monkeypatch: pytest.MonkeyPatch
) -> None:
    options: list[int] = []
    original = Association.release

    def spying(self: Association) -> None:
        connection = self.dul.socket
        assert connection is not None
        assert connection.socket is not None
        options.append(connection.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        original(self)

    monkeypatch.setattr(Association, "release", spying)
    with listening(Acceptor()) as destination:
        send(destination, objects[:1], store)
    assert options
    assert all(options)


def test_a_rejection_that_came_before_anybody_waited_for_it_is_heard() -> None:
    """pynetdicom takes a connection that the peer has ended by then for one that never was."""

    def dawdle(event: evt.Event) -> None:
        dul = event.assoc.dul
        wait_until(lambda: dul.to_user_queue.qsize() and not dul.socket._is_connected, 60)

    with (
        listening(Acceptor(), require_calling_aet=["SOMEBODY"]) as destination,
        pytest.raises(NotOffered, match="does not know the calling AE title OPENTRIAGE"),
    ):
        associate(destination, FAST, [build_context(SR)], [(evt.EVT_REQUESTED, dawdle)])


class Unpaused(threading.Event):
    """Where pynetdicom's own thread is stopped while somebody asks: it is seen stopped here, and goes on."""

    turns = 0

    def wait(self, timeout: float | None = None) -> bool:
        self.turns += 1
        return super().wait(0.002)


def test_an_answer_is_for_whoever_asked_and_not_for_the_thread_that_serves_requests() -> None:
    turning = Unpaused()

    def never_stop(event: evt.Event) -> None:
        event.assoc._reactor_checkpoint = turning

    with (
        listening(Acceptor(), contexts=((ECHO, EXPLICIT),)) as destination,
        asking(destination, FAST, ECHO, [(evt.EVT_ESTABLISHED, never_stop)]) as association,
    ):
        send = association.dimse.send_msg

        def send_and_dawdle(*message: Any) -> None:
            before = turning.turns
            send(*message)
            wait_until(lambda: association.dimse.msg_queue.qsize() or turning.turns > before + 500, 60)
            there = turning.turns
            wait_until(lambda: turning.turns > there + 3, 60)

        association.dimse.send_msg = send_and_dawdle  # type: ignore[method-assign]
        assert [association.send_c_echo().get("Status") for _ in range(3)] == [0x0000] * 3


def test_nothing_to_send_opens_no_association(store: Store) -> None:
    send(_destination(1), [], store)


def test_results_arrive_while_the_folder_is_only_read(store: Store, objects: list[StoredObject]) -> None:
    """Sending changes nothing in the store."""
    before = sorted((p, p.stat().st_mtime_ns) for p in Path(store.root).rglob("*") if p.is_file())
    with listening(Acceptor()) as destination:
        send(destination, objects, store)
    assert sorted((p, p.stat().st_mtime_ns) for p in Path(store.root).rglob("*") if p.is_file()) == before


def test_of_a_choice_the_accepted_form_with_the_smallest_preference_is_sent(
    store: Store, objects: list[StoredObject]
) -> None:
    forms = in_forms(objects)
    both, without_preferred = ((SR, EXPLICIT), (TEXT, EXPLICIT), (SC, EXPLICIT)), ((SR, EXPLICIT), (SC, EXPLICIT))
    for contexts, chosen, context in (
        (both, 2, "Enhanced SR Storage, Explicit VR Little Endian"),
        (without_preferred, 1, "Comprehensive SR Storage, Explicit VR Little Endian"),
    ):
        acceptor = Acceptor()
        with listening(acceptor, contexts=contexts) as destination:
            outcomes = send(destination, forms, store)
        assert sorted(outcomes) == [chosen, 3]  # nothing is said of the other form
        assert outcomes[chosen].state is DELIVERED
        assert outcomes[chosen].context == context
        assert [heard.sop_instance_uid for heard in acceptor.heard] == [
            forms[chosen - 1].sop_instance_uid,
            forms[2].sop_instance_uid,
        ]
        assert store.read(forms[chosen - 1].path).endswith(acceptor.heard[0].data)


def test_a_choice_of_which_no_form_is_accepted_is_refused_in_one_sentence_that_names_all(
    store: Store, objects: list[StoredObject]
) -> None:
    with listening(Acceptor(), contexts=((SC, EXPLICIT),)) as destination:
        outcomes = send(destination, in_forms(objects), store)
    assert [outcomes[i].state for i in (1, 2, 3)] == [REFUSED, REFUSED, DELIVERED]
    assert outcomes[1].reason == outcomes[2].reason
    assert "Enhanced SR Storage" in outcomes[1].reason
    assert "Comprehensive SR Storage" in outcomes[1].reason
    assert outcomes[1].context == "Comprehensive SR Storage, class refused"
    assert outcomes[2].context == "Enhanced SR Storage, class refused"


def test_a_form_that_was_sent_and_refused_is_not_among_those_whose_context_was_not_accepted(
    store: Store, objects: list[StoredObject]
) -> None:
    with listening(Acceptor(lambda _: 0x0122), contexts=((TEXT, EXPLICIT), (SC, EXPLICIT))) as destination:
        outcomes = send(destination, in_forms(objects), store)
    assert (outcomes[1].status, outcomes[2].status) == (None, 0x0122)
    assert "does not accept Comprehensive SR Storage from OPENTRIAGE (result 3)" in outcomes[1].reason


def test_a_form_that_is_refused_for_good_makes_room_for_the_next(store: Store, objects: list[StoredObject]) -> None:
    acceptor = Acceptor(lambda event: 0x0122 if event.request.AffectedSOPClassUID == TEXT else 0x0000)
    with listening(acceptor) as destination:
        outcomes = send(destination, in_forms(objects), store)
    assert [outcomes[i].state for i in (1, 2, 3)] == [DELIVERED, REFUSED, DELIVERED]
    with listening(Acceptor(lambda _: 0x0122)) as destination:
        outcomes = send(destination, in_forms(objects), store)
    assert {outcome.state for outcome in outcomes.values()} == {REFUSED}


@pytest.mark.parametrize("how", ["busy", "breaks off"])
def test_while_a_form_may_have_been_stored_no_other_form_is_tried(
    how: str, store: Store, objects: list[StoredObject]
) -> None:
    def answer(event: evt.Event) -> int:
        if event.request.AffectedSOPClassUID != TEXT:
            return 0x0000
        if how == "breaks off":
            event.assoc.abort()
        return 0xA700

    acceptor = Acceptor(answer)
    forms = in_forms(objects)
    with listening(acceptor) as destination:
        outcomes = send(destination, forms, store)
    assert {i: outcome.state for i, outcome in outcomes.items()} == {2: WAITING, 3: DELIVERED}
    assert forms[0].sop_instance_uid not in {heard.sop_instance_uid for heard in acceptor.heard}


def test_what_cannot_be_proven_does_not_leave_in_any_form_and_the_rest_does(
    store: Store, objects: list[StoredObject]
) -> None:
    def prove(item: StoredObject, content: bytes) -> None:
        assert hashlib.sha256(content).hexdigest() == item.sha256
        if item.object_id == 2:
            raise NotProven("It is somebody else's.")

    acceptor, outcomes = Acceptor(), []
    with listening(acceptor) as destination:
        Sender(destination, FAST, prove).send(in_forms(objects), store, outcomes.append)
    found = {outcome.object_id: outcome for outcome in outcomes}
    assert [found[i].state for i in (1, 2, 3)] == [STOPPED, STOPPED, DELIVERED]
    assert found[1].reason == "It is somebody else's."
    assert [heard.sop_instance_uid for heard in acceptor.heard] == [objects[2].sop_instance_uid]


def test_of_what_is_put_off_at_the_last_moment_nothing_is_said(store: Store, objects: list[StoredObject]) -> None:
    def prove(item: StoredObject, content: bytes) -> None:
        raise NotNow("its study is held")

    outcomes: list[DeliveryOutcome] = []
    acceptor = Acceptor()
    with listening(acceptor) as destination:
        Sender(destination, FAST, prove).send(objects, store, outcomes.append)
    assert outcomes == acceptor.heard == []
