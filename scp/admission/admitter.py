"""The acknowledgement contract for one instance: nothing is answered 0x0000 before it would survive a power cut.

Bytes go to a part file on the store's own volume and are hashed while they stream; then the structure is walked, the
identities are compared, the file is renamed and synced, its folder is synced, and the ledger commits the row and its
job in one transaction; the last two are shared by whoever comes to them at the same time. Only then does `commit`
answer success. Independent of the network engine.
"""

import hashlib
import mmap
import os
import re
import traceback
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Final

import structlog
from prometheus_client import Counter

from config.settings import Settings
from ledger.commitment_results import is_readable
from ledger.errors import LedgerUnavailable
from ledger.intake import Admission, AdmissionOutcome
from ledger.ledger import Ledger
from ledger.reconcile import is_whole
from ledger.records import Disposition, ReceivedInstance
from ledger.store import PartFile
from scp import metrics, part10
from scp.admission.budget import Budget
from scp.admission.disposition import disposition_of
from scp.admission.patient import patient_digest
from scp.admission.quarantine import Quarantine
from scp.admission.rejection import KEY_OBJECTS, Rejection, read_rejection
from scp.admission.structure import (
    MODALITY,
    SERIES_INSTANCE_UID,
    SOP_CLASS_UID,
    SOP_INSTANCE_UID,
    STUDY_INSTANCE_UID,
    Limits,
    text,
    walk,
)
from scp.callers.arrivals import Arrivals
from scp.errors import (
    ClassNotAccepted,
    DataSetMismatch,
    InstanceTooLarge,
    InvalidUid,
    ReceiveError,
    StoreUnavailable,
    StructureError,
)
from scp.network.engine import StoreRequest, printable
from scp.status import SUCCESS, Answer, answer_to
from scp.uids import is_valid_uid

log = structlog.get_logger()

FREE_SPACE_CHECK_BYTES: Final = 64 * 1024 * 1024
COPIED_MAX_BYTES: Final = 128 * 1024  # up to here a copy costs less than a mapping of the file
_MODALITY = re.compile(r"[A-Z0-9_ ]{1,16}", re.ASCII)


@cache
def _counter(outcome: str, status: int) -> Counter:
    return metrics.INSTANCES.labels(outcome, f"0x{status:04X}")


def _utc_now() -> datetime:
    return datetime.now(UTC)


class Admitter:
    """Makes a sink for each C-STORE. Shared by all associations."""

    def __init__(
        self,
        settings: Settings,
        ledger: Ledger,
        quarantine: Quarantine,
        now: Callable[[], datetime] = _utc_now,
        arrivals: Arrivals | None = None,
        receivers: int = 1,
    ) -> None:
        """receivers: how many processes share the budget of bytes in flight."""
        self.settings = settings
        self.ledger = ledger
        self.store = ledger.store
        self.quarantine = quarantine
        self.now = now
        self.arrivals = arrivals or Arrivals(settings.study)
        self.limits = Limits(settings.receive.max_nesting, settings.receive.max_elements)
        self.debug = log.bind().debug  # once: to bind a logger for every instance costs more than to say nothing
        self.budget = Budget(settings.receive.in_flight_max_bytes // receivers, settings.receive.dimse_timeout_s)

    def begin(self, request: StoreRequest) -> "AdmissionSink":
        return AdmissionSink(self, request)

    def check_space(self) -> None:
        if self.store.free_bytes() < self.settings.receive.free_disk_min_bytes:
            raise StoreUnavailable("storage is nearly full")

    def check_volume(self) -> None:
        """Once a sync failed, nothing of this volume can be vouched for until a restart."""
        if self.store.failed:
            raise StoreUnavailable("storage failed")


class AdmissionSink:
    """One instance on its way in (scp.network.engine.InstanceSink)."""

    def __init__(self, admitter: Admitter, request: StoreRequest) -> None:
        self._admitter = admitter
        self._request = request
        self._sha256 = hashlib.sha256()
        self._size_bytes = 0
        self._part: PartFile | None = None
        self._header_bytes = 0
        self._error: Exception | None = None
        self._stored = False
        self._is_heartbeat = False  # the node's own, which counts nowhere
        self._share = admitter.budget.open()
        try:
            self._open()
        except Exception as error:  # noqa: BLE001 - a sink never raises: the engine must have an answer
            self._fail(error)

    def write(self, data: bytes | memoryview) -> None:
        if self._error is not None:
            return
        try:
            self._append(data)
        except Exception as error:  # noqa: BLE001
            self._fail(error)

    def commit(self) -> Answer:
        outcome: AdmissionOutcome | None = None
        if self._error is None:
            try:
                outcome = self._admit()
            except Exception as error:  # noqa: BLE001
                self._fail(error)
        return self._answer(outcome)

    def abort(self) -> None:
        self._share.give_back()
        part, self._part = self._part, None
        if part is not None:
            part.abort()

    # --- steps, in order; each raises ---

    def _open(self) -> None:
        request = self._request
        for name, uid in (("SOP Class", request.sop_class_uid), ("SOP Instance", request.sop_instance_uid)):
            if not is_valid_uid(uid):
                raise InvalidUid(f"Affected {name} UID is not valid")
        if request.sop_class_uid != request.abstract_syntax_uid:
            raise ClassNotAccepted("SOP class is not that of the presentation context")
        self._admitter.check_space()
        self._part = self._admitter.store.begin()
        header = part10.header(request.sop_class_uid, request.sop_instance_uid, request.transfer_syntax_uid)
        self._part.write(header)
        self._header_bytes = len(header)

    def _append(self, data: bytes | memoryview) -> None:
        assert self._part is not None
        before, self._size_bytes = self._size_bytes, self._size_bytes + len(data)
        if self._size_bytes > self._admitter.settings.receive.max_instance_bytes:
            raise InstanceTooLarge("data set is longer than the limit")
        self._share.take(len(data))
        if before // FREE_SPACE_CHECK_BYTES != self._size_bytes // FREE_SPACE_CHECK_BYTES:
            self._admitter.check_space()
        self._sha256.update(data)
        self._part.write(data)

    def _admit(self) -> AdmissionOutcome:
        admitter, part = self._admitter, self._part
        assert part is not None
        values = self._walk(part)
        self._check_identity(values)
        digest = self._sha256.hexdigest()
        admitter.check_volume()
        path = admitter.store.name("instances", digest, ".dcm")
        self._part = None
        with admitter.ledger.coming() as coming:
            folder = part.seal(path)
            self._stored = True
            received = self._received(values, digest, path)
            completion = admitter.arrivals.completion(received.calling_ae_title)
            admission = admitter.ledger.admit(received, completion, folder, coming)
        self._is_heartbeat = admission.is_heartbeat
        if admission.is_heartbeat:
            admitter.arrivals.own(self._request.association)
        elif admission.outcome is not AdmissionOutcome.RESENT:
            opens = received.disposition is Disposition.ANALYSE
            admitter.arrivals.stored(self._request.association, received.study_instance_uid if opens else None)
        if admission.outcome is AdmissionOutcome.RESENT and admission.path != path:
            self._keep_one(admission, path, digest)
        return admission.outcome

    def _keep_one(self, admission: Admission, fresh: str, digest: str) -> None:
        """The same bytes again: they go, unless the stored file was lost or damaged: then they take its place."""
        admitter, store = self._admitter, self._admitter.store
        if self._is_whole(store.path(admission.path), digest):
            store.path(fresh).unlink(missing_ok=True)
            size_bytes = None
        else:
            log.warning("stored_file_restored", sop_instance_uid=self._request.sop_instance_uid)
            store.replace(admission.path, fresh)
            admitter.check_volume()
            size_bytes = self._header_bytes + self._size_bytes
        try:
            admitter.ledger.file_is_whole(admission.instance_id, size_bytes)
        except LedgerUnavailable:  # it is kept all the same; the alarm ends when the file is asked for again
            log.warning("stored_file_not_noted_as_whole")

    def _is_whole(self, path: Path, digest: str) -> bool:
        """The stored file of these bytes, and what says beside them in which transfer syntax they are to be read."""
        request = self._request
        if not is_whole(path, digest):
            return False
        known = self._admitter.ledger.find_instance(request.sop_instance_uid, digest)
        if known is None or known.transfer_syntax_uid != request.transfer_syntax_uid:
            return True  # what came now would be read otherwise
        return is_readable(path, request.sop_class_uid, request.sop_instance_uid, request.transfer_syntax_uid)

    def _walk(self, part: PartFile) -> dict[int, bytes]:
        syntax, limits = self._request.transfer_syntax_uid, self._admitter.limits
        if part.size_bytes <= COPIED_MAX_BYTES:
            copied = os.pread(part.fileno(), part.size_bytes, 0)
            if len(copied) == part.size_bytes:
                return walk(memoryview(copied)[self._header_bytes :], syntax, limits)
        with (
            mmap.mmap(part.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
            memoryview(mapped) as whole,
            whole[self._header_bytes :] as data,
        ):
            return walk(data, syntax, limits)

    def _check_identity(self, values: Mapping[int, bytes]) -> None:
        for tag, announced in (
            (SOP_CLASS_UID, self._request.sop_class_uid),
            (SOP_INSTANCE_UID, self._request.sop_instance_uid),
        ):
            if text(values, tag) != announced:
                raise DataSetMismatch("data set is not the instance the command announced", tag)
        for tag in (STUDY_INSTANCE_UID, SERIES_INSTANCE_UID):
            uid = text(values, tag)
            if not uid:
                raise DataSetMismatch("a required UID is missing", tag)
            if not is_valid_uid(uid):
                raise InvalidUid("a required UID is not valid", tag)

    def _received(self, values: Mapping[int, bytes], digest: str, path: str) -> ReceivedInstance:
        request, association = self._request, self._request.association
        received_at = self._admitter.now()
        modality = text(values, MODALITY)
        disposition = disposition_of(values, self._admitter.settings, received_at)
        rejection = self._rejection(values, disposition, path)
        return ReceivedInstance(
            sop_class_uid=request.sop_class_uid,
            sop_instance_uid=request.sop_instance_uid,
            series_instance_uid=text(values, SERIES_INSTANCE_UID),
            study_instance_uid=text(values, STUDY_INSTANCE_UID),
            transfer_syntax_uid=request.transfer_syntax_uid,
            modality=modality if _MODALITY.fullmatch(modality) else "",
            sha256=digest,
            size_bytes=self._header_bytes + self._size_bytes,  # of the stored file
            path=path,
            disposition=Disposition.REJECTION_NOTE if rejection else disposition,
            calling_ae_title=association.calling_ae_title,
            peer_address=association.peer_address,
            association_id=association.association_id,
            message_priority=request.message_priority,
            received_at=received_at,
            patient_digest=patient_digest(values, self._admitter.ledger.patient_digest),
            rejection=rejection.code if rejection else "",
            rejects=rejection.sop_instance_uids if rejection else (),
        )

    def _rejection(self, values: Mapping[int, bytes], disposition: Disposition, path: str) -> Rejection | None:
        """What a key object rejects. One that cannot be read is kept like any other object, and somebody is told."""
        if self._request.sop_class_uid != KEY_OBJECTS or disposition is not Disposition.NOT_AN_IMAGE:
            return None
        try:
            return read_rejection(self._admitter.store.path(path), text(values, STUDY_INSTANCE_UID))
        except StructureError as error:
            log.warning("rejection_note_unreadable", sop_instance_uid=self._request.sop_instance_uid, reason=str(error))
            return None

    # --- the end ---

    def _fail(self, error: Exception) -> None:
        if isinstance(error, (OSError, MemoryError)):
            error = StoreUnavailable("storage cannot take the bytes")
        elif isinstance(error, LedgerUnavailable):
            error = StoreUnavailable("ledger is unavailable")
        self._error = error
        self._share.give_back()
        part, self._part = self._part, None
        if part is None:
            return
        try:
            if isinstance(error, StructureError):
                self._quarantine(part)
        finally:
            part.abort()

    def _quarantine(self, part: PartFile) -> None:
        try:
            kept = self._admitter.quarantine.keep(part.path, part.size_bytes)
        except OSError:
            kept = None
        if kept is not None:
            metrics.QUARANTINED.inc()
            log.warning("data_set_quarantined", file=kept.name, size_bytes=part.size_bytes, **self._sender())

    def _answer(self, outcome: AdmissionOutcome | None) -> Answer:
        answer = Answer(SUCCESS) if self._error is None else answer_to(self._error, self._stored)
        if not answer.is_success:
            self._admitter.arrivals.refused(self._request.association, answer.status)
        self._share.give_back()
        if not self._is_heartbeat:
            metrics.BYTES.inc(self._size_bytes)
            _counter(outcome or "refused", answer.status).inc()
        self._log(outcome, answer)
        return answer

    def _log(self, outcome: AdmissionOutcome | None, answer: Answer) -> None:
        uid = self._request.sop_instance_uid
        facts = {
            "sop_instance_uid": uid if is_valid_uid(uid) else "",
            "association_id": self._request.association.association_id,
            "size_bytes": self._size_bytes,
        }
        if outcome is AdmissionOutcome.UID_CONFLICT:
            log.warning("uid_conflict", **facts)
        if answer.is_success:
            self._admitter.debug("instance_received", outcome=outcome, **facts)
            return
        log.warning(
            "instance_refused",
            status=f"0x{answer.status:04X}",
            reason=answer.comment,
            **self._sender(),
            **self._origin(),
            **facts,
        )

    def _sender(self) -> dict[str, str]:
        association = self._request.association
        return {"calling_ae_title": printable(association.calling_ae_title), "peer": association.peer_address}

    def _origin(self) -> dict[str, str]:
        """Where an error of our own came from: its text could quote a value, its place cannot."""
        error = self._error
        if error is None or isinstance(error, ReceiveError):
            return {}
        frames = traceback.extract_tb(error.__traceback__)
        where = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
        return {"error": type(error).__name__, "where": where}
