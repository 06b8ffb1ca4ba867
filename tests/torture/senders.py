"""Modalities: threads that send over one association after another and write down what they were told."""

import itertools
import random
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any

from tests.support.encoded import CT, data_set, element
from tests.support.rawscu import EXPLICIT_LITTLE, Aborted, RawScu, Rejected
from tests.torture.journal import Entry, Journal
from tests.torture.sentinel import BIRTH_DATE, PATIENT_ID, PATIENT_NAME

CONTEXTS = [(CT, (EXPLICIT_LITTLE,))]
_numbers = itertools.count(1)


def fresh_uid() -> str:
    """A SOP Instance UID that no other call of this run gives."""
    return f"1.2.826.4711.{next(_numbers)}"


def instance(rng: random.Random, size: int, uid: str | None = None, **changes: str | None) -> tuple[str, bytes]:
    """(SOP Instance UID, data set) of the sentinel patient, `size` random bytes of pixels."""
    uid = uid or fresh_uid()
    identity = {"PatientName": PATIENT_NAME, "PatientID": PATIENT_ID, "PatientBirthDate": BIRTH_DATE}
    pixels = element(0x7FE00010, "OW", rng.randbytes(size - size % 2))
    values: dict[str, Any] = {"SOPInstanceUID": uid} | identity | changes
    return uid, data_set(**values, tail=pixels)


def send(scu: RawScu, journal: Journal, uid: str, data: bytes) -> Entry:
    """One C-STORE, written down before and after. Raises what the socket raises."""
    entry = journal.sent(uid, data)
    response = scu.store(CT, uid, data)
    journal.answered(entry, response.status, response.comment)
    return entry


def send_one(
    address: tuple[str, int],
    journal: Journal,
    uid: str,
    data: bytes,
    calling: str = "TESTSCU",
    timeout_s: float = 20.0,
) -> Entry:
    """One C-STORE on an association of its own; an entry with no fate when there was no answer."""
    entry = journal.sent(uid, data)
    with suppress(OSError, Aborted, Rejected), RawScu(address, CONTEXTS, calling=calling, timeout_s=timeout_s) as scu:
        response = scu.store(CT, uid, data)
        journal.answered(entry, response.status, response.comment)
        scu.release()
    return entry


class Senders:
    """`count` threads that send until told to stop, or until each has sent `each`. A context manager starts them.

    resend: the share of instances sent again, byte for byte, after they were answered or not.
    """

    def __init__(
        self,
        address: Callable[[], tuple[str, int]],
        journal: Journal,
        seed: int,
        count: int = 8,
        sizes: Sequence[int] = (2_000, 20_000),
        each: int = 1_000_000,
        resend: float = 0.05,
        per_association: int = 50,
    ) -> None:
        self._address, self._journal, self._sizes = address, journal, sizes
        self._each, self._resend, self._per_association = each, resend, per_association
        self.stop = threading.Event()
        self.threads = [
            threading.Thread(target=self._run, args=(random.Random(seed * 1_000 + n),), daemon=True)
            for n in range(count)
        ]

    def __enter__(self) -> "Senders":
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop.set()
        self.join(30)

    def join(self, within_s: float) -> bool:
        """Whether all ended by themselves."""
        for thread in self.threads:
            thread.join(within_s)
        return not any(thread.is_alive() for thread in self.threads)

    def _run(self, rng: random.Random) -> None:
        left = self._each
        last: tuple[str, bytes] | None = None
        while left > 0 and not self.stop.is_set():
            try:
                with RawScu(self._address(), CONTEXTS) as scu:
                    for _ in range(min(left, self._per_association)):
                        if self.stop.is_set():
                            return
                        again = last is not None and rng.random() < self._resend
                        last = last if again and last else instance(rng, rng.choice(self._sizes))
                        left -= 1
                        send(scu, self._journal, *last)
                    scu.release()
            except (OSError, Aborted, Rejected, AssertionError):
                self.stop.wait(0.01 + rng.random() * 0.02)


class Line:
    """One sender who keeps one association and makes a new one when it is lost. A context manager closes it."""

    def __init__(self, address: tuple[str, int], journal: Journal) -> None:
        self.address, self._journal = address, journal
        self._scu: RawScu | None = None

    def __enter__(self) -> "Line":
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self.hang_up()

    def hang_up(self) -> None:
        if self._scu is not None:
            self._scu.socket.close()
        self._scu = None

    def send(self, uid: str, data: bytes) -> Entry:
        """One C-STORE; an entry without an answer when the association was refused or lost."""
        entry = self._journal.sent(uid, data)
        try:
            if self._scu is None:
                self._scu = RawScu(self.address, CONTEXTS)
            response = self._scu.store(CT, uid, data)
            self._journal.answered(entry, response.status, response.comment)
        except (OSError, Aborted, Rejected):
            self.hang_up()
        return entry
