"""One part of a DICOMweb store request: a Part 10 file whose data set goes, as it comes, through the same admission as
that of a C-STORE; the file's own header says what a C-STORE's command set would have (PS3.10 7.1)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from struct import Struct
from typing import Final

import structlog
from pydicom.valuerep import EXPLICIT_VR_LENGTH_32

from ledger.errors import LedgerUnavailable
from ledger.intake import Admission
from ledger.records import Disposition
from ledger.store import PARTS, PartFile
from scp.admission.admitter import AdmissionSink, Admitter
from scp.admission.rejection import Rejection
from scp.admission.structure import STUDY_INSTANCE_UID, text
from scp.errors import DataSetMismatch
from scp.network.engine import AssociationFacts, StoreRequest
from scp.status import CANNOT_UNDERSTAND, INVALID_OBJECT_INSTANCE, SOP_CLASS_NOT_SUPPORTED, Answer
from scp.uids import is_valid_uid

PREAMBLE: Final = 132  # with the prefix "DICM"
HEADER_MAX: Final = 64 * 1024
SYNTAX_NOT_SUPPORTED: Final = 0xC122  # PS3.18 10.5.3: referenced transfer syntax not supported
_ELEMENT: Final = Struct("<HH2sH")  # explicit VR, little endian, whatever the data set is
_LONG: Final = Struct("<L")
_LONG_VRS: Final = frozenset(vr.encode() for vr in EXPLICIT_VR_LENGTH_32)
_SOP_CLASS, _SOP_INSTANCE, _SYNTAX = 0x0002, 0x0003, 0x0010


class NotPart10(ValueError):
    """The part is no file of this kind."""


@dataclass(frozen=True)
class FileMeta:
    """What the header says. size: where the data set begins."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    size: int


def read_meta(data: bytes | bytearray) -> FileMeta | None:
    """Of the beginning of a file; None when more of it is needed. Raises NotPart10."""
    if len(data) < PREAMBLE:
        return None
    if data[PREAMBLE - 4 : PREAMBLE] != b"DICM":
        raise NotPart10
    values: dict[int, str] = {}
    position = PREAMBLE
    while len(data) >= position + 12:
        group, element, vr, length = _ELEMENT.unpack_from(data, position)
        if group != 0x0002:
            if len(values) < 3:
                raise NotPart10
            return FileMeta(values[_SOP_CLASS], values[_SOP_INSTANCE], values[_SYNTAX], position)
        start = position + 8
        if vr in _LONG_VRS:
            length, start = _LONG.unpack_from(data, start)[0], start + 4
        position = start + length
        if element in (_SOP_CLASS, _SOP_INSTANCE, _SYNTAX):
            values[element] = bytes(data[start:position]).decode("latin-1").strip(" \0")
    if max(position, len(data)) > HEADER_MAX:
        raise NotPart10
    return None


class StudySink(AdmissionSink):
    """An instance that must be of one study, where the address names it (PS3.18 10.5.1). The role that takes it reads
    no stored image (node/running/confine.py): what admission reads of one is seen to before it is stored, or not at
    all."""

    _rejects: Rejection | None = None

    def __init__(self, admitter: Admitter, request: StoreRequest, study_uid: str | None) -> None:
        self._study_uid = study_uid
        super().__init__(admitter, request)

    def _check_identity(self, values: Mapping[int, bytes]) -> None:
        super()._check_identity(values)
        if self._study_uid is not None and text(values, STUDY_INSTANCE_UID) != self._study_uid:
            raise DataSetMismatch("instance is not of the study that the address names", STUDY_INSTANCE_UID)

    def _walk(self, part: PartFile) -> dict[int, bytes]:
        values = super()._walk(part)
        self._rejects = super()._rejection(values, Disposition.NOT_AN_IMAGE, f"{PARTS}/{part.path.name}")
        return values

    def _rejection(self, values: Mapping[int, bytes], disposition: Disposition, path: str) -> Rejection | None:
        return self._rejects if disposition is Disposition.NOT_AN_IMAGE else None

    def _keep_one(self, admission: Admission, fresh: str, digest: str) -> None:
        """The same bytes again take the place of those that nobody here may look at, unless they would be read
        otherwise."""
        admitter, store = self._admitter, self._admitter.store
        known = admitter.ledger.find_instance(self._request.sop_instance_uid, digest)
        if known is not None and known.transfer_syntax_uid != self._request.transfer_syntax_uid:
            store.path(fresh).unlink(missing_ok=True)
            return
        before, after = _size_of(store.path(admission.path)), _size_of(store.path(fresh))
        store.replace(admission.path, fresh)
        admitter.check_volume()
        try:
            if not admitter.ledger.keeps(admission.instance_id, admission.path):  # it was on its way out meanwhile
                store.path(admission.path).unlink(missing_ok=True)
                store.sync_folder(store.path(admission.path).parent)
                return
            admitter.ledger.file_is_whole(admission.instance_id, None if before == after else after)
        except LedgerUnavailable:  # it is kept all the same; the alarm ends when the file is sent again
            structlog.get_logger().warning("stored_file_not_noted_as_whole")


def _size_of(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None


@dataclass(frozen=True)
class Stored:
    """What became of one part. The UIDs are "" where the part did not say them in a way that can be repeated."""

    sop_class_uid: str
    sop_instance_uid: str
    answer: Answer

    @property
    def failure(self) -> int:
        """Failure Reason (0008,1197): one of those that PS3.18 lists for this."""
        status = self.answer.status
        return CANNOT_UNDERSTAND if status == INVALID_OBJECT_INSTANCE else status


class StowTaker:
    """Takes the parts (node.web.parts.Taker). `end` of a part returns when its instance is durable, or refused."""

    def __init__(
        self,
        admitter: Admitter,
        accepted: Mapping[str, Sequence[str]],
        facts: AssociationFacts,
        study_uid: str | None,
    ) -> None:
        """accepted: SOP class -> transfer syntaxes, as associations get them."""
        self.stored: list[Stored] = []
        self._admitter = admitter
        self._accepted = accepted
        self._facts = facts
        self._study_uid = study_uid
        self._begun = bytearray()
        self._sink: StudySink | None = None
        self._meta: FileMeta | None = None
        self._refused: Answer | None = None

    def begin(self, headers: Mapping[str, str]) -> None:
        self._begun.clear()
        self._sink = self._meta = self._refused = None
        kind = headers.get("content-type", "application/dicom").partition(";")[0].strip().lower()
        if kind != "application/dicom":
            self._refused = Answer(CANNOT_UNDERSTAND, "part is not application/dicom")

    def data(self, chunk: bytes) -> None:
        if self._sink is not None:
            self._sink.write(chunk)
        elif self._refused is None:
            self._begun += chunk
            self._open()

    def end(self) -> None:
        sink, meta, self._sink = self._sink, self._meta, None
        answer = sink.commit() if sink is not None else self._refused or Answer(CANNOT_UNDERSTAND, "part is cut off")
        known = meta is not None and is_valid_uid(meta.sop_class_uid) and is_valid_uid(meta.sop_instance_uid)
        uids = (meta.sop_class_uid, meta.sop_instance_uid) if known and meta is not None else ("", "")
        self.stored.append(Stored(*uids, answer))

    def abort(self) -> None:
        """The request ended here: forget a part that had not come whole."""
        sink, self._sink = self._sink, None
        if sink is not None:
            sink.abort()

    def _open(self) -> None:
        try:
            meta = self._meta = read_meta(self._begun)
        except NotPart10:
            self._refused = Answer(CANNOT_UNDERSTAND, "part is no DICOM file")
            return
        if meta is None:
            return
        syntaxes = self._accepted.get(meta.sop_class_uid)
        if syntaxes is None:
            self._refused = Answer(SOP_CLASS_NOT_SUPPORTED, "SOP class is not accepted")
        elif meta.transfer_syntax_uid not in syntaxes:
            self._refused = Answer(SYNTAX_NOT_SUPPORTED, "transfer syntax is not accepted")
        else:
            request = StoreRequest(
                self._facts, meta.sop_class_uid, meta.transfer_syntax_uid, meta.sop_class_uid, meta.sop_instance_uid, 0
            )
            self._sink = StudySink(self._admitter, request, self._study_uid)
            self._sink.write(memoryview(self._begun)[meta.size :])
        self._begun = bytearray()
