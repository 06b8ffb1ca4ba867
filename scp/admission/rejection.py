"""Rejection notes (IHE RAD, Imaging Object Change Management): key objects that say what must not be used.

A note speaks for the study that it lies in: references to other studies are left out, so that one object can never
take another patient's images away. It is parsed only after its structure was walked, within limits.
"""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydicom import dcmread

from scp.errors import StructureError
from scp.uids import is_valid_uid

KEY_OBJECTS: Final = "1.2.840.10008.5.1.4.1.1.88.59"
REASONS: Final = frozenset({"113001", "113037", "113038", "113039"})  # DCM: quality, safety, worklist, retention
MAX_BYTES: Final = 8 * 1024 * 1024
MAX_REFERENCES: Final = 20_000


@dataclass(frozen=True)
class Rejection:
    """code: of the document title. sop_instance_uids: of the note's own study, at least one."""

    code: str
    sop_instance_uids: tuple[str, ...]


def read_rejection(path: Path, study_instance_uid: str) -> Rejection | None:
    """What a stored key object rejects; None when it is about something else. Raises StructureError when it is a
    rejection note that cannot be read."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they quote values
        try:
            if path.stat().st_size > MAX_BYTES:
                raise StructureError("key object is too large")
            ds = dcmread(path, specific_tags=["ConceptNameCodeSequence", "CurrentRequestedProcedureEvidenceSequence"])
            code = _title(ds)
            if code not in REASONS:
                return None
            return Rejection(code, _references(ds, study_instance_uid))
        except (AttributeError, LookupError, NotImplementedError, OSError, TypeError, ValueError, RecursionError):
            raise StructureError("key object cannot be read") from None


def _title(ds: Any) -> str:
    title = (ds.get("ConceptNameCodeSequence") or [{}])[0]
    if str(title.get("CodingSchemeDesignator", "")).strip() != "DCM":
        return ""
    return str(title.get("CodeValue", "")).strip()


def _references(ds: Any, study_instance_uid: str) -> tuple[str, ...]:
    found: dict[str, None] = {}
    for uid in _every(ds, study_instance_uid):
        if not is_valid_uid(uid):
            raise StructureError("rejection note names an invalid UID")
        found[uid] = None
        if len(found) > MAX_REFERENCES:
            raise StructureError("rejection note names too many instances")
    if not found:
        raise StructureError("rejection note names nothing of its study")
    return tuple(found)


def _every(ds: Any, study_instance_uid: str) -> Iterator[str]:
    for study in ds.get("CurrentRequestedProcedureEvidenceSequence") or ():
        if str(study.get("StudyInstanceUID", "")) != study_instance_uid:
            continue
        for series in study.get("ReferencedSeriesSequence") or ():
            for instance in series.get("ReferencedSOPSequence") or ():
                yield str(instance.get("ReferencedSOPInstanceUID", ""))
