"""The wrong-patient proof: before an object leaves, the chain from its source's pixels to its own header is shown anew.
An adapter is told with a source's own header, of which the first two links are shown.

Four links, each read from the bytes as they lie now: the stored sources are those that were received, and those that
the analysis decoded; they are of one patient and of the study; the object names that patient and that study; and it
refers to nothing but those sources and our own objects of the study. (That the object's own bytes are those that were
kept, `sr_writer.deliver` has seen before it asks.)

A source is read and hashed anew for each attempt to send, once for all objects of a report in it, and again when its
file changes in any way meanwhile; no more than a block of it is in memory.
"""

import unicodedata
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from io import BytesIO
from os import stat_result

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.tag import Tag

from ledger.notifications import Notice
from ledger.proofs import Evidence
from ledger.reconcile import dataset_sha256
from ledger.records import InstanceRef, SentReference, StoredObject
from ledger.store import Store
from sr_writer.errors import NotNow, NotProven, SourceUnreadable
from sr_writer.source import PATIENT, SourceHeader, SourceIdentity, read_header, read_identity, value_text

_REFERENCED, _STUDY = Tag("ReferencedSOPInstanceUID"), Tag("StudyInstanceUID")
_OTHER_THINGS = {  # sequences whose items refer to studies, procedure steps and patients, which are no instances
    Tag(keyword)
    for keyword in ("ReferencedStudySequence", "ReferencedPatientSequence", "ReferencedPerformedProcedureStepSequence")
}
_MAY_BE_SEQUENCE = ("SQ", "UN", None)  # VRs as they lie in a file; None: Implicit VR, which the dictionary resolves
UNREADABLE = (  # what pydicom raises over a file that is not one of ours any more
    AttributeError, EOFError, InvalidDicomError, LookupError, NotImplementedError, OverflowError, RecursionError,
    TypeError, ValueError,
)  # fmt: skip
_NAME, _ID = PATIENT.index("PatientName"), PATIENT.index("PatientID")
_LOOK = "Look at the study's events and at the stored files; once the cause is gone, release the job."
_ANEW = "It cannot become right: `opentriage recall` the study, then `opentriage look-again`, and it is made anew."
_AGAIN = "Send the image to this node again, which puts the stored file right, then release the job."
CHANGED = f"A source image of this report is not what was received: its bytes changed. {_AGAIN}"

Stamp = tuple[int, int, int, int, int]


@dataclass
class _Sources:
    """What the sources of one report said when they were last read."""

    evidence: Evidence
    stamps: dict[int, Stamp] = field(default_factory=dict)  # by instance id; only of those that were proven
    identities: dict[int, SourceIdentity] = field(default_factory=dict)
    objects: dict[str, "_Said"] = field(default_factory=dict)  # by SHA-256 of the file


@dataclass(frozen=True)
class _Said:
    """What an object's own bytes say."""

    patient: tuple[str, ...] = field(repr=False)
    sop_instance_uid: str
    study_uids: frozenset[str]  # everywhere in it, evidence sequences included
    references: frozenset[str]  # SOP Instance UIDs


class Guard:
    """One for each attempt to send (`anew`), of one thread: what it has read is not believed by the next attempt.

    evidence, own_objects: by report id, as `Ledger` gives them.
    """

    def __init__(
        self, store: Store, evidence: Callable[[int], Evidence], own_objects: Callable[[int], frozenset[str]]
    ) -> None:
        self._store = store
        self._evidence = evidence
        self._own_objects = own_objects
        self._reports: dict[int, _Sources] = {}

    def anew(self) -> "Guard":
        """For the next attempt: it has read nothing yet."""
        return Guard(self._store, self._evidence, self._own_objects)

    def prove(self, item: StoredObject, content: bytes) -> None:
        """`content`: the object's whole file. Raises NotProven; NotNow when a source cannot be read just now."""
        try:
            sources = self._read_sources(item.report_id)
        except NotProven:
            if not (earlier := self._evidence(item.report_id).takes_back):
                raise
            self._compare_with_own(item, _said(content), earlier)
            return
        if (said := sources.objects.get(item.sha256)) is None:
            said = sources.objects[item.sha256] = _said(content)
        self._compare(item, said, sources.evidence, list(sources.identities.values()))

    def header(self, notice: Notice) -> SourceHeader:
        """For an adapter, of the image that `notice` is about: all sources are what was received and looked at, of one
        patient and of the study. Of a withdrawal whose sources are damaged or were removed: of what it takes back.
        Raises as `prove` does."""
        try:
            sources = self._read_sources(notice.report_id)
        except NotProven:
            if not (earlier := self._evidence(notice.report_id).takes_back):
                raise
            return self._own_header(notice.study_instance_uid, earlier)
        if any(one.study_instance_uid != notice.study_instance_uid for one in sources.identities.values()):
            raise NotProven(f"A source image of this report names another study. {_LOOK}")
        _check_one_patient(sources.identities.values())
        assert notice.source is not None  # it is one of the sources
        try:
            header = read_header(self._store.path(notice.source.path), notice.study_instance_uid)
        except SourceUnreadable as error:
            raise NotNow("a source image cannot be read now") from error
        if self._stamp(notice.source) != sources.stamps[notice.source.instance_id]:
            raise NotNow("a source image changed while it was read")
        return header

    def _own_header(self, study_instance_uid: str, earlier: Iterable[SentReference]) -> SourceHeader:
        """What left was proven then: all of it that is whole is of one patient and of the study. Raises NotProven."""
        whole = [(one, content) for one in earlier if (content := whole_object(self._store, one)) is not None]
        alike = {(one.patient, one.study_uids) for one in (_said(content) for _, content in whole)}
        if [study_uids for _, study_uids in alike] != [frozenset({study_instance_uid})]:
            raise NotProven(f"What is taken back does not name one patient and the study. {_LOOK}")
        try:
            return read_header(self._store.path(whole[0][0].path), study_instance_uid)
        except SourceUnreadable as error:
            raise NotNow("our own report cannot be read now") from error

    # --- the sources ---

    def _read_sources(self, report_id: int) -> _Sources:
        if (sources := self._reports.get(report_id)) is None:
            sources = self._reports[report_id] = _Sources(self._evidence(report_id))
        evidence = sources.evidence
        if not evidence.instances:
            raise NotProven(f"The ledger does not say which images this report rests on. {_LOOK}")
        for ref, decoded in zip(evidence.instances, evidence.source_sha256, strict=True):
            stamp = self._stamp(ref)
            if sources.stamps.get(ref.instance_id) == stamp:
                continue
            sources.stamps.pop(ref.instance_id, None)
            sources.identities[ref.instance_id] = self._prove_source(ref, decoded)
            sources.stamps[ref.instance_id] = stamp
        return sources

    def _stamp(self, ref: InstanceRef) -> Stamp:
        try:
            found: stat_result = self._store.path(ref.path).stat()
        except FileNotFoundError:
            raise NotProven(f"A source image of this report is gone: nobody can show whose it is. {_AGAIN}") from None
        except OSError as error:
            raise NotNow(f"a source image cannot be read now ({type(error).__name__})") from error
        return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns

    def _prove_source(self, ref: InstanceRef, decoded_sha256: str) -> SourceIdentity:
        path = self._store.path(ref.path)
        try:
            digest = dataset_sha256(path)
            found = read_identity(path)
        except SourceUnreadable:
            raise NotProven(f"A source image of this report is no DICOM file any more. {_AGAIN}") from None
        except OSError as error:
            raise NotNow(f"a source image cannot be read now ({type(error).__name__})") from error
        if digest != ref.sha256:
            raise NotProven(CHANGED)
        if decoded_sha256 and digest != decoded_sha256:
            raise NotProven(f"The model looked at other bytes than the source image of this report. {_LOOK}")
        if found.sop_instance_uid != ref.sop_instance_uid or found.study_instance_uid != ref.study_instance_uid:
            raise NotProven(f"A source image of this report names another instance or study than the ledger. {_LOOK}")
        return found

    # --- the object ---

    def _compare_with_own(self, item: StoredObject, said: "_Said", earlier: Iterable[SentReference]) -> None:
        """A withdrawal whose sources are damaged must leave all the same: it is of the patient of what it takes back,
        which was proven when it left. Raises NotProven."""
        own = [_said(content) for one in earlier if (content := whole_object(self._store, one)) is not None]
        uids = {one.sop_instance_uid for one in own}
        alike = {(one.patient, one.study_uids) for one in (*own, said)}
        known = uids | self._own_objects(item.report_id) | {item.sop_instance_uid}
        known |= {ref.sop_instance_uid for ref in self._evidence(item.report_id).instances}
        if not own or len(alike) > 1 or said.sop_instance_uid != item.sop_instance_uid or not said.references <= known:
            raise NotProven(f"The withdrawal does not name the patient and study of what it takes back. {_LOOK}")

    def _compare(self, item: StoredObject, said: _Said, evidence: Evidence, identities: list[SourceIdentity]) -> None:
        if said.sop_instance_uid != item.sop_instance_uid:
            raise NotProven(f"The object names another SOP instance than the ledger. {_LOOK}")
        if said.study_uids != {identity.study_instance_uid for identity in identities}:
            raise NotProven(f"The object and its source images do not name one study. {_LOOK}")
        if said.patient not in {identity.patient for identity in identities}:
            raise NotProven(f"The object does not name the patient that its source images name. {_ANEW}")
        _check_one_patient(identities)
        known = {ref.sop_instance_uid for ref in evidence.instances} | {item.sop_instance_uid}
        if not said.references <= known and not said.references <= known | self._own_objects(item.report_id):
            raise NotProven(f"The object refers to an instance that its report does not rest on. {_LOOK}")


def whole_object(store: Store, one: SentReference) -> bytes | None:
    """The stored file of an object of our own; None when it is gone or is not what was stored."""
    try:
        content = store.read(one.path)
    except OSError:
        return None
    return content if sha256(content).hexdigest() == one.sha256 else None


def _check_one_patient(identities: Iterable[SourceIdentity]) -> None:
    """As admission tells patients apart (`ledger.standing`): an id decides, and without one the name must be known.

    Spellings of a name beside an id, and an issuer that an archive added, are no difference.
    """
    named = {(_plain(one.patient[_ID]), _name(one.patient[_NAME])) for one in identities}
    ids = {number for number, _ in named if number}
    known = {name for number, name in named if number and name}
    strangers = {name for number, name in named if not number and name} - known
    if len(ids) > 1 or len(strangers) > (0 if known else 1):
        raise NotProven(f"The source images of this report name different patients. {_LOOK}")


def _plain(text: str) -> str:
    return unicodedata.normalize("NFKC", text).strip()


def _name(text: str) -> str:
    """The first component group that is filled in, without letter case, padding and empty trailing components."""
    groups = ([" ".join(part.split()) for part in group.split("^")] for group in _plain(text).split("="))
    return next((found for group in groups if (found := "^".join(group).rstrip("^").casefold())), "")


def _said(content: bytes) -> _Said:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pydicom's warnings quote values
            ds = dcmread(BytesIO(content), stop_before_pixels=True)
            pairs = list(_uids(ds))
            return _Said(
                patient=tuple(value_text(ds, keyword) for keyword in PATIENT),
                sop_instance_uid=value_text(ds, "SOPInstanceUID"),
                study_uids=frozenset(uid for tag, uid in pairs if tag == _STUDY),
                references=frozenset(uid for tag, uid in pairs if tag == _REFERENCED),
            )
    except UNREADABLE as error:
        raise NotProven(f"The stored object cannot be read ({type(error).__name__}). {_LOOK}") from error


def _uids(ds: Dataset) -> Iterator[tuple[int, str]]:
    """Every Study Instance UID and Referenced SOP Instance UID, at any depth. What is neither is not decoded."""
    for tag in ds.keys():  # noqa: SIM118  without it every element would be decoded
        if ds.get_item(tag).VR not in _MAY_BE_SEQUENCE and tag not in (_REFERENCED, _STUDY):
            continue
        element = ds[tag]
        if element.VR == "SQ" and tag not in _OTHER_THINGS:
            for item in element.value or ():
                yield from _uids(item)
        elif tag in (_REFERENCED, _STUDY) and element.value:
            yield tag, str(element.value)
