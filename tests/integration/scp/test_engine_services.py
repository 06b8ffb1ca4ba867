"""What an engine tells its surroundings, and what it says for them: events, endings, refused contexts, the listener."""

import gc
import socket
import struct
import threading
from contextlib import suppress

import pytest

from config.settings import ReceiveSettings
from scp.network import command_set
from scp.network.contexts import COMMITMENT_PUSH_MODEL
from scp.network.engine import (
    ActionAnswer,
    ActionRequest,
    AssociationFacts,
    Ending,
    EventToSend,
    Handlers,
    RefusedContext,
    Surroundings,
)
from scp.network.pdu import Wire
from scp.network.policy import AssociationPolicy
from scp.receiver import ENGINES
from scp.status import SUCCESS
from tests.support.bare_engines import Sinks, bare_engine
from tests.support.encoded import CT
from tests.support.rawscu import EXPLICIT_LITTLE, IMPLICIT_LITTLE, VERIFICATION, RawScu, command, p_data, ui, us
from tests.support.waiting import wait_until

WELL_KNOWN = "1.2.840.10008.1.20.1.1"
COMMITMENT = [(COMMITMENT_PUSH_MODEL, (IMPLICIT_LITTLE,))]


class Committing:
    """Answers an N-ACTION, and has an event to send."""

    def __init__(self, event_data: bytes = b"result") -> None:
        self.asked: list[ActionRequest] = []
        self.told: list[bool] = []
        self._event_data = event_data

    def act(self, request: ActionRequest) -> ActionAnswer:
        self.asked.append(request)
        return ActionAnswer(SUCCESS, self._event)

    def _event(self) -> EventToSend:
        return EventToSend(COMMITMENT_PUSH_MODEL, WELL_KNOWN, 1, self._event_data, self.told.append)


def _action(data: bytes, message_id: int = 5) -> bytes:
    rq = {
        0x3: ui(COMMITMENT_PUSH_MODEL),
        0x100: us(0x130),
        0x110: us(message_id),
        0x800: us(1),
        0x1001: ui(WELL_KNOWN),
        0x1008: us(1),
    }
    return p_data(1, 3, command(rq)) + p_data(1, 2, data)


def _handlers(committing: Committing) -> Handlers:
    return Handlers(Sinks().begin, lambda report: SUCCESS, act=committing.act)


def test_an_action_is_answered_with_what_was_requested(engine: str) -> None:
    committing = Committing()
    with (
        bare_engine(engine, _handlers(committing), requestors=("TESTSCU",)) as running,
        RawScu(running.address, COMMITMENT) as scu,
    ):
        scu.socket.sendall(_action(b"list"))
        elements = scu.read_response().elements
    assert (elements[0x0100], elements[0x0120], elements[0x0900]) == (us(0x8130), us(5), us(0))
    assert (elements[0x0002], elements[0x1000], elements[0x1008]) == (ui(COMMITMENT_PUSH_MODEL), ui(WELL_KNOWN), us(1))
    (asked,) = committing.asked
    assert (asked.data, asked.action_type, asked.sop_instance_uid) == (b"list", 1, WELL_KNOWN)
    assert (asked.transfer_syntax_uid, asked.association.calling_ae_title) == (IMPLICIT_LITTLE, "TESTSCU")


@pytest.mark.parametrize(("status", "confirmed"), [(0x0000, True), (0x0110, False)])
def test_an_event_goes_out_on_the_same_association_and_its_answer_is_told(status: int, confirmed: bool) -> None:
    committing = Committing(b"r" * 1000)
    with (
        bare_engine("native", _handlers(committing), requestors=("TESTSCU",)) as running,
        RawScu(running.address, COMMITMENT, max_pdu_bytes=300) as scu,
    ):
        scu.socket.sendall(_action(b"list"))
        assert scu.read_response().status == 0
        event = command_set.decode(_message(scu))
        assert (event[0x0100], event[0x1002], event[0x1000]) == (us(0x100), us(1), ui(WELL_KNOWN))
        assert _message(scu) == b"r" * 1000
        assert max(scu.pdu_lengths) <= 300
        answer = {0x100: us(0x8100), 0x120: event[0x0110], 0x800: us(0x101), 0x900: us(status)}
        scu.socket.sendall(p_data(1, 3, command(answer)))
        wait_until(lambda: committing.told == [confirmed], within_s=60)
        scu.release()
    assert committing.told == [confirmed]


def test_an_event_whose_association_ends_first_is_told_as_not_confirmed() -> None:
    committing = Committing()
    with bare_engine("native", _handlers(committing), requestors=("TESTSCU",)) as running:
        with RawScu(running.address, COMMITMENT) as scu:
            scu.socket.sendall(_action(b"list"))
            scu.read_response()
            _message(scu)
            _message(scu)
            scu.release()
        wait_until(lambda: committing.told == [False], within_s=60)


def test_pynetdicoms_engine_leaves_the_event_to_a_new_association() -> None:
    committing = Committing()
    with (
        bare_engine("pynetdicom", _handlers(committing), requestors=("TESTSCU",)) as running,
        RawScu(running.address, COMMITMENT) as scu,
    ):
        scu.socket.sendall(_action(b"list"))
        assert scu.read_response().status == 0
        wait_until(lambda: committing.told == [False], within_s=60)


def test_an_answer_to_nothing_is_ignored() -> None:
    with bare_engine("native") as running, RawScu(running.address) as scu:
        answer = {0x100: us(0x8100), 0x120: us(3), 0x800: us(0x101), 0x900: us(0)}
        scu.socket.sendall(p_data(1, 3, command(answer)))
        assert scu.echo() == 0


def test_an_action_list_without_end_costs_its_own_association(engine: str) -> None:
    committing = Committing()
    with (
        bare_engine(engine, _handlers(committing), requestors=("TESTSCU",)) as running,
        RawScu(running.address, COMMITMENT) as scu,
    ):
        scu.socket.sendall(_action(b"")[: -len(p_data(1, 2, b""))])
        with suppress(ConnectionError):
            for _ in range(100):
                scu.socket.sendall(p_data(1, 0, bytes(16_000)))
        assert _ends(scu)
    assert committing.asked == []


def test_refused_contexts_are_told_with_all_that_was_proposed(engine: str) -> None:
    told: list[tuple[AssociationFacts, list[RefusedContext]]] = []
    handlers = Handlers(
        Sinks().begin, lambda report: SUCCESS, negotiated=lambda facts, refused: told.append((facts, list(refused)))
    )
    contexts = [(CT, (EXPLICIT_LITTLE,)), (CT, ("1.2.3", "1.2.4")), ("1.2.99", (IMPLICIT_LITTLE, EXPLICIT_LITTLE))]
    with bare_engine(engine, handlers) as running, RawScu(running.address, contexts):
        wait_until(lambda: bool(told), within_s=60)
    ((facts, refused),) = told
    assert (facts.calling_ae_title, facts.called_ae_title, facts.peer_address) == ("TESTSCU", "OPENTRIAGE", "127.0.0.1")
    assert refused == [
        RefusedContext(CT, ("1.2.3", "1.2.4"), "transfer_syntax"),
        RefusedContext("1.2.99", (IMPLICIT_LITTLE, EXPLICIT_LITTLE), "abstract_syntax"),
    ]


def test_every_association_is_told_once_how_it_ended(engine: str) -> None:
    ended: list[Ending] = []
    handlers = Handlers(Sinks().begin, lambda report: SUCCESS, ended=lambda facts, ending: ended.append(ending))
    with bare_engine(engine, handlers) as running:
        for finish, ending in (
            (RawScu.release, Ending.RELEASED),
            (RawScu.abort, Ending.ABORTED),
            (lambda scu: scu.socket.close(), Ending.CUT),
        ):
            scu = RawScu(running.address)
            assert scu.echo() == 0
            finish(scu)
            wait_until(lambda: bool(ended), within_s=60)
            assert [ended.pop()] == [ending]
        socket.create_connection(running.address).close()
    assert ended == []


def test_a_place_is_free_again_before_the_release_is_answered() -> None:
    with bare_engine("native", max_associations=1) as running:
        for _ in range(50):
            with RawScu(running.address) as scu:
                scu.release()


def test_who_was_aborted_can_finish_its_sentence_and_read_why(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that is closed while bytes arrive is reset, and many a peer then drops what it did not read yet."""
    close = Wire.close
    monkeypatch.setattr(Wire, "close", lambda self, linger_s=0.0: close(self, 60.0))  # a slow machine: a slow peer
    with bare_engine("native") as running, RawScu(running.address, [(CT, (EXPLICIT_LITTLE,))]) as scu:
        scu.socket.sendall(struct.pack(">BxL", 4, 1 << 30))
        for _ in range(64):
            scu.socket.sendall(bytes(65_536))
        assert scu.read_pdu() == (7, b"\0\0\2\6")


def test_a_shared_listener_is_left_open_for_the_others(engine: str) -> None:
    received = ReceiveSettings(host="127.0.0.1", port=0)
    policy = AssociationPolicy(received, lambda: False)
    with socket.create_server(("127.0.0.1", 0)) as listener, listener.dup() as ours:
        handlers = Handlers(Sinks().begin, lambda report: SUCCESS)
        running = ENGINES[engine](received, Surroundings(policy, handlers, listener=ours))
        running.start()
        with RawScu(running.address) as scu:
            assert scu.echo() == 0
        running.stop(1.0)
        with socket.create_connection(listener.getsockname()):
            listener.settimeout(60)
            listener.accept()[0].close()


def test_an_association_leaves_nothing_for_the_garbage_collector() -> None:
    """Its buffer would stay until the next full collection: gigabytes, where a sender associates for each image."""
    gc.collect()
    gc.disable()
    try:
        with bare_engine("native") as running:
            for finish in (RawScu.release, RawScu.abort, lambda scu: scu.socket.sendall(p_data(1, 2, b"x"))):
                with RawScu(running.address, [(CT, (EXPLICIT_LITTLE,))]) as scu:
                    assert scu.store(CT, "1.2.3.4", bytes(100_000)).status == 0
                    finish(scu)
            wait_until(lambda: not [found for found in gc.get_objects() if isinstance(found, Wire)], within_s=60)
    finally:
        gc.enable()


def test_drain_waits_for_what_is_open_and_accepts_nothing_new(engine: str) -> None:
    with bare_engine(engine) as running, RawScu(running.address, [(VERIFICATION, (IMPLICIT_LITTLE,))]) as scu:
        draining = threading.Thread(target=running.drain, args=(120.0,))
        draining.start()
        wait_until(lambda: _refuses(running.address), within_s=60)
        assert scu.echo() == 0
        scu.release()
        draining.join(90)
        assert not draining.is_alive()


def _message(scu: RawScu) -> bytes:
    """The fragments of one command or data set."""
    data = b""
    while True:
        kind, body = scu.read_pdu()
        assert kind == 4
        scu.pdu_lengths.append(len(body))
        data += body[6:]
        if body[5] & 2:
            return data


def _ends(scu: RawScu) -> bool:
    try:
        return scu.socket.recv(1) in (b"", b"\7")
    except ConnectionError:
        return True


def _refuses(address: tuple[str, int]) -> bool:
    try:
        socket.create_connection(address, timeout=1).close()
    except OSError:
        return True
    return False
