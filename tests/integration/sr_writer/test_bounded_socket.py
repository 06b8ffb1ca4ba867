"""No peer that we call holds a thread of ours or fills its memory: it is Unreachable in time, and it is said why. Over
real sockets, against peers that keep to nothing."""

import hashlib
import socket
import ssl
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE, build_context, evt
from structlog.testing import capture_logs

from config import Settings
from config.settings import CommitmentRequestor, DeliverSettings, Destination, OutgoingTls
from ledger.commitment_results import CommitmentResult
from ledger.delivery_records import DeliveryOutcome, DeliveryState
from ledger.records import StoredObject, TriagePriority
from node.checkup import peers
from node.checkup.lines import Level
from node.trying import authority, sending
from sr_writer import bounded_socket, commitment, commitment_reporting
from sr_writer import find as find_module
from sr_writer.association import associate
from sr_writer.build import build_objects
from sr_writer.deliver import Sender, _c_store
from sr_writer.errors import Unreachable
from sr_writer.find import STUDY_ROOT_FIND
from sr_writer.read_back import Wanted, find
from tests.support import halting
from tests.support.findings import flagged_study, new_store
from tests.support.halting import Halting
from tests.support.realdata import ROOT
from tests.support.waiting import wait_until

ANSWER_S = 3.0  # a busy machine has asked by then, and the silence that follows is the peer's
QUICK = DeliverSettings(connect_timeout_s=10.0, response_timeout_s=ANSWER_S)
IMPATIENT = DeliverSettings(connect_timeout_s=0.6, response_timeout_s=ANSWER_S)  # where nobody comes to be associated
UNHURRIED = DeliverSettings(connect_timeout_s=10.0, response_timeout_s=30.0)  # where time decides nothing
IN_TIME_S = halting.LIFE_S - 10.0  # a peer here holds out for longer
SILENT = "fell silent in the middle of a message"
TOO_LONG = "announced a PDU of 4294967280 bytes where"
TEXT, EXPLICIT = "1.2.840.10008.5.1.4.1.1.88.22", "1.2.840.10008.1.2.1"
WANTED = [Wanted("1.2", "1.2.3", "1.2.3.4")]


def named(peer: Halting, **more: object) -> Destination:
    return Destination.model_validate(
        {"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": peer.port, **more}
    )


@contextmanager
def in_time() -> Iterator[None]:
    began = time.monotonic()
    yield
    assert time.monotonic() - began < IN_TIME_S


def asked(peer: Halting, settings: DeliverSettings) -> str:
    """What is said of a peer that is asked what it holds."""
    with in_time(), pytest.raises(Unreachable) as caught:
        find(named(peer), settings, WANTED)
    return str(caught.value)


@pytest.mark.parametrize(
    ("halt", "said"),
    [
        (halting.half_a_header, SILENT),
        (halting.half_a_pdu, SILENT),
        (halting.dripping, SILENT),
        (halting.four_gibibytes, TOO_LONG),
        (halting.a_long_abort, "announced a PDU of 1048576 bytes where"),
        (halting.without_end, "answered without end"),
    ],
)
def test_whoever_does_not_answer_as_agreed_is_unreachable_in_time(halt: halting.Halt, said: str) -> None:
    with Halting(halt) as peer, capture_logs() as logs:
        assert f"pacs {said}" in asked(peer, QUICK if said is SILENT else UNHURRIED)
    [line] = [line for line in logs if line["event"] == "association_cut_off"]
    assert (line["destination"], line["log_level"]) == ("pacs", "warning")
    assert said in line["reason"]


@pytest.mark.parametrize(
    ("halt", "said"),
    [
        (halting.half_an_acceptance, "pacs "),
        (halting.a_dripping_acceptance, "pacs "),
        (halting.a_huge_acceptance, f"pacs {TOO_LONG} 1048576 are allowed when it was asked for an association."),
    ],
)
def test_whoever_does_not_accept_as_agreed_is_unreachable_in_time(halt: halting.Halt, said: str) -> None:
    with Halting(halt, answers=False) as peer:
        assert said in asked(peer, IMPATIENT if said == "pacs " else UNHURRIED)


def test_what_is_announced_is_not_kept_room_for_nor_read() -> None:
    """Of 60 MB that are sent for one PDU, and of 60 MB in small ones, no more is kept than an answer may have."""

    def pushing(connection: socket.socket, _: bytes) -> None:
        connection.sendall(halting.HEADER.pack(4, 0xFFFFFFF0))
        for _ in range(60):
            connection.sendall(bytes(1 << 20))

    for halt in (pushing, halting.without_end):
        with Halting(halt) as peer:
            tracemalloc.start()
            try:
                asked(peer, UNHURRIED)
                _, most = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
        assert most < 4 * bounded_socket.ANSWER_MAX_BYTES


def test_a_peer_that_announces_too_much_hears_an_abort() -> None:
    with Halting(halting.a_long_abort) as peer:
        asked(peer, UNHURRIED)
        wait_until(lambda: peer.ended.endswith(bytes((7, 0, 0, 0, 0, 4, 0, 0, 2, 6))), within_s=60)


# --- whoever asks ---


def _store(to: Destination, folder: Path) -> str:
    store = new_store(folder)
    objects = []
    for number, made in enumerate(build_objects(flagged_study(store), store, Settings(), "2.25.7", "generic-pacs"), 1):
        digest = hashlib.sha256(made.content).hexdigest()
        names = (made.kind, made.sop_class_uid, made.sop_instance_uid, made.transfer_syntax_uid)
        path = store.put("objects", digest, ".dcm", made.content)
        objects.append(StoredObject(number, *names, digest, path, TriagePriority.HIGH))
    outcomes: list[DeliveryOutcome] = []
    Sender(to, QUICK).send(objects, store, outcomes.append)
    assert {outcome.state for outcome in outcomes} == {DeliveryState.WAITING}
    assert len(outcomes) > 1  # one question told all that is to be known
    return outcomes[0].reason


def _commitment(to: Destination, _: Path) -> str:
    with pytest.raises(Unreachable) as caught:
        commitment.request(to, QUICK, "2.25.1", [("1.2", "1.2.3")], 0.2, lambda: None)
    return str(caught.value)


def _report(to: Destination, _: Path) -> str:
    requestor = CommitmentRequestor(ae_title="PACS", host=to.host, port=to.port, retention_days=1)
    with pytest.raises(Unreachable) as caught:
        commitment_reporting.report(requestor, QUICK, CommitmentResult("2.25.1", ()))
    return str(caught.value)


def _send(to: Destination, _: Path) -> str:
    heard: list[sending.Sent] = []
    sample = ROOT / "node" / "samples" / "synthetic-chest-1.dcm"
    sending.send_files([sample], sending.Peer("PACS", to.host, to.port), heard.append)
    return heard[0].text


def _doctor(to: Destination, _: Path) -> str:
    lines = list(peers.destination(to, Settings(destinations=(to,))))
    assert lines[0].level is Level.FAILURE
    return lines[0].found


@pytest.mark.parametrize("ask", [_store, _commitment, _report, _send, _doctor])
def test_whatever_is_asked_it_is_never_waited_for_longer_than_agreed(
    ask: Callable[[Destination, Path], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "_TIMES", QUICK)
    monkeypatch.setattr(peers, "CONNECT_S", 10.0)
    monkeypatch.setattr(peers, "ANSWER_S", ANSWER_S)
    with Halting(halting.half_a_pdu) as peer, capture_logs() as logs, in_time():
        assert SILENT in ask(named(peer), tmp_path)
    assert "association_cut_off" in [line["event"] for line in logs]


@pytest.mark.parametrize("halt", [halting.half_a_pdu, halting.dripping, halting.four_gibibytes])
def test_in_tls_it_is_the_same(halt: halting.Halt, tmp_path: Path) -> None:
    authority.make(tmp_path / "pki", ("127.0.0.1",), days=2)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "pki" / "node.pem", tmp_path / "pki" / "node.key")
    tls = OutgoingTls(enabled=True, ca_file=tmp_path / "pki" / "ca.pem")
    with Halting(halt, context=context) as peer, in_time(), pytest.raises(Unreachable) as caught:
        find(named(peer, tls=tls), QUICK, WANTED)
    assert SILENT in str(caught.value) or TOO_LONG in str(caught.value)


# --- the rest ---


def test_a_machine_that_is_gone_is_found_out_by_the_system_too() -> None:
    with Halting(halting.half_a_pdu) as peer:
        association = associate(named(peer), QUICK, [build_context(TEXT, EXPLICIT)])
        connection = association.dul.socket.socket
        assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 1000 * ANSWER_S
        association.abort()


def test_a_peer_that_reads_nothing_is_not_waited_for() -> None:
    """Most of what is sent lies in our buffers when nobody waits for the answer any more."""
    over = threading.Event()

    def deaf(connection: socket.socket, _: bytes) -> None:
        over.wait(halting.LIFE_S)

    item = StoredObject(1, "text", TEXT, "1.2.3", EXPLICIT, "", "", TriagePriority.HIGH)
    with Halting(deaf) as peer, in_time():
        association = associate(named(peer), QUICK, [build_context(TEXT, EXPLICIT)])
        assert _c_store(association, association.accepted_contexts[0], item, bytes(30 << 20), None) is None
        wait_until(lambda: not association.is_established, within_s=60)
        over.set()


def test_answers_that_are_each_as_agreed_come_to_an_end_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(find_module, "_TIMES_AS_LONG", 1)

    def one_more(event: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
        until = time.monotonic() + halting.LIFE_S
        while event.assoc.is_established and time.monotonic() < until:
            time.sleep(halting.STEP_S)
            yield 0xFF00, event.identifier

    pacs = AE(ae_title="PACS")
    pacs.add_supported_context(STUDY_ROOT_FIND, EXPLICIT)
    server = pacs.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_FIND, one_more)])
    to = Destination(name="pacs", ae_title="PACS", host="127.0.0.1", port=server.socket.getsockname()[1])
    try:
        with in_time(), pytest.raises(Unreachable, match="pacs came to no end"):
            find(to, QUICK, WANTED)
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("error", [socket.gaierror(socket.EAI_NONAME, "no such name"), UnicodeError("label too long")])
def test_a_name_that_nobody_knows_is_unreachable(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(Unreachable, match="no connection to pacs"):
        find(Destination(name="pacs", ae_title="PACS", host="pacs.example", port=104), QUICK, WANTED)
