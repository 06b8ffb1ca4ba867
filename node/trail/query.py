"""What was asked, for an audit message of a query (PS3.15 A.5.3.10): what is queried, and the query's keys.

The keys are told without their values: they are UIDs, names, accession numbers, and a record of the trail has none.
"""

from dataclasses import dataclass
from typing import Final

from pydicom import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import ExplicitVRLittleEndian

from ledger.audit import AuditKind
from ledger.trail import AuditLine

FIND: Final = "1.2.840.10008.5.1.4.1.2.2.1"  # Study Root, PS3.4 C.6.2
COMMITMENT: Final = "1.2.840.10008.1.20.1"  # Storage Commitment Push Model
SOP_CLASS: Final = ("110181", "SOP Class UID")  # of DCM
OURS: Final = "99OPENTRIAGE"


@dataclass(frozen=True)
class Queried:
    """identity: a SOP Class UID, or what else names what is queried; code, scheme: what it is. query: the data set of
    the keys in `syntax`, or, where there is no `syntax`, words."""

    identity: str
    code: tuple[str, str]
    scheme: str
    query: bytes
    syntax: str = ""


def _of_class(uid: str, *keywords: str, level: str = "") -> Queried:
    keys = Dataset()
    for keyword in keywords:
        setattr(keys, keyword, None)
    if level:
        keys.QueryRetrieveLevel = level
    into = DicomBytesIO()
    into.is_little_endian, into.is_implicit_VR = True, False
    write_dataset(into, keys)
    return Queried(uid, SOP_CLASS, "DCM", into.getvalue(), str(ExplicitVRLittleEndian))


_PROOF: Final = {
    "C-FIND": _of_class(FIND, "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", level="IMAGE"),
    "QIDO-RS": Queried(
        "studies/{study}/series/{series}/instances", ("qido", "Resource of QIDO-RS"), OURS, b"by its address alone"
    ),
    "storage commitment": _of_class(COMMITMENT, "TransactionUID", "ReferencedSOPSequence"),
}
_COUNT: Final = _of_class(FIND, "StudyInstanceUID", "NumberOfStudyRelatedInstances", level="STUDY")
_PAGE: Final = Queried("triage list", ("list", "List of the node"), OURS, b"what was searched for is not kept")


def queried(line: AuditLine) -> Queried | None:
    """None where the record is of no query."""
    if line.kind is not AuditKind.QUERY:
        return None
    how = str(line.detail.get("how") or "")
    if how == "C-FIND" and line.actor != "node:prove":
        return _COUNT
    return _PROOF.get(how, _PAGE)
