"""Ways to make a receiver vulnerable, for the control arms of the network experiments; see tests/torture/faults.py."""

import time
from collections.abc import Mapping
from typing import Any

from pydicom import dcmread

from ledger.store import PartFile
from scp.admission import admitter as admission
from scp.admission.admitter import AdmissionSink
from scp.errors import StructureError
from scp.network import pdu
from scp.network.native_connection import Connection
from scp.network.policy import AssociationPolicy, Refusal
from scp.status import Answer

SLOW_S = 0.003


def slow_store() -> None:
    """Not a fault: a disk that takes its time."""
    real = AdmissionSink.commit

    def commit(self: AdmissionSink) -> Answer:
        time.sleep(SLOW_S)
        return real(self)

    AdmissionSink.commit = commit  # type: ignore[method-assign]


def believe_pydicom() -> None:
    """What pydicom can open is whole."""

    def walk(self: AdmissionSink, part: PartFile) -> Mapping[int, bytes]:
        try:
            dataset = dcmread(part.path, stop_before_pixels=True)
        except Exception as error:
            raise StructureError("pydicom cannot open it") from error
        items = ((tag, dataset.get_item(tag)) for tag in admission.walk.__globals__["WANTED"])
        return {tag: _raw(item) for tag, item in items if item is not None}

    AdmissionSink._walk = walk  # type: ignore[method-assign, assignment]


def _raw(item: Any) -> bytes:
    return item.value if isinstance(item.value, bytes) else str(item.value).encode()


def trust_lengths() -> None:
    """A PDU is as long as it says, and memory is made for it."""
    pdu.ASSOCIATE_RQ_MAX_BYTES = 1 << 32  # type: ignore[misc]
    pdu.Wire._check = lambda self, kind, length: None  # type: ignore[method-assign]


def acknowledge_late() -> None:
    """As any receiver does that does not ask otherwise: TCP_QUICKACK is not set again."""
    pdu._QUICKACK = None  # type: ignore[misc]


def wrong_reason() -> None:
    """At the limit, a reason that means something else to a sender."""
    real = AssociationPolicy.refusal

    def refusal(self: AssociationPolicy, *arguments: Any) -> Refusal | None:
        found = real(self, *arguments)
        return Refusal.CALLING_AE_TITLE if found is Refusal.LOCAL_LIMIT else found

    AssociationPolicy.refusal = refusal  # type: ignore[method-assign]


def keep_what_came() -> None:
    """A transfer that breaks off is taken for one that ended."""

    def abort(self: AdmissionSink) -> None:
        part, self._part = self._part, None
        if part is not None and part.size_bytes > self._header_bytes:
            self._part = part
            self._walk = lambda one: _identities(self)  # type: ignore[method-assign, assignment]
            self.commit()

    AdmissionSink.abort = abort  # type: ignore[method-assign]


def _identities(sink: AdmissionSink) -> Mapping[int, bytes]:
    request = sink._request
    uids = {0x00080016: request.sop_class_uid, 0x00080018: request.sop_instance_uid}
    return {tag: uid.encode() for tag, uid in (uids | {0x0020000D: "1.2.3.1", 0x0020000E: "1.2.3.2"}).items()}


def say_nothing() -> None:
    """At the limit the connection is closed, and the sender may guess why."""

    def reject(self: Connection, wire: pdu.Wire, *others: object) -> None:
        wire.close()

    Connection._reject = reject  # type: ignore[method-assign, assignment]
