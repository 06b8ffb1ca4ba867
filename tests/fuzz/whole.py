"""Whole associations, damaged, into a live receiver on a socket. Whatever is sent, each ends in answers, an A-ABORT or
a close; nothing is acknowledged that the store does not hold; and afterwards the receiver is what it was before."""

import random
import re
import select
import shutil
import socket
import struct
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from ledger.ledger import Ledger
from ledger.store import Store
from scp.network import command_set
from tests.fuzz.data_sets import EXPLICIT_LITTLE, IMPLICIT_LITTLE, make
from tests.fuzz.mutate import mutated, pick
from tests.fuzz.pdus import PDU_WORDS, echo, store, together
from tests.support.encoded import CT
from tests.support.rawscu import VERIFICATION, Aborted, RawScu, Rejected, associate_rq
from tests.support.waiting import wait_until
from tests.torture.nursery_client import Nursery, Victim

SENDERS: Final = 4
HANGS_AFTER_S: Final = 15.0
DEADLINE_S: Final = 0.5  # of the receiver, for everything, so that streams that stop half-way end soon
GROWTH_MAX_BYTES: Final = 24 << 20  # of a process that has just started; flat after that
FEW_THREADS: Final = 6  # of a receiver without associations
DESCRIPTORS_MORE: Final = 2
WARM: Final = 60  # associations before memory is measured
CONTEXTS: Final = [(CT, (EXPLICIT_LITTLE,)), (VERIFICATION, (IMPLICIT_LITTLE,))]
INTERNAL: Final = {  # pynetdicom's own state machine dies of some events, its association with it and nothing else
    "native": re.compile("association_failed|connection_failed|unhandled_error|Traceback"),
    "pynetdicom": re.compile("association_failed|connection_failed|Traceback"),
}


@dataclass
class Tally:
    """outcomes: what became of each association. acked: SOP Instance UIDs answered with success."""

    outcomes: Counter[str] = field(default_factory=Counter)
    statuses: Counter[str] = field(default_factory=Counter)
    acked: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    growth_bytes: int = 0


def stream(rng: random.Random, number: int) -> list[bytes]:
    """The PDUs of one association, damaged: single bytes, lengths, the PDUs' order, or nothing at all."""
    pdus = [associate_rq(CONTEXTS)]
    for n in range(rng.randint(0, 4)):
        uid = f"1.2.826.{number}.{n}"
        kind = rng.randrange(4)
        if kind == 0:
            pdus.append(echo(rng))
        elif kind == 1:
            pdus.append(together(echo(rng), store(rng, uid)) if rng.randint(0, 1) else store(rng, uid))
        else:
            data = make(rng, EXPLICIT_LITTLE).data.replace(b"1.2.3.4\0", uid.encode().ljust(8, b"\0"), 1)
            pdus.append(store(rng, uid, mutated(rng, data) if rng.randint(0, 1) else data))
    pdus.append(pick(rng, (b"", struct.pack(">BxLL", 5, 4, 0), struct.pack(">BxLL", 7, 4, 0))))
    damage = rng.randrange(6)
    if damage == 0:
        rng.shuffle(pdus)
    elif damage == 1:
        del pdus[rng.randrange(len(pdus))]
    elif damage in (2, 3):
        at = rng.randrange(len(pdus))
        pdus[at] = mutated(rng, pdus[at], PDU_WORDS)
    elif damage == 4:
        pdus[-1:] = [rng.randbytes(rng.randrange(200))]
    return pdus


def converse(address: tuple[str, int], rng: random.Random, number: int) -> tuple[str, bytes]:
    """Send one damaged association; (how it ended, all that came back)."""
    heard = b""
    with socket.create_connection(address, timeout=HANGS_AFTER_S) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        awaits_an_answer = rng.randrange(4)
        last_word = rng.randrange(8)  # 0: reset, 1: say nothing more and wait, else: half-close
        try:
            for one in stream(rng, number):
                step = rng.choice((1 << 20, 1 << 20, 700, 50))
                for start in range(0, len(one), step):
                    connection.sendall(one[start : start + step])
                if awaits_an_answer:  # to what the first PDU was, which asks for one most often
                    select.select([connection], [], [], 2 * DEADLINE_S)
                    awaits_an_answer = 0
            if last_word == 0:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                return "reset by us", heard
            if last_word > 1:
                connection.shutdown(socket.SHUT_WR)
            while piece := connection.recv(65_536):
                heard += piece
        except TimeoutError:
            return "HUNG", heard
        except OSError:
            return "reset by the receiver", heard
    return "closed", heard


def read_answers(heard: bytes) -> tuple[list[int], list[dict[int, bytes]]]:
    """The PDU types and the command sets that came back. Raises ValueError for what is no PDU, or half of one."""
    kinds, commands, encoded = list[int](), list[dict[int, bytes]](), b""
    while heard:
        if len(heard) < 6:
            raise ValueError("half a PDU came back")
        kind, length = struct.unpack_from(">BxL", heard)
        body, heard = heard[6 : 6 + length], heard[6 + length :]
        if len(body) < length or kind not in (2, 3, 4, 6, 7):
            raise ValueError(f"a PDU of type {kind} and {length} bytes came back, of which {len(body)} are there")
        kinds.append(kind)
        while kind == 4 and body:
            size, _, control = struct.unpack_from(">LBB", body)
            encoded += body[6 : 4 + size]
            body = body[4 + size :]
            if control == 3:
                commands.append(command_set.decode(encoded))
                encoded = b""
    return kinds, commands


def one(address: tuple[str, int], seed: str, number: int, tally: Tally) -> None:
    outcome, heard = converse(address, random.Random(f"{seed} {number}"), number)
    try:
        kinds, commands = read_answers(heard)
    except ValueError as error:
        kinds, commands = [], []
        if "reset" not in outcome:
            tally.broken.append(f"association {number}: {error}")
    if outcome == "HUNG":
        tally.broken.append(f"association {number} was neither answered nor ended in {HANGS_AFTER_S:g} s")
    ended = {7: "A-ABORT", 3: "A-ASSOCIATE-RJ", 6: "A-RELEASE-RP"}.get(kinds[-1] if kinds else 0, outcome)
    tally.outcomes[ended] += 1
    for answer in commands:
        status = command_set.number(answer, command_set.STATUS)
        tally.statuses[f"{command_set.number(answer, command_set.COMMAND_FIELD):04X}/{status:04X}"] += 1
        if status == 0 and command_set.number(answer, command_set.COMMAND_FIELD) == command_set.C_STORE_RSP:
            tally.acked.append(command_set.uid(answer, command_set.AFFECTED_SOP_INSTANCE_UID))


class Fuzzed:
    """A receiver in a process of its own, and what it was like before."""

    def __init__(self, nursery: Nursery, state: Path, engine: str, seed: str) -> None:
        self.state, self.engine, self.seed, self.tally, self.number = state, engine, seed, Tally(), 0
        self.victim: Victim = nursery.bear(
            state, engine, acse_timeout_s=DEADLINE_S, dimse_timeout_s=DEADLINE_S, network_timeout_s=DEADLINE_S
        )
        self.baseline: tuple[int, int, int] | None = None  # threads, descriptors, bytes
        self.some(WARM)
        self.settle()
        self.baseline = self.victim.threads(), self.victim.descriptors(), self.victim.resident_bytes()

    def some(self, count: int) -> None:
        numbers = range(self.number, self.number + count)
        self.number += count
        with ThreadPoolExecutor(SENDERS) as pool:
            list(pool.map(lambda number: one(self.victim.address, self.seed, number, self.tally), numbers))

    def settle(self) -> None:
        """The receiver still answers, and keeps nothing half-done."""
        try:
            wait_until(self._echoes, within_s=30)
        except TimeoutError:
            self.tally.broken.append("no C-ECHO was answered in 30 s")
        with suppress(TimeoutError):
            wait_until(self._is_quiet, within_s=20)

    def _echoes(self) -> bool:
        """Once it is heard: a sender that a busy machine keeps from speaking for half a second is cut off."""
        try:
            with RawScu(self.victim.address) as scu:
                status = scu.echo()
                scu.release()
        except (Aborted, Rejected, OSError):
            return False
        if status != 0:
            self.tally.broken.append("a C-ECHO was refused")
        return True

    def _is_quiet(self) -> bool:
        most = self.baseline[1] + DESCRIPTORS_MORE if self.baseline else None
        if self._parts() or self.victim.threads() > FEW_THREADS:
            return False
        return most is None or self.victim.descriptors() <= most

    def _parts(self) -> list[Path]:
        return list((self.state / "store" / "parts").iterdir())

    def judge(self) -> Tally:
        """After the last association: I1, I4, I6, and no fault of our own in the log."""
        tally, victim = self.tally, self.victim
        self.settle()
        assert self.baseline is not None
        threads, descriptors, resident = self.baseline
        tally.growth_bytes = victim.resident_bytes() - resident
        for holds, sentence in (
            (victim.alive(), "the receiver died"),
            (not self._parts(), f"{len(self._parts())} part files are left"),
            (victim.threads() <= max(threads, FEW_THREADS), f"{victim.threads()} threads, {threads} before"),
            (
                victim.descriptors() <= descriptors + DESCRIPTORS_MORE,
                f"{victim.descriptors()} descriptors, {descriptors} before",
            ),
            (tally.growth_bytes < GROWTH_MAX_BYTES, f"{tally.growth_bytes >> 20} MB of memory more"),
            (not INTERNAL[self.engine].search(victim.log.read_text()), f"a fault of ours: see {victim.log}"),
        ):
            if not holds:
                tally.broken.append(sentence)
        victim.kill()
        self._hold_acknowledged()
        return tally

    def _hold_acknowledged(self) -> None:
        ledger = Ledger.open(f"sqlite:///{self.state / 'ledger.sqlite'}", Store(self.state / "store"))
        try:
            found = ledger.reconcile()
            rows = ledger.counts()["instances"]
        finally:
            ledger.close()
        if found.lost:
            self.tally.broken.append(f"{len(found.lost)} acknowledged instances are lost")
        if sum(rows.values()) < len(set(self.tally.acked)):
            self.tally.broken.append(f"{len(set(self.tally.acked))} instances acknowledged, {rows} in the ledger")


def long_form(seed: int, seconds: float, engine: str) -> int:
    """As many associations as `seconds` allow; the number of broken promises, each printed."""
    folder = Path(tempfile.mkdtemp(prefix="opentriage-fuzz-"))
    with Nursery(folder / "nursery") as nursery:
        fuzzed = Fuzzed(nursery, folder / "state", engine, str(seed))
        began = time.monotonic()
        while time.monotonic() - began < seconds and not fuzzed.tally.broken:
            fuzzed.some(200)
        rate = (fuzzed.number - WARM) / (time.monotonic() - began)
        tally = fuzzed.judge()
    print(
        f"whole: {fuzzed.number:,} associations, {rate:,.0f}/s, {dict(tally.outcomes)}, "
        f"answers {dict(tally.statuses)}, "
        f"{len(tally.broken)} faults, memory {tally.growth_bytes / 2**20:+.1f} MB",
        flush=True,
    )
    for sentence in tally.broken[:20]:
        print(f"whole: {sentence} (kept: {folder})")
    if not tally.broken:
        shutil.rmtree(folder)
    return len(tally.broken)
