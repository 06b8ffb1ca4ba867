"""12: an association cut at every class of byte offset of a C-STORE; 14: data sets cut or lying at every boundary."""

import random
import socket
import struct
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from sqlalchemy import select

from ledger.database import transaction
from ledger.ledger import Ledger
from ledger.store import Store
from ledger.tables import instances
from tests.support.encoded import CT, data_set, element, raw_header
from tests.support.rawscu import EXPLICIT_LITTLE, IMPLICIT_LITTLE, RawScu, associate_rq, command, p_data, ui, us
from tests.torture.attackers import SETTLES_WITHIN_S, Uses, require_back, reset
from tests.torture.audit import audit
from tests.torture.experiment import Arm, Context, Control, register
from tests.torture.journal import Entry, Fate, Journal
from tests.torture.plain_reader import Layout, read_plainly
from tests.torture.senders import CONTEXTS, instance, send_one

SENDERS = 4
SIZE = 6_000
STEP = 2_000
MEMORY_MORE_BYTES = 24 << 20
SENT_AGAIN = 200
ABORT = struct.pack(">BxLL", 7, 4, 0)


# --- 12 ---


@dataclass
class Cut:
    """One association that ended before its answer could be read. complete: its last byte had been sent."""

    entry: Entry
    data: bytes
    where: str
    complete: bool


def pieces(uid: str, data: bytes) -> list[tuple[str, bytes]]:
    """One association as named classes of bytes."""
    rq = {0x2: ui(CT), 0x100: us(1), 0x110: us(1), 0x700: us(0), 0x800: us(1), 0x1000: ui(uid)}
    whole = p_data(1, 3, command(rq))
    parts = [
        ("request", associate_rq(CONTEXTS)),
        ("command's PDU header", whole[:6]),
        ("command's PDV header", whole[6:12]),
        ("command set", whole[12:]),
    ]
    for start in range(0, len(data), STEP):
        last = start + STEP >= len(data)
        name = "last fragment" if last else ("first fragment" if not start else "fragment")
        fragment = p_data(1, 2 if last else 0, data[start : start + STEP])
        parts += [(f"{name}'s header", fragment[:12]), (name, fragment[12:])]
    return parts


def cut(address: tuple[str, int], rng: random.Random, journal: Journal) -> Cut:
    """Send up to a random byte of a random class, or all of it, then A-ABORT, reset or close."""
    uid, data = instance(rng, SIZE)
    entry, parts = journal.sent(uid, data), pieces(uid, data)
    at, how = rng.randrange(len(parts) + 1), rng.choice(("A-ABORT", "RST", "FIN"))
    complete = at == len(parts)
    sent = rng.randrange(len(parts[at][1])) if not complete else 0
    missing = sum(len(one) for _, one in parts[at:]) - sent
    if missing <= len(ABORT) and not complete:  # the A-ABORT would be taken for the last bytes of the data set
        how = "RST"
    where = f"{how} in {'the answer' if complete else parts[at][0]}"
    connection = socket.create_connection(address, timeout=20)
    try:
        for number, (_, one) in enumerate(parts[:at]):
            connection.sendall(one)
            if number == 0 and rng.randrange(2):
                connection.recv(4096)  # the A-ASSOCIATE-AC; otherwise it stays unread, and a close becomes a reset
        if not complete:
            connection.sendall(parts[at][1][:sent])
        if how == "A-ABORT":
            connection.sendall(ABORT)
    except OSError:
        where = "the receiver was quicker"
    if how == "RST":
        reset(connection)
    connection.close()
    return Cut(entry, data, where, complete)


def cuts(context: Context, rounds: int, faults: Sequence[str] = ()) -> Arm:
    arm, journal = Arm(), Journal()
    with context.receiver(faults=faults) as victim:
        for _ in range(20):
            send_one(victim.address, journal, *instance(context.rng, SIZE))
        uses = Uses.of(victim)
        done = _cut_all(context, victim.address, rounds, journal)
        require_back(arm, victim, uses, MEMORY_MORE_BYTES, within_s=1.0 if faults else SETTLES_WITHIN_S)
        again = [one for one in done if one.complete][:SENT_AGAIN]
        refused = sum(
            send_one(victim.address, journal, one.entry.sop_instance_uid, one.data).status != 0 for one in again
        )
        arm.require(not refused, f"{refused} of {len(again)} that are sent again are refused")
        arm.require(victim.alive(), "the receiver died")
    arm.counts.update(
        {"rounds": rounds, "classes": len({one.where for one in done}), "sent again": len(again)}
        | {"unanswered but whole": sum(one.complete for one in done)}
    )
    _nothing_partial(context, arm, [one.entry for one in done if not one.complete])
    audit(context, arm, journal)
    return arm


def _cut_all(context: Context, address: tuple[str, int], rounds: int, journal: Journal) -> list[Cut]:
    done = []
    with ThreadPoolExecutor(SENDERS) as pool:
        seeds = [context.rng.randrange(1 << 40) for _ in range(rounds)]
        for number, one in enumerate(pool.map(lambda seed: cut(address, random.Random(seed), journal), seeds)):
            done.append(one)
            if number % 100 == 0:
                context.progress(f"{number:,} of {rounds:,} cut")
    return done


def _nothing_partial(context: Context, arm: Arm, incomplete: Sequence[Entry]) -> None:
    """I4: nothing of which a byte was missing is in the ledger, whatever the other bytes were."""
    state = context.folder / "state"
    ledger = Ledger.open(f"sqlite:///{state / 'ledger.sqlite'}", Store(state / "store"))
    try:
        with transaction(ledger._engine, write=False) as connection:  # by UID: what is not whole has another hash
            uids = set(connection.execute(select(instances.c.sop_instance_uid)).scalars())
        seen = len(uids & {one.sop_instance_uid for one in incomplete})
        known = sum(ledger.counts()["instances"].values())
    finally:
        ledger.close()
    arm.figures["in the ledger"] = str(known)
    arm.require(not seen, f"{seen} instances that never came whole are in the ledger")
    arm.require(
        known <= arm.counts["unanswered but whole"] + 20, f"{known} instances in the ledger: more than came whole"
    )


# --- 14 ---

BIG_ENDIAN = "1.2.840.10008.1.2.2"
LAYOUTS = {
    EXPLICIT_LITTLE: Layout(explicit=True, big=False),
    IMPLICIT_LITTLE: Layout(explicit=False, big=False),
    BIG_ENDIAN: Layout(explicit=True, big=True),
}
REFUSALS = {0xC000, 0xA900, 0x0117}
ITEM, ITEM_END, SEQUENCE_END, UNDEFINED = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD, 0xFFFFFFFF
CODES = 0x00082218


def rich(uid: str, layout: Layout) -> bytes:
    """Nested sequences of defined and of undefined length, an empty one, a private element, pixel data."""
    how = {"explicit": layout.explicit, "big": layout.big}

    def head(tag: int, length: int) -> bytes:
        return raw_header(tag, "SQ", length, **how)

    end = head(SEQUENCE_END, 0)
    inner = element(0x00080100, "SH", "T-D3000", **how)
    open_item = head(ITEM, UNDEFINED) + inner + head(ITEM_END, 0)
    nested = head(CODES, UNDEFINED) + open_item + end
    item = head(ITEM, len(nested)) + nested
    tail = (
        head(CODES, len(item) + 8) + item + head(ITEM, 0)
        + head(0x00082228, 0)
        + element(0x00290010, "LO", "PRIVATE", **how)
        + element(0x7FE00010, "OW", bytes(64), **how)
    )  # fmt: skip
    return data_set(tail=tail, SOPInstanceUID=uid, **how)  # type: ignore[arg-type]


def damaged(data: bytes, layout: Layout) -> Iterator[tuple[str, bytes]]:
    """The data set cut at every boundary and beside it, and with every length a lie."""
    found = read_plainly(data, layout)
    assert found is not None
    for boundary in sorted({0, len(data), *found.boundaries}):
        for beside in (-1, 0, 1):
            if 0 <= boundary + beside < len(data):
                yield "cut", data[: boundary + beside]
    yield "longer", data + b"\0"
    for start, width in found.lengths:
        order = "big" if layout.big else "little"
        true = int.from_bytes(data[start : start + width], order)  # type: ignore[arg-type]
        top = (1 << 8 * width) - 1
        for lie in {true - 2, true - 1, true + 1, true + 2, 0, 2 * true + 8, top - 15, top} - {true}:
            if 0 <= lie <= top:
                yield "length", data[:start] + lie.to_bytes(width, order) + data[start + width :]  # type: ignore[arg-type]


def lies(context: Context, every: int, faults: Sequence[str] = ()) -> Arm:
    """every: one case in so many is sent, 1 for all of them."""
    arm, journal, statuses = Arm(), Journal(), Counter[str]()
    contexts = [(CT, (syntax,)) for syntax in LAYOUTS]
    number = 1_000_000
    with context.receiver(faults=faults, accept_big_endian=True) as victim, RawScu(victim.address, contexts) as scu:
        for index, layout in enumerate(LAYOUTS.values()):
            count = sum(1 for _ in damaged(rich("1.2.826.1.1000000", layout), layout))
            for case in range(context.rng.randrange(every), count, every):
                number += 1
                uid = f"1.2.826.1.{number}"
                kind, data = next(one for n, one in enumerate(damaged(rich(uid, layout), layout)) if n == case)
                entry = journal.sent(uid, data)
                response = scu.store(CT, uid, data, context_id=2 * index + 1)
                journal.answered(entry, response.status, response.comment)
                statuses[f"{kind} 0x{response.status:04X}"] += 1
                _judge(arm, entry, kind, data, layout)
        scu.release()
        arm.require(victim.alive(), "the receiver died")
        arm.require("Traceback" not in victim.log.read_text(), "the receiver's log has a traceback")
    arm.figures["statuses"] = ", ".join(f"{name} {count}" for name, count in sorted(statuses.items()))
    audit(context, arm, journal)
    return arm


def _judge(arm: Arm, entry: Entry, kind: str, data: bytes, layout: Layout) -> None:
    arm.counts["rounds"] += 1
    if entry.fate is not Fate.ACKED:
        arm.require(entry.status in REFUSALS, f"{kind}: answered 0x{entry.status:04X}")
        return
    whole = read_plainly(data, layout) is not None
    arm.counts["whole in itself"] += whole
    arm.require(whole, f"{kind}: acknowledged as good although it cannot be read to its end")


register(
    12,
    "A-ABORT, reset and close at every class of byte of a C-STORE",
    lambda context: cuts(context, context.rounds(800, 10_000)),
    part_files_are_left=Control(r"^\d+ part files are left", lambda context: cuts(context, 150, ["leave_parts"])),
    aborted_transfers_are_kept=Control(
        r"instances that never came whole are in the ledger",
        lambda context: cuts(context, 150, ["network_faults:keep_what_came"]),
    ),
)
register(
    14,
    "data sets cut or lying at every boundary and beside it",
    lambda context: lies(context, 1),
    pydicom_decides_what_is_whole=Control(
        r"acknowledged as good although it cannot be read to its end",
        lambda context: lies(context, 4, ["network_faults:believe_pydicom"]),
    ),
)
