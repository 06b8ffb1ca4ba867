"""6: slow-loris; 7: TLS handshakes that stall; 10: lengths and messages without end; 11: a sender that never waits."""

import select
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path

from tests.support.certificates import Authority
from tests.support.encoded import CT
from tests.support.rawscu import Aborted, RawScu, Rejected, associate_rq, command, item, p_data, ui, us
from tests.torture.attackers import (
    Bear,
    Healthy,
    Stock,
    Uses,
    ended,
    many_files,
    percentile,
    require_back,
    reset,
    unmoved,
)
from tests.torture.experiment import Arm, Context, Control, register
from tests.torture.nursery_client import Victim
from tests.torture.senders import CONTEXTS, instance

DEADLINE_S = 1.5
BASELINE_S = 1.0
FIRST_S = 2.0  # behind five hundred that came at once
P99_BOUND_S = 0.25  # generous: two cores are shared with the attackers
MEMORY_MORE_BYTES = 24 << 20  # of a receiver that has just started
PER_ASSOCIATION_BYTES = 2 << 20
GONE_WITHIN_S = 10 * DEADLINE_S  # all of the attackers, on a machine that does much else
CONTROL_WAITS_S = 3 * DEADLINE_S  # for what never ends
NEVER_S = 1e6
HALF = associate_rq(CONTEXTS)[:16]


# --- 6 ---


def slow_loris(context: Context, bear: Bear, half: int, drips: int, gone_within_s: float = CONTROL_WAITS_S) -> Arm:
    """Half PDUs and one byte a second, half of them before an association and half of them inside one."""
    arm = Arm()
    many_files()
    with bear(context) as victim, _left_alone(context) as other, ExitStack() as stack:
        before = Healthy(victim.address, context.rng).send_for(BASELINE_S)
        uses = Uses.of(victim)
        silent = [_half_pdu(victim, stack, inside=n % 2 == 0) for n in range(half)]
        dripping = [_half_pdu(victim, stack, inside=n % 2 == 0) for n in range(drips)]
        attackers = [one for one in silent + dripping if one is not None]
        stop = threading.Event()
        drip = threading.Thread(target=_drip, args=([one for one in dripping if one], stop), daemon=True)
        drip.start()
        during, beside = Healthy(victim.address, context.rng), Healthy(other.address, context.rng)
        with during.meanwhile(), beside.meanwhile():
            dropped = ended(attackers, gone_within_s)
        stop.set()
        drip.join(10)
        unmoved(arm, before, during, beside, P99_BOUND_S)
        arm.counts.update({"attackers": half + drips, "dropped": dropped + half + drips - len(attackers)})
        left = len(attackers) - dropped
        arm.require(not left, f"{left} of {half + drips} are still connected after {gone_within_s:g} s")
        for one in attackers:
            one.close()
        require_back(arm, victim, uses, MEMORY_MORE_BYTES)
    return arm


def _left_alone(context: Context, **receive: object) -> Victim:
    """A receiver like the one that is attacked, beside it: what a healthy sender waits for here, the machine is to
    blame for."""
    return context.receiver(context.scratch() / "state", **receive)


def _half_pdu(victim: Victim, stack: ExitStack, inside: bool) -> socket.socket | None:
    """A connection that stops in the middle of a PDU; None where it was not even let in."""
    try:
        if not inside:
            connection = socket.create_connection(victim.address, timeout=3)
            stack.callback(connection.close)
            connection.sendall(HALF)
            return connection
        scu = RawScu(victim.address, CONTEXTS, calling="LORIS", timeout_s=3)
        stack.callback(scu.socket.close)
        scu.socket.sendall(struct.pack(">BxL", 4, 1000) + bytes(10))
    except (OSError, Aborted, Rejected):
        return None
    return scu.socket


def _drip(connections: list[socket.socket], stop: threading.Event) -> None:
    while not stop.wait(1.0):
        for connection in connections:
            with suppress(OSError):
                connection.send(b"\0")


def _impatient(context: Context, seconds: float = DEADLINE_S, rate: int = 8192) -> Victim:
    return context.receiver(
        max_associations=2000, acse_timeout_s=seconds, dimse_timeout_s=seconds, min_bytes_per_s=rate
    )  # fmt: skip


# --- 7 ---


def tls_stall(context: Context, count: int, shipped: bool = False) -> Arm:
    """Connections that never finish their handshake; half say nothing, half say the beginning of a ClientHello."""
    arm = Arm()
    many_files()
    authority = Authority(context.folder / "pki")
    pair = authority.issue("node")
    client = ssl.create_default_context(cafile=authority.certificate)
    client.check_hostname = False
    client.load_cert_chain(pair.certificate, pair.key)
    tls = {
        "enabled": True, "certificate_file": str(pair.certificate), "key_file": str(pair.key),
        "ca_file": str(authority.certificate), "handshake_timeout_s": DEADLINE_S,
    }  # fmt: skip
    make = (
        partial(Stock, context, "--tls", str(pair.certificate), str(pair.key))
        if shipped
        else partial(_tls, context, tls)
    )
    gone_within_s = CONTROL_WAITS_S if shipped else GONE_WITHIN_S
    with make() as victim, _left_alone(context, tls=tls) as other, ExitStack() as stack:
        before = Healthy(victim.address, context.rng, tls=client).send_for(BASELINE_S)
        uses = Uses.of(victim)
        attackers = [stack.enter_context(socket.create_connection(victim.address, timeout=5)) for _ in range(count)]
        for attacker in attackers[::2]:
            with suppress(OSError):
                attacker.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
        during = Healthy(victim.address, context.rng, tls=client, timeout_s=3 if shipped else 20)
        beside = Healthy(other.address, context.rng, tls=client)
        with during.meanwhile(), beside.meanwhile():
            dropped = ended(attackers, gone_within_s)
        queue_s = count * percentile(before.associations_s, 0.5)  # as if each before it took as long as a healthy one
        unmoved(arm, before, during, beside, P99_BOUND_S, max(FIRST_S, queue_s))
        arm.counts.update({"attackers": count, "dropped": dropped})
        arm.require(dropped == count, f"{count - dropped} of {count} still shake hands after {gone_within_s:g} s")
        for attacker in attackers:
            attacker.close()
        require_back(arm, victim, uses, MEMORY_MORE_BYTES)
    return arm


def _tls(context: Context, tls: dict[str, object]) -> Victim:
    return context.receiver(max_associations=2000, tls=tls)


# --- 10 ---

CAP_BYTES = 2 << 20
FLOOD_BYTES = 12 << 20  # at least this much is offered where the receiver does not end it first
AT_ONCE = 4
Bomb = Callable[[socket.socket], tuple[bytes, bytes]]  # what is sent first, and then again and again


def bombs(context: Context, bear: Bear, names: tuple[str, ...] = (), ends_within_s: float = 2.0) -> Arm:
    """Each kind on several associations at once: ended within a PDU of the limit, and memory does not follow.

    ends_within_s: after the last byte, all of which the buffers of two sockets may have taken in.
    """
    arm = Arm()
    with bear(context) as victim:
        Healthy(victim.address, context.rng).send_for(0.5)
        uses = Uses.of(victim)
        for name, bomb in BOMBS.items():
            if names and name not in names:
                continue
            context.progress(name)
            base = victim.resident_bytes()
            sent = _at_once(victim, bomb, ends_within_s)
            grown = (victim.resident_bytes() - base) / AT_ONCE
            arm.counts["rounds"] += AT_ONCE
            arm.counts["ended"] += sum(one >= 0 for one in sent)
            ended_after = f"ended after {max(sent) >> 10} KB" if min(sent) >= 0 else "not ended"
            arm.figures[name] = f"{ended_after}, {grown / 2**20:+.1f} MB each"
            arm.require(min(sent) >= 0, f"{name}: not ended after {FLOOD_BYTES >> 20} MB")
            arm.require(grown < PER_ASSOCIATION_BYTES, f"{name}: {grown / 2**20:.1f} MB of memory an association")
        require_back(arm, victim, uses, MEMORY_MORE_BYTES)
        during = Healthy(victim.address, context.rng).send_for(0.2)
        arm.counts["acked"] += len(during.images_s)
        arm.require(not during.failed, "a healthy sender fails afterwards")
    return arm


def _at_once(victim: Victim, bomb: Bomb, ends_within_s: float) -> list[int]:
    results: list[int] = []
    threads = [
        threading.Thread(target=lambda: results.append(_explode(victim, bomb, ends_within_s)), daemon=True)
        for _ in range(AT_ONCE)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return results or [-1]


def _explode(victim: Victim, bomb: Bomb, ends_within_s: float) -> int:
    """Bytes sent until the receiver said A-ABORT or closed; -1 when it never did."""
    sent = 0
    try:
        with RawScu(victim.address, CONTEXTS, timeout_s=10) as scu:
            first, more = bomb(scu.socket)
            scu.socket.sendall(first)
            sent = len(first)
            while sent < FLOOD_BYTES:
                if select.select([scu.socket], [], [], 0.01)[0] and _is_end(scu.socket.recv(64)):
                    return sent
                scu.socket.sendall(more)
                sent += len(more)
            scu.socket.settimeout(ends_within_s)
            return sent if _is_end(scu.socket.recv(64)) else -1
    except TimeoutError:
        return -1
    except (OSError, Aborted):
        return sent


def _is_end(heard: bytes) -> bool:
    return not heard or heard[0] == 7


def _length_bomb(connection: socket.socket) -> tuple[bytes, bytes]:
    return struct.pack(">BxL", 4, 0xFFFFFFFF), bytes(65_536)


def _request_bomb(connection: socket.socket) -> tuple[bytes, bytes]:
    return struct.pack(">BxL", 1, 0xFFFFFFFF), bytes(65_536)


def _oversize(connection: socket.socket) -> tuple[bytes, bytes]:
    return struct.pack(">BxL", 4, 64 << 20) + struct.pack(">LBB", (64 << 20) - 4, 1, 0), bytes(65_536)


def _endless_command(connection: socket.socket) -> tuple[bytes, bytes]:
    return b"", p_data(1, 1, bytes(16_000))


def _endless_data(connection: socket.socket) -> tuple[bytes, bytes]:
    rq = {0x2: ui(CT), 0x100: us(1), 0x110: us(1), 0x700: us(0), 0x800: us(1), 0x1000: ui("1.2.3")}
    return p_data(1, 3, command(rq)), p_data(1, 0, bytes(100_000))


BOMBS: dict[str, Bomb] = {
    "P-DATA of 4 GB": _length_bomb,
    "A-ASSOCIATE-RQ of 4 GB": _request_bomb,
    "P-DATA of 64 MB": _oversize,
    "endless command set": _endless_command,
    "endless data set": _endless_data,
}


def _capped(context: Context, *faults: str) -> Victim:
    return context.receiver(faults=faults, max_instance_bytes=CAP_BYTES)


# --- 11 ---

IMAGE_BYTES = 40_000
AHEAD_MAX_BYTES = 12 << 20  # beyond what stands unread in the two sockets, where they hold more than this


def _in_sockets(one_end: socket.socket) -> int:
    """Bytes of this connection that the kernel holds: sent and not acknowledged, or received and not read."""
    ends = {one_end.getsockname()[1], one_end.getpeername()[1]}
    queued = 0
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        local, remote, _, queues = line.split()[1:5]
        if {int(end.rpartition(":")[2], 16) for end in (local, remote)} == ends:
            queued += sum(int(queue, 16) for queue in queues.split(":"))
    return queued


def never_waits(context: Context, bear: Bear, count: int) -> Arm:
    """A sender that asked for unlimited operations and does not read an answer until it has sent everything."""
    arm = Arm()
    asked = item(0x53, struct.pack(">HH", 0, 0))
    with bear(context) as victim, RawScu(victim.address, CONTEXTS, extra_user_items=asked, timeout_s=120) as scu:
        first = instance(context.rng, IMAGE_BYTES)
        scu.store(CT, *first)
        uses = Uses.of(victim)
        images = [instance(context.rng, IMAGE_BYTES) for _ in range(count)]
        peak, answered, wrong, sent = 0, 0, 0, 0
        done = threading.Event()

        def send() -> None:
            nonlocal sent
            with suppress(OSError):
                for uid, data in images:
                    scu.send_command(CT, uid)
                    for start in range(0, len(data), 16_000):
                        last = 2 if start + 16_000 >= len(data) else 0
                        scu.socket.sendall(p_data(1, last, data[start : start + 16_000]))
                    sent += 1
            done.set()

        sender = threading.Thread(target=send, daemon=True)
        sender.start()
        began = time.monotonic()
        ahead = 0
        while answered < count and time.monotonic() - began < 300:
            response = scu.read_response()
            wrong += response.status != 0 or response.elements[0x120] != us(answered + 2)
            answered += 1
            now = sent - answered
            if now * IMAGE_BYTES >= AHEAD_MAX_BYTES:
                now -= _in_sockets(scu.socket) // IMAGE_BYTES
            ahead = max(ahead, now)
            peak = max(peak, victim.resident_bytes())
        sender.join(10)
        grown = peak - uses.resident_bytes
        arm.counts.update(sent=count, acked=answered - wrong)
        arm.figures["most unanswered"] = f"{ahead} images, {ahead * IMAGE_BYTES / 2**20:.1f} MB"
        arm.figures["peak memory"] = f"{grown / 2**20:+.1f} MB"
        arm.require(
            answered == count and not wrong, f"{answered} of {count} answered, {wrong} of them wrong or out of turn"
        )
        arm.require(ahead * IMAGE_BYTES < AHEAD_MAX_BYTES, f"{ahead} images were taken in before they were stored")
        arm.require(grown < PER_ASSOCIATION_BYTES + (6 << 20), f"{grown >> 20} MB of memory more")
        reset(scu.socket)
    return arm


def _slow(context: Context) -> Victim:
    return context.receiver(faults=["network_faults:slow_store"])


register(
    6,
    "slow-loris: half PDUs and one byte a second",
    lambda context: slow_loris(context, _impatient, *((500, 500) if context.long else (100, 100)), GONE_WITHIN_S),
    the_deadlines_are_ignored=Control(
        r"are still connected after",
        lambda context: slow_loris(context, partial(_impatient, seconds=NEVER_S, rate=0), 12, 12),
    ),
    pynetdicom_as_shipped=Control(r"are still connected after", lambda context: slow_loris(context, Stock, 24, 0)),
)
register(
    7,
    "TLS handshakes that never end",
    lambda context: tls_stall(context, 500 if context.long else 100),
    pynetdicom_as_shipped=Control(r"still shake hands after", lambda context: tls_stall(context, 2, shipped=True)),
)
register(
    10,
    "lengths and messages without end",
    lambda context: bombs(context, _capped, ends_within_s=20.0),
    lengths_are_believed=Control(
        r"^A-ASSOCIATE-RQ of 4 GB: (not ended|.* of memory an association)",
        lambda context: bombs(
            context, lambda one: _capped(one, "network_faults:trust_lengths"), ("A-ASSOCIATE-RQ of 4 GB",)
        ),
    ),
    pynetdicom_as_shipped=Control(
        r"^P-DATA of 4 GB: (not ended|.* of memory an association)",
        lambda context: bombs(context, Stock, ("P-DATA of 4 GB",)),
    ),
)
register(
    11,
    "a sender that never waits, a store that is slow",
    lambda context: never_waits(context, _slow, 10_000 if context.long else 500),
    pynetdicom_as_shipped=Control(
        r"images were taken in before they were stored",
        lambda context: never_waits(context, lambda one: Stock(one, "--slow", "0.01"), 500),
    ),
)
