"""The half of the ledger that answers senders who ask us for storage commitment. Each method is one transaction."""

import math
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, select

from ledger import assembly, damage
from ledger import commitment_requests as requests
from ledger.commitment_requests import HeldRequest, RequestState
from ledger.commitment_results import (
    DUPLICATE_TRANSACTION,
    PROCESSING_FAILURE,
    CommitmentRequest,
    CommitmentResult,
    Holding,
    verdict,
)
from ledger.commitments import COMMITTED
from ledger.completion import LIMIT_S
from ledger.damage import Damaged
from ledger.database import transaction
from ledger.questions import Questions
from ledger.records import Stage
from ledger.store import Store
from ledger.tables import instances
from ledger.wake import Wake

TOPIC: Final = "commit"  # wakes whoever tells senders
NAMED_AT_MOST: Final = 20  # damaged instances in one line; explain names all of a study
FRESH_S: Final = 3600.0  # a verdict older than this is not told: the file is read again


@dataclass(frozen=True)
class Judgement:
    """What the sender is told; damaged: listed instances whose stored file is not what was received."""

    result: CommitmentResult
    damaged: tuple[Damaged, ...] = ()

    def alarm(self) -> dict[str, Any]:
        """For the log: which are damaged, some by name, and what to do."""
        named = [
            {"sop_instance_uid": one.sop_instance_uid, "study_instance_uid": one.study_instance_uid}
            for one in self.damaged[:NAMED_AT_MOST]
        ]
        return {"damaged": len(self.damaged), "instances": named, "cure": damage.CURE}


class Promises(Questions):
    """Of `ledger.ledger.Ledger`."""

    store: Store
    _wake: Wake

    def commitment_requested(self, request: CommitmentRequest, patience_s: float, limit_s: float = LIMIT_S) -> int:
        """Keep a request; its key. Only after this returns may the sender be answered 0x0000.

        patience_s: how long what is listed and not here may take to come before the answer says that it is missing.
        limit_s: how long, from its first image, a study waits for what is listed of it (ledger.assembly).
        """
        with self._change() as connection:
            request_id = requests.keep(connection, request, patience_s, limit_s)
        self._wake.call(TOPIC)
        self._wake.call(Stage.REPORT)
        return request_id

    def contents_stated(
        self, calling_ae_title: str, sop_instance_uids: Sequence[str], limit_s: float = LIMIT_S
    ) -> None:
        """Keep what a sender says that it sent, and promise nothing."""
        with self._change() as connection:
            assembly.stated(connection, calling_ae_title, sop_instance_uids, limit_s)
        self._wake.call(Stage.REPORT)

    def claim_commitment(self, calling_ae_title: str, owner: str, lease_s: float) -> HeldRequest | None:
        """The request of a sender that is due first, under a lease."""
        with self._change() as connection:
            return requests.claim(connection, calling_ae_title, owner, lease_s)

    def claim_this_commitment(self, request_id: int, owner: str, lease_s: float) -> HeldRequest | None:
        """One request, at once, when all that it lists is here."""
        with self._change() as connection:
            return requests.claim_this(connection, request_id, owner, lease_s)

    def judge_commitment(self, held: HeldRequest, retention_s: float, within_s: float = math.inf) -> Judgement | None:
        """Read every listed file again, and keep what was found; None when that takes longer than `within_s`.

        A verdict that is younger than an hour is not made again. Raises LeaseLost.
        """
        if held.judged_s is not None and held.judged_s < FRESH_S:
            with self._read() as connection:
                return Judgement(requests.result(connection, held))
        with self._read() as connection:
            holdings = requests.holdings(connection, held)
        until, reasons = time.monotonic() + within_s, {}
        for holding in holdings:
            if time.monotonic() > until:
                return None
            reasons[holding.position] = self._verdict(held, holding, retention_s)
        with self._change() as connection:
            requests.judged(connection, held, reasons)
            found = requests.result(connection, held)
            damaged = _damaged(holdings, reasons)
            damage.found(connection, damaged)
            damage.whole(connection, _kept(holdings, reasons))
        return Judgement(found, damaged)

    def keeps(self, instance_id: int, path: str) -> bool:
        """Whether a file is to lie there for this instance: neither time nor a person has taken it."""
        here = instances.c.id == instance_id, instances.c.path == path, instances.c.removed_at.is_(None)
        with self._read() as connection:
            return connection.execute(select(instances.c.id).where(*here)).first() is not None

    def file_is_whole(self, instance_id: int, size_bytes: int | None = None) -> None:
        """The same bytes came again: the stored file is whole; size_bytes: of the one that took the other's place."""
        if size_bytes is None:
            with self._read() as connection:
                if not damage.is_known(connection, instance_id):
                    return
        with self._change() as connection:
            damage.restored(connection, instance_id, size_bytes)

    def _verdict(self, held: HeldRequest, holding: Holding, retention_s: float) -> int:
        return DUPLICATE_TRANSACTION if held.is_duplicate else verdict(holding, self.store, retention_s)

    def commitment_told(self, held: HeldRequest, status: int = 0) -> None:
        """The sender confirmed what it was told. Raises LeaseLost."""
        with self._change() as connection:
            requests.told(connection, held, status)

    def put_off_commitment(
        self, held: HeldRequest, reason: str, delay_s: float = 0.0, status: int | None = None
    ) -> bool:
        """The sender could not be told, or did not confirm (status). Whether it was given up. Raises LeaseLost."""
        with self._change() as connection:
            given_up = requests.put_off(connection, held, reason, delay_s, status)
        if not given_up and not delay_s:
            self._wake.call(TOPIC)
        return given_up

    def free_commitments(self, owner_prefix: str) -> None:
        """Take back the requests of an owner that is known to be dead."""
        with self._change() as connection:
            requests.free(connection, owner_prefix)
        self._wake.call(TOPIC)

    def park_unknown_commitments(self, known: Sequence[str], reason: str) -> int:
        """Give up what waits for AE titles other than these; how many requests."""
        with self._change() as connection:
            return requests.park_unknown(connection, known, reason)

    def commitments_so_far(self) -> dict[str, dict[RequestState, int]]:
        """By AE title: requests that wait, that were confirmed, and that were given up in the last seven days."""
        with self._read() as connection:
            return requests.so_far(connection)

    def wait_for_commitments(self, timeout_s: float) -> None:
        """Return when a request came or was put off, or after `timeout_s`."""
        self._wake.wait(TOPIC, timeout_s)

    def _change(self) -> AbstractContextManager[Connection]:
        return transaction(self._engine, write=True)


def _kept(holdings: Sequence[Holding], reasons: dict[int, int]) -> list[int]:
    return [one.instance_id for one in holdings if one.instance_id is not None and reasons[one.position] == COMMITTED]


def _damaged(holdings: Sequence[Holding], reasons: dict[int, int]) -> tuple[Damaged, ...]:
    return tuple(
        Damaged(one.instance_id, one.listed.sop_instance_uid, one.study_uid)
        for one in holdings
        if one.instance_id is not None and reasons[one.position] == PROCESSING_FAILURE
    )
