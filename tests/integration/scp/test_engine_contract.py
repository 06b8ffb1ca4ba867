"""What any network engine must do on the wire. Runs over every engine in scp.receiver.ENGINES."""

import socket
import struct
import subprocess
import threading
import time
from contextlib import closing, suppress

import pydicom
import pytest
from structlog.testing import capture_logs

from tests.support.encoded import CT, data_set, element
from tests.support.peers import need
from tests.support.rawscu import (
    EXPLICIT_LITTLE,
    IMPLICIT_LITTLE,
    VERIFICATION,
    Aborted,
    RawScu,
    Rejected,
    associate_rq,
    command,
    item,
    p_data,
    ui,
    us,
)
from tests.support.receiving import Receiving, StartReceiving
from tests.support.waiting import wait_until

CT_CONTEXT = [(CT, (EXPLICIT_LITTLE,))]
JPEG_LOSSLESS, J2K_LOSSLESS = "1.2.840.10008.1.2.4.70", "1.2.840.10008.1.2.4.90"
JPEG_BASELINE, BIG_ENDIAN, DEFLATED = "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99"


# --- association ---


def test_echo_is_answered(node: Receiving) -> None:
    with RawScu(node.address) as scu:
        assert scu.echo() == 0x0000
        assert scu.echo() == 0x0000
        scu.release()


def test_echoscu_is_answered(node: Receiving) -> None:
    host, port = node.address
    done = subprocess.run([need("echoscu"), "-aec", "OPENTRIAGE", host, str(port)], timeout=30, check=False)
    assert done.returncode == 0


@pytest.mark.parametrize(
    ("settings", "called", "calling", "triple"),
    [
        ({}, "WRONG", "ANY", (1, 1, 7)),
        ({"allowed_calling_ae_titles": ["CT1"]}, "OPENTRIAGE", "CT2", (1, 1, 3)),
    ],
)
def test_a_stranger_is_rejected(
    start: StartReceiving, settings: dict[str, object], called: str, calling: str, triple: tuple[int, int, int]
) -> None:
    node = start(**settings)
    with capture_logs() as logs, pytest.raises(Rejected) as caught:
        RawScu(node.address, called=called, calling=calling)
    assert caught.value.triple == triple
    (told,) = [entry for entry in logs if entry["event"] == "association_rejected"]
    assert (told["calling_ae_title"], told["called_ae_title"], told["peer"]) == (calling, called, "127.0.0.1")


def test_an_allowed_calling_title_is_accepted(start: StartReceiving) -> None:
    node = start(allowed_calling_ae_titles=["CT1"])
    with RawScu(node.address, calling="CT1") as scu:
        assert scu.echo() == 0


def test_a_foreign_network_is_closed_before_a_word_is_read(start: StartReceiving) -> None:
    node = start(allowed_networks=["10.0.0.0/8"])
    with closing(socket.create_connection(node.address, timeout=10)) as connection:
        assert connection.recv(1) == b""
    with pytest.raises((Aborted, OSError)):
        RawScu(node.address)


def test_the_association_limit_rejects_and_recovers(start: StartReceiving) -> None:
    node = start(max_associations=2)
    with RawScu(node.address) as first, RawScu(node.address) as second:
        with pytest.raises(Rejected) as caught:
            RawScu(node.address)
        assert caught.value.triple == (2, 3, 2)
        assert first.echo() == second.echo() == 0
        first.release()

    def place_is_free() -> bool:
        try:
            with RawScu(node.address) as scu:
                return scu.echo() == 0
        except Rejected:
            return False

    wait_until(place_is_free, within_s=60)


def test_silent_connections_do_not_use_up_the_association_limit(start: StartReceiving) -> None:
    node = start(max_associations=1)
    silent = [socket.create_connection(node.address, timeout=10) for _ in range(5)]
    try:
        silent[0].sendall(associate_rq([(VERIFICATION, (IMPLICIT_LITTLE,))])[:16])
        with RawScu(node.address) as scu:
            assert scu.echo() == 0
    finally:
        for connection in silent:
            connection.close()


def test_half_a_request_is_given_up_after_the_acse_timeout(start: StartReceiving) -> None:
    node = start(acse_timeout_s=0.5)
    with closing(socket.create_connection(node.address, timeout=60)) as connection:
        connection.sendall(associate_rq([(VERIFICATION, (IMPLICIT_LITTLE,))])[:16])
        began = time.monotonic()
        with suppress(ConnectionResetError):
            assert connection.recv(1) == b""
        assert time.monotonic() - began < 25  # of thirty that it would have otherwise


def test_half_a_fragment_is_given_up_after_the_dimse_timeout(start: StartReceiving) -> None:
    node = start(dimse_timeout_s=0.5)
    with RawScu(node.address, CT_CONTEXT) as scu:
        scu.send_command(CT, "1.2.3.4")
        scu.socket.sendall(p_data(1, 0, data_set())[:50])
        wait_until(lambda: not node.parts(), within_s=40)  # of sixty that it would have otherwise
        with pytest.raises((Aborted, ConnectionError)):
            scu.read_response()


@pytest.mark.parametrize("length", [0xFFFFFFFF, 64 * 1024 * 1024])
def test_a_pdu_longer_than_negotiated_aborts(node: Receiving, length: int) -> None:
    with RawScu(node.address, CT_CONTEXT) as scu:
        scu.send_command(CT, "1.2.3.4")
        scu.socket.sendall(struct.pack(">BxL", 4, length) + bytes(64))
        with pytest.raises((Aborted, ConnectionError)):
            scu.read_response()
    wait_until(lambda: not node.parts(), within_s=60)


def test_an_endless_command_set_aborts(node: Receiving) -> None:
    with RawScu(node.address, CT_CONTEXT) as scu:
        with suppress(ConnectionError):
            for _ in range(100):
                scu.socket.sendall(p_data(1, 1, bytes(16_000)))
        with pytest.raises((Aborted, ConnectionError)):
            scu.read_response()


@pytest.mark.parametrize("fragment", [b"", b"garbage", bytes(40), command({0x100: us(0x7777), 0x800: us(0x101)})])
def test_a_senseless_command_costs_its_own_association_only(node: Receiving, fragment: bytes) -> None:
    with RawScu(node.address, CT_CONTEXT) as scu:
        scu.socket.sendall(p_data(1, 3, fragment))
        with pytest.raises((Aborted, ConnectionError)):
            scu.read_response()
    with RawScu(node.address) as scu:
        assert scu.echo() == 0


def test_a_context_that_was_not_accepted_aborts(node: Receiving) -> None:
    with RawScu(node.address, CT_CONTEXT) as scu:
        scu.send_command(CT, "1.2.3.4", context_id=99)
        with pytest.raises((Aborted, ConnectionError)):
            scu.read_response()
    assert node.parts() == []


def test_asynchronous_operations_are_answered_with_one(node: Receiving) -> None:
    asked = item(0x53, struct.pack(">HH", 0, 0))  # unlimited
    with RawScu(node.address, CT_CONTEXT, extra_user_items=asked) as scu:
        assert scu.user_items[0x53] == struct.pack(">HH", 1, 1)


def test_our_maximum_pdu_length_is_told(start: StartReceiving) -> None:
    node = start(max_pdu_bytes=65_536)
    with RawScu(node.address) as scu:
        assert scu.user_items[0x51] == struct.pack(">L", 65_536)


# --- presentation contexts ---


@pytest.mark.parametrize(
    ("proposed", "chosen"),
    [
        ((JPEG_BASELINE, JPEG_LOSSLESS, IMPLICIT_LITTLE, EXPLICIT_LITTLE), EXPLICIT_LITTLE),
        ((JPEG_BASELINE, JPEG_LOSSLESS, IMPLICIT_LITTLE), IMPLICIT_LITTLE),
        ((JPEG_BASELINE, J2K_LOSSLESS), J2K_LOSSLESS),
        ((JPEG_BASELINE, JPEG_LOSSLESS), JPEG_LOSSLESS),
        (("1.2.840.10008.1.2.4.100", JPEG_BASELINE), JPEG_BASELINE),
        (("1.2.840.10008.1.2.4.107",), "1.2.840.10008.1.2.4.107"),
    ],
)
def test_our_preference_wins(node: Receiving, proposed: tuple[str, ...], chosen: str) -> None:
    with RawScu(node.address, [(CT, proposed)]) as scu:
        assert scu.results[1] == (0, chosen)


def test_what_is_not_accepted_is_refused_context_by_context(start: StartReceiving) -> None:
    node = start(private_sop_classes=["1.3.12.2.1107.5.9.1"])
    contexts = [
        (CT, (EXPLICIT_LITTLE,)),
        (CT, (DEFLATED,)),
        (CT, (BIG_ENDIAN,)),
        ("1.3.12.2.1107.5.9.1", (EXPLICIT_LITTLE,)),
        ("1.3.12.2.1107.5.9.2", (EXPLICIT_LITTLE,)),
        ("1.2.840.10008.5.1.4.1.2.1.1", (EXPLICIT_LITTLE,)),  # patient root FIND
        ("1.2.840.10008.5.1.4.1.1.5", (EXPLICIT_LITTLE,)),  # retired NM
    ]
    with RawScu(node.address, contexts) as scu:
        assert [scu.results[2 * n + 1][0] for n in range(len(contexts))] == [0, 4, 4, 0, 3, 3, 0]


def test_deflated_and_big_endian_by_configuration(start: StartReceiving) -> None:
    node = start(accept_deflated=True, accept_big_endian=True)
    with RawScu(node.address, [(CT, (DEFLATED,)), (CT, (BIG_ENDIAN,))]) as scu:
        assert [result for result, _ in scu.results.values()] == [0, 0]
        big = data_set(big=True)
        assert scu.store(CT, "1.2.3.4", big, context_id=3).status == 0
    assert node.find("1.2.3.4", big)


def test_a_private_class_is_stored_when_configured(start: StartReceiving) -> None:
    private = "1.3.12.2.1107.5.9.1"
    node = start(private_sop_classes=[private])
    data = data_set(SOPClassUID=private)
    with RawScu(node.address, [(private, (EXPLICIT_LITTLE,))]) as scu:
        assert scu.store(private, "1.2.3.4", data).status == 0
    assert node.find("1.2.3.4", data)


# --- messages ---


def test_the_bytes_are_kept_as_they_came_behind_our_own_header(node: Receiving) -> None:
    data = data_set(tail=element(0x7FE00010, "OW", bytes(range(256)) * 300))
    with RawScu(node.address, CT_CONTEXT) as scu:
        response = scu.store(CT, "1.2.3.4", data, priority=1)
        assert response.status == 0
        assert response.elements[0x1000] == ui("1.2.3.4")
        assert response.elements[0x0120] == us(1)
        scu.release()
    ref = node.find("1.2.3.4", data)
    assert ref is not None
    stored = node.store.read(ref.path)
    assert stored.endswith(data)
    assert stored[:132] == bytes(128) + b"DICM"
    ds = pydicom.dcmread(node.store.path(ref.path))
    assert ds.file_meta.TransferSyntaxUID == EXPLICIT_LITTLE
    assert ds.file_meta.MediaStorageSOPInstanceUID == "1.2.3.4"
    assert node.ledger.counts()["jobs"]
    assert node.parts() == []


@pytest.mark.parametrize("step", [1, 7, 1000, 120_000])
def test_fragments_of_any_size_make_the_same_file(node: Receiving, step: int) -> None:
    data = data_set(tail=element(0x7FE00010, "OW", bytes(300_000 if step > 100 else 300)))
    with RawScu(node.address, CT_CONTEXT) as scu:
        assert scu.store(CT, "1.2.3.4", data, step=step).status == 0
    assert node.find("1.2.3.4", data)


def test_a_command_in_many_fragments_and_one_pdu_with_everything(node: Receiving) -> None:
    data = data_set()
    rq = command({0x2: ui(CT), 0x100: us(1), 0x110: us(1), 0x700: us(0), 0x800: us(1), 0x1000: ui("1.2.3.4")})
    pieces = [(1 if n + 10 < len(rq) else 3, rq[n : n + 10]) for n in range(0, len(rq), 10)]
    pieces += [(0, data[:100]), (2, data[100:])]
    body = b"".join(struct.pack(">LBB", len(piece) + 2, 1, control) + piece for control, piece in pieces)
    with RawScu(node.address, CT_CONTEXT) as scu:
        scu.socket.sendall(struct.pack(">BxL", 4, len(body)) + body)
        assert scu.read_response().status == 0
    assert node.find("1.2.3.4", data)


def test_a_peer_with_tiny_pdus_gets_its_answer_in_pieces(node: Receiving) -> None:
    with RawScu(node.address, CT_CONTEXT, max_pdu_bytes=64) as scu:
        assert scu.store(CT, "1.2.3.4", data_set()).status == 0
        assert scu.store(CT, "1.2.3.5", b"\1").status == 0xC000
        assert max(scu.pdu_lengths) <= 64


def test_a_fragment_of_another_context_aborts(node: Receiving) -> None:
    with RawScu(node.address, CT_CONTEXT * 2) as scu:
        scu.send_command(CT, "1.2.3.4")
        scu.socket.sendall(p_data(3, 2, data_set()))
        with pytest.raises((Aborted, ConnectionError)):
            scu.read_response()
    wait_until(lambda: not node.parts(), within_s=60)
    assert node.files() == []


def test_two_messages_sent_without_waiting_are_both_answered_in_order(node: Receiving) -> None:
    with RawScu(node.address, CT_CONTEXT) as scu:
        for n in (1, 2):
            scu.send_command(CT, f"1.2.3.{n}")
            scu.socket.sendall(p_data(1, 2, data_set(SOPInstanceUID=f"1.2.3.{n}")))
        for n in (1, 2):
            response = scu.read_response()
            assert response.status == 0
            assert response.elements[0x0120] == us(n)


def test_an_aborted_transfer_leaves_nothing(node: Receiving) -> None:
    for finish in (RawScu.abort, lambda scu: scu.socket.close()):
        scu = RawScu(node.address, CT_CONTEXT)
        scu.send_command(CT, "1.2.3.4")
        scu.socket.sendall(p_data(1, 0, data_set()[:100]))
        wait_until(node.parts, within_s=60)
        finish(scu)
        wait_until(lambda: not node.parts(), within_s=60)
    assert node.files() == []
    assert node.dispositions == {}


def test_a_hundred_contexts_negotiate_quickly(node: Receiving) -> None:
    syntaxes = (*(f"1.2.840.10008.1.2.4.{n}" for n in range(50, 90)), EXPLICIT_LITTLE)
    contexts = [(CT, syntaxes)] * 100
    began = time.process_time()  # of both ends, however busy the machine is
    with RawScu(node.address, contexts) as scu:
        assert len(scu.results) == 100
    assert time.process_time() - began < 5


# --- stopping ---


def test_stop_lets_a_message_in_progress_be_answered(node: Receiving) -> None:
    data = data_set()
    with RawScu(node.address, CT_CONTEXT) as scu:
        scu.send_command(CT, "1.2.3.4")
        scu.socket.sendall(p_data(1, 0, data[:100]))
        wait_until(node.parts, within_s=60)
        stopping = threading.Thread(target=node.receiver.stop, args=(60.0,))
        stopping.start()
        wait_until(lambda: _refuses(node), within_s=60)
        scu.socket.sendall(p_data(1, 2, data[100:]))
        assert scu.read_response().status == 0
        stopping.join(55)
        assert not stopping.is_alive()
    assert node.find("1.2.3.4", data)


def test_stop_ends_an_idle_association_at_once(node: Receiving) -> None:
    with RawScu(node.address) as scu:
        began = time.monotonic()
        node.receiver.stop(60.0)
        assert time.monotonic() - began < 45
        with pytest.raises(Aborted):
            scu.read_response()


def test_stop_does_not_wait_longer_than_its_grace(node: Receiving) -> None:
    with RawScu(node.address, CT_CONTEXT) as scu:
        scu.send_command(CT, "1.2.3.4")
        scu.socket.sendall(p_data(1, 0, data_set()[:100]))
        wait_until(node.parts, within_s=60)
        began = time.monotonic()
        node.receiver.stop(0.3)
        assert time.monotonic() - began < 15
    wait_until(lambda: not node.parts(), within_s=60)


def _refuses(node: Receiving) -> bool:
    try:
        socket.create_connection(node.address, timeout=1).close()
    except OSError:
        return True
    return False


def test_the_threads_end_with_their_associations(node: Receiving) -> None:
    before = threading.active_count()
    for _ in range(5):
        with RawScu(node.address) as scu:
            scu.echo()
            scu.release()
        RawScu(node.address).socket.close()
    wait_until(lambda: threading.active_count() <= before, within_s=60)
