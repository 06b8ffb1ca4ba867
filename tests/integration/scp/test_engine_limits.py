"""Every limit of the network engines, met. What fired is counted under its own name."""

import errno
import resource
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from prometheus_client import Counter
from structlog.testing import capture_logs

from scp import metrics
from scp.network import descriptors
from scp.network.engine import OwnOccupancy
from scp.network.pdu import Wire, tune
from scp.network.policy import Refusal
from tests.support.bare_engines import bare_engine
from tests.support.encoded import CT, data_set, element
from tests.support.rawscu import (
    EXPLICIT_LITTLE,
    IMPLICIT_LITTLE,
    VERIFICATION,
    Aborted,
    RawScu,
    Rejected,
    associate_rq,
    p_data,
)
from tests.support.receiving import StartReceiving
from tests.support.waiting import wait_until

CT_CONTEXT = [(CT, (EXPLICIT_LITTLE,))]
ROOT = Path(__file__).parents[3]
_REQUEST = associate_rq([(VERIFICATION, (IMPLICIT_LITTLE,))])


def _count(counter: Counter, reason: str) -> float:
    return float(counter.labels(reason)._value.get())


def _aborts(reason: str) -> float:
    return _count(metrics.ASSOCIATIONS_ABORTED, reason)


# --- associating ---


def test_a_request_of_nearly_a_megabyte_is_read(engine: str) -> None:
    unknown = tuple(f"1.2.{n}." + "3" * 56 for n in range(100, 200))
    rq = associate_rq([(VERIFICATION, (IMPLICIT_LITTLE, *unknown))] * 128)
    assert 800_000 < len(rq) < 1 << 20
    with bare_engine(engine) as running, socket.create_connection(running.address, timeout=20) as connection:
        connection.sendall(rq)
        assert connection.recv(1) == b"\2"


def test_a_request_of_more_than_a_megabyte_is_aborted(engine: str) -> None:
    with bare_engine(engine) as running, socket.create_connection(running.address, timeout=20) as connection:
        connection.sendall(struct.pack(">BxL", 1, (1 << 20) + 1) + bytes(1000))
        assert connection.recv(10) == struct.pack(">BxLBBBB", 7, 4, 0, 0, 2, 6)


def test_a_failed_volume_and_a_full_house_are_told_apart(engine: str) -> None:
    failed = False
    with bare_engine(engine, has_failed=lambda: failed, max_associations=5, max_associations_per_ae=2) as running:
        with RawScu(running.address, calling="A") as first, RawScu(running.address, calling="A"):
            with pytest.raises(Rejected) as caught:
                RawScu(running.address, calling="A")
            assert caught.value.triple == (2, 3, 2)
            with RawScu(running.address, calling="B") as other:
                assert other.echo() == first.echo() == 0
        failed = True
        with pytest.raises(Rejected) as caught:
            RawScu(running.address, calling="C")
        assert caught.value.triple == (2, 3, 1)


class _Damaged(OwnOccupancy):
    is_damaged = True

    def enter(self, calling_ae_title: str, refusal: Callable[[int, int], Refusal | None]) -> Refusal | None:
        if self.is_damaged:
            raise OSError(errno.EIO, "damaged")
        return super().enter(calling_ae_title, refusal)


def test_who_cannot_be_counted_is_told_to_come_again_and_may(engine: str) -> None:
    occupancy = _Damaged()
    with bare_engine(engine, occupancy=occupancy) as running:
        with capture_logs() as logs:
            with socket.create_connection(running.address, timeout=20) as connection:
                connection.sendall(_REQUEST)
                assert connection.recv(1) in (b"\3", b"\7")  # never closed without a word
            wait_until(lambda: "connection_failed" in [line["event"] for line in logs], within_s=60)
        occupancy.is_damaged = False
        with RawScu(running.address) as scu:
            assert scu.echo() == 0


def test_who_connects_and_says_nothing_is_crowded_out() -> None:
    with bare_engine("native") as running, ExitStack() as stack:
        silent = [
            stack.enter_context(socket.create_connection(running.address, timeout=10))
            for _ in range(descriptors.PENDING_MAX + 5)
        ]
        with RawScu(running.address) as scu:
            assert scu.echo() == 0
        assert silent[0].recv(1) == b""
        silent[-1].sendall(associate_rq([(VERIFICATION, (IMPLICIT_LITTLE,))]))
        assert silent[-1].recv(1) == b"\2"


def test_a_probe_that_connects_and_closes_is_counted_and_told_nowhere() -> None:
    with bare_engine("native") as running:
        before = [child._value.get() for counter in _COUNTERS for child in counter._metrics.values()]
        with capture_logs() as logs:
            for _ in range(20):
                socket.create_connection(running.address).close()
            with RawScu(running.address) as scu:
                scu.release()
        assert logs == []
        assert before == [child._value.get() for counter in _COUNTERS for child in counter._metrics.values()]


_COUNTERS = (metrics.ASSOCIATIONS_ABORTED, metrics.CONNECTIONS_REFUSED, metrics.ASSOCIATIONS_REJECTED)


def test_an_accepted_connection_is_tuned() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()):
        connection, _ = listener.accept()
        with connection:
            tune(connection)
            tcp = [socket.TCP_NODELAY, socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT]
            assert [connection.getsockopt(socket.IPPROTO_TCP, option) for option in tcp] == [1, 60, 10, 3]
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 30_000
            assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1


# --- who is cut off before it is associated ---


@pytest.mark.parametrize(
    ("sent", "reason", "hint"),
    [
        (struct.pack(">BxL", 1, 10) + bytes(10), "malformed_request", ""),
        (_REQUEST[:73] + b"\x01" + _REQUEST[74:76] + b"\xff\xff" + _REQUEST[78:], "malformed_request", ""),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc", "unrecognised_pdu", "receive.tls.enabled"),
        (b"GET / HTTP/1.1\r\n\r\n", "unrecognised_pdu", "HTTP"),
        (struct.pack(">BxL", 1, 0xFFFFFFFF), "pdu_length", ""),
        (_REQUEST[:50], "pdu_deadline", ""),
        (b"", "idle", ""),
    ],
    ids=["malformed", "lying item", "TLS", "HTTP", "length bomb", "half a request", "silence"],
)
def test_the_log_says_who_was_cut_off_and_why(sent: bytes, reason: str, hint: str) -> None:
    patience_s = {"idle": 1.0, "pdu_deadline": 3.0}.get(reason, 60.0)
    with bare_engine("native", acse_timeout_s=patience_s) as running, capture_logs() as logs:
        for _ in range(3):
            with socket.create_connection(running.address, timeout=20) as connection:
                connection.sendall(sent)
                with suppress(ConnectionError):
                    while connection.recv(100):
                        pass
        lines = [line for line in logs if line["event"] == "connection_cut"]
    assert [(line["peer"], line["reason"], line["log_level"]) for line in lines] == [("127.0.0.1", reason, "warning")]
    assert hint in lines[0].get("hint", "")
    assert bool(hint) == ("hint" in lines[0])


def test_half_a_request_of_a_peer_that_goes_away_is_told_and_a_foreign_network_too() -> None:
    with capture_logs() as logs:
        with bare_engine("native") as running:
            with socket.create_connection(running.address, timeout=20) as connection:
                connection.sendall(_REQUEST[:50])
            wait_until(lambda: logs, within_s=60)
        with bare_engine("native", allowed_networks=("10.0.0.0/8",)) as running:
            with socket.create_connection(running.address, timeout=20) as connection, suppress(ConnectionError):
                assert connection.recv(1) == b""
            wait_until(lambda: len(logs) > 1, within_s=60)
    assert [line["reason"] for line in logs] == ["connection_lost", "network"]


# --- time ---


def test_an_idle_association_is_aborted(engine: str) -> None:
    with bare_engine(engine, network_timeout_s=0.4) as running, RawScu(running.address) as scu:
        assert scu.read_pdu()[0] == 7


def test_the_reasons_of_aborts_are_counted_apart() -> None:
    for reason, sent, patience in (
        ("idle", b"", {"network_timeout_s": 0.4}),
        ("pdu_deadline", p_data(1, 3, bytes(100))[:50], {"dimse_timeout_s": 0.4}),
        ("pdu_length", struct.pack(">BxL", 4, 1 << 20), {}),
        ("unrecognised_pdu", struct.pack(">BxLL", 99, 4, 0), {}),
        ("unexpected_pdu", struct.pack(">BxLL", 6, 4, 0), {}),
        ("fragment", p_data(1, 2, b"x"), {}),
        ("command_set", p_data(1, 3, b"garbage"), {}),
        ("presentation_context", p_data(7, 3, b"x"), {}),
        ("peer", struct.pack(">BxLL", 7, 4, 0), {}),
    ):
        before = _aborts(reason)
        with bare_engine("native", **patience) as running, RawScu(running.address, CT_CONTEXT) as scu:
            scu.socket.sendall(sent)
            with suppress(Aborted, ConnectionError):
                scu.read_pdu()
            wait_until(lambda reason=reason, before=before: _aborts(reason) == before + 1, within_s=60)


def test_a_pdu_has_a_deadline_however_steadily_it_drips(engine: str) -> None:
    with (
        bare_engine(engine, dimse_timeout_s=1.0, min_bytes_per_s=0) as running,
        RawScu(running.address, CT_CONTEXT) as scu,
    ):
        scu.send_command(CT, "1.2.3.4")
        began = time.monotonic()
        with suppress(ConnectionError):
            for byte in p_data(1, 2, bytes(1000)):
                scu.socket.sendall(bytes((byte,)))
                time.sleep(0.02)
        assert time.monotonic() - began < 15


def test_a_message_below_the_minimum_rate_is_aborted() -> None:
    before = _aborts("minimum_rate")
    with (
        bare_engine("native", dimse_timeout_s=3.0, min_bytes_per_s=100_000) as running,
        RawScu(running.address, CT_CONTEXT) as scu,
    ):
        scu.send_command(CT, "1.2.3.4")
        with suppress(ConnectionError):
            for _ in range(500):  # whole PDUs, each well within its deadline
                scu.socket.sendall(p_data(1, 0, bytes(100)))
                time.sleep(0.02)
        wait_until(lambda: _aborts("minimum_rate") == before + 1, within_s=60)


def test_time_in_which_we_do_not_read_counts_against_nobody() -> None:
    ours, theirs = socket.socketpair()
    wire = Wire(ours, 4096, min_bytes_per_s=10_000_000)
    wire.set_deadlines(30.0, 0.8)  # the rate is judged over half of that
    with theirs:
        for _ in range(3):
            theirs.sendall(p_data(1, 0, bytes(1000)))
            assert wire.read(in_message=True)[0] == 4
            time.sleep(0.5)
        wire.close()


# --- endless data sets ---


def test_an_endless_data_set_is_cut_off_and_a_long_one_hears_why(start: StartReceiving) -> None:
    node = start(max_instance_bytes=100_000)
    with capture_logs() as logs, RawScu(node.address, CT_CONTEXT) as scu:
        assert scu.store(CT, "1.2.3.4", bytes(150_000)).status == 0xA700
        scu.send_command(CT, "1.2.3.5")
        with suppress(ConnectionError):
            for _ in range(100):
                scu.socket.sendall(p_data(1, 0, bytes(10_000)))
        with pytest.raises((Aborted, ConnectionError)):
            scu.read_response()
        wait_until(lambda: any(line["event"] == "association_aborted" for line in logs), within_s=60)
    assert node.parts() == []
    [said] = [line for line in logs if line["event"] == "association_aborted"]
    assert (said["reason"], said["calling_ae_title"], said["peer"]) == ("endless_data_set", "TESTSCU", "127.0.0.1")
    assert (said["sop_instance_uid"], said["setting"]) == ("1.2.3.5", "receive.max_instance_bytes")
    assert 200_000 < said["size_bytes"] <= 210_000


# --- bytes in flight ---


@pytest.mark.parametrize("receivers", [1, 4])
def test_what_finds_no_room_in_time_is_refused_and_the_oldest_goes_on(start: StartReceiving, receivers: int) -> None:
    node = start(in_flight_max_bytes=100_000 * receivers, receivers=receivers, dimse_timeout_s=1.0, min_bytes_per_s=0)
    whole = [data_set(SOPInstanceUID=f"1.2.3.{n}", tail=element(0x7FE00010, "OW", bytes(150_000))) for n in (1, 2)]
    with RawScu(node.address, CT_CONTEXT) as first, RawScu(node.address, CT_CONTEXT) as second:
        first.send_command(CT, "1.2.3.1")
        first.socket.sendall(p_data(1, 0, whole[0][:80_000]))
        wait_until(node.parts, within_s=60)
        refused = second.store(CT, "1.2.3.2", whole[1])
        assert (refused.status, refused.comment) == (0xA700, "too many bytes in flight")
        first.socket.sendall(p_data(1, 2, whole[0][80_000:]))
        assert first.read_response().status == 0
        assert second.store(CT, "1.2.3.2", whole[1]).status == 0


def test_who_waits_for_room_does_not_hold_up_a_stop(start: StartReceiving) -> None:
    node = start(in_flight_max_bytes=1000, dimse_timeout_s=3600.0, network_timeout_s=3600.0, min_bytes_per_s=0)
    node.receiver._budget.open().take(1000)  # of one that a slow disk holds up
    with RawScu(node.address, CT_CONTEXT) as waiting:
        waiting.send_command(CT, "1.2.3.4")
        waiting.socket.sendall(p_data(1, 0, bytes(900)))
        wait_until(node.parts, within_s=60)
        node.receiver.stop(0.5)
        wait_until(lambda: node.parts() == [], within_s=60)


# --- descriptors ---

_CROWD = """
import os, resource, socket, sys, time
resource.setrlimit(resource.RLIMIT_NOFILE, (32, int(sys.argv[1])))
from tests.support.bare_engines import bare_engine
from tests.support.rawscu import RawScu, Rejected
with bare_engine(sys.argv[2], max_associations=10_000) as engine:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    print("limit", soft, flush=True)
    host, port = engine.address
    print("port", port, flush=True)
    for line in sys.stdin:
        if line.startswith("starve"):
            resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) - 1, hard))
        elif line.startswith("feed"):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        elif line.startswith("cpu"):
            before = time.process_time()
            time.sleep(1.0)
            print("cpu", time.process_time() - before, flush=True)
        print("done", flush=True)
"""


def test_associations_are_capped_below_the_descriptors_and_none_is_dropped_for_want_of_one(engine: str) -> None:
    limit = descriptors.RESERVE_MIN + descriptors.PENDING_MIN + 4 * descriptors.PER_ASSOCIATION
    with subprocess.Popen(
        [sys.executable, "-c", _CROWD, str(limit), engine], cwd=ROOT, stdin=-1, stdout=-1, text=True, bufsize=1
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None

        def say(word: str) -> list[str]:
            assert process.stdin is not None
            process.stdin.write(word + "\n")
            return _until(process, "done")

        told = dict(line.split() for line in _until(process, "port") if line.count(" ") == 1)
        assert told["limit"] == str(limit)  # the soft limit was raised
        address = ("127.0.0.1", int(told["port"]))
        with ExitStack() as stack:
            open_now = [stack.enter_context(RawScu(address)) for _ in range(4)]
            with pytest.raises(Rejected) as caught:
                RawScu(address)
            assert caught.value.triple == (2, 3, 2)
            say("starve")
            for _ in range(5):
                stack.enter_context(socket.create_connection(address, timeout=20))
            (used,) = (float(line.split()[1]) for line in say("cpu") if line.startswith("cpu"))
            assert used < 0.7  # accept() fails, and nothing spins
            assert [scu.echo() for scu in open_now] == [0, 0, 0, 0]
            say("feed")
            open_now[0].release()
            wait_until(lambda: _echoes(address), within_s=60)
        process.stdin.close()
        process.wait(20)


def _echoes(address: tuple[str, int]) -> bool:
    try:
        with RawScu(address) as scu:
            return scu.echo() == 0
    except Rejected:
        return False


def _until(process: subprocess.Popen[str], word: str) -> list[str]:
    assert process.stdout is not None
    lines: list[str] = []
    for line in process.stdout:
        lines.append(line.strip())
        if line.startswith(word):
            return lines
    raise AssertionError(lines)


def test_the_limit_of_this_process_was_raised_as_well() -> None:
    with bare_engine("native"):
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert soft == hard
