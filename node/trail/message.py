"""A record of the audit trail as a DICOM audit message (PS3.15 A.5): the XML of A.5.1 in a syslog message (A.6).

Studies and patients are the trail's keyed hashes, marked as such. What the standard has no event for is told as the
nearest one, with a type code of our own.
"""

import json
import re
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC
from typing import Final
from xml.etree import ElementTree as ET

from ledger.audit import AuditKind, Outcome
from ledger.trail import AuditLine
from node.trail.query import OURS, Queried, queried

DCM: Final = "DCM"
FACILITY: Final = 10  # security and authorization (RFC 5424 6.2.1)
SEVERITY: Final = {
    Outcome.SUCCESS: 5,
    Outcome.MINOR_FAILURE: 4,
    Outcome.SERIOUS_FAILURE: 3,
    Outcome.MAJOR_FAILURE: 2,
}
MSGID: Final = "DICOM+RFC3881"
_NO_XML: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

SOURCE, DESTINATION, APPLICATION = (
    ("110153", "Source Role ID"),
    ("110152", "Destination Role ID"),
    ("110150", "Application"),
)
Code = tuple[str, str]  # value and meaning, of DCM


@dataclass(frozen=True)
class Sender:
    """How this node calls itself. host: a name or address."""

    source_id: str
    site_id: str
    host: str


@dataclass(frozen=True)
class _Event:
    code: Code
    action: str  # Create, Read, Update, Delete, Execute
    kind: Code | None = None  # EventTypeCode of whatever _TYPES does not name


_ACCESSED: Final = ("110103", "DICOM Instances Accessed")
_ALERT: Final = ("110113", "Security Alert")
_STOPPED: Final = ("110121", "Application Stop")
_RESTRICTED: Final = ("110132", "Use of Restricted Function")
_SOFTWARE: Final = ("110131", "Software Configuration")
_EVENTS: Final[Mapping[AuditKind, _Event]] = {
    AuditKind.ACTIVITY: _Event(("110100", "Application Activity"), "E", _STOPPED),
    AuditKind.TRANSFERS: _Event(("110102", "Begin Transferring DICOM Instances"), "E"),
    AuditKind.TRANSFERRED: _Event(("110104", "DICOM Instances Transferred"), "C"),
    AuditKind.ACCESSED: _Event(_ACCESSED, "R"),
    AuditKind.ANALYSED: _Event(_ACCESSED, "R"),
    AuditKind.REPORTED: _Event(_ACCESSED, "C"),
    AuditKind.QUERY: _Event(("110112", "Query"), "E"),
    AuditKind.EXPORT: _Event(("110106", "Export"), "R"),
    AuditKind.STUDY_DELETED: _Event(("110105", "DICOM Study Deleted"), "D"),
    AuditKind.SECURITY_ALERT: _Event(_ALERT, "E", _RESTRICTED),
    AuditKind.CONFIGURATION: _Event(_ALERT, "E", _SOFTWARE),
    AuditKind.MODEL: _Event(_ALERT, "E", _SOFTWARE),
    AuditKind.AUTHENTICATION: _Event(("110114", "User Authentication"), "E", ("110122", "Login")),
    AuditKind.LOG_USED: _Event(("110101", "Audit Log Used"), "R"),
    AuditKind.OPERATED: _Event(_ACCESSED, "U"),
}
_TYPES: Final[Mapping[tuple[AuditKind, str], Code]] = {
    (AuditKind.ACTIVITY, "started"): ("110120", "Application Start"),
    (AuditKind.AUTHENTICATION, "sign_out"): ("110123", "Logout"),
    (AuditKind.SECURITY_ALERT, "turned_away"): ("110126", "Node Authentication"),
    (AuditKind.SECURITY_ALERT, "rejected"): ("110126", "Node Authentication"),
    (AuditKind.SECURITY_ALERT, "found_chain_broken"): ("110135", "Object Security Attributes Changed"),
}


def syslog(line: AuditLine, sender: Sender) -> bytes:
    """A whole RFC 5424 message; the node's own process is not told from one role to another."""
    priority = FACILITY * 8 + SEVERITY[line.outcome]
    at = line.at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    head = f"<{priority}>1 {at} {_header(sender.host, 255)} {_header(sender.source_id, 48)} - {MSGID} - "
    return head.encode() + b"\xef\xbb\xbf" + xml(line, sender)


def _header(text: str, longest: int) -> str:
    """A field of the header: printable, without spaces."""
    return re.sub(r"[^\x21-\x7e]", "_", text)[:longest] or "-"


def did(line: AuditLine) -> str:
    """In a word what the record is of."""
    return str(line.detail.get("did") or line.detail.get("what") or line.kind.value)


def xml(line: AuditLine, sender: Sender) -> bytes:
    """The message of PS3.15 A.5.1."""
    root = ET.Element("AuditMessage")
    _event(root, line)
    _participants(root, line, sender)
    source = ET.SubElement(root, "AuditSourceIdentification", AuditSourceID=_text(sender.source_id))
    if sender.site_id:
        source.set("AuditEnterpriseSiteID", _text(sender.site_id))
    ET.SubElement(source, "AuditSourceTypeCode", {"csd-code": "4"})  # an application server process
    _objects(root, line, sender)
    return bytes(ET.tostring(root, encoding="utf-8", xml_declaration=True))


def _event(root: ET.Element, line: AuditLine) -> None:
    event, word = _EVENTS[line.kind], did(line)
    element = ET.SubElement(
        root,
        "EventIdentification",
        EventActionCode=event.action,
        EventDateTime=line.at.astimezone(UTC).isoformat(timespec="milliseconds"),
        EventOutcomeIndicator=str(int(line.outcome)),
    )
    _code(element, "EventID", event.code)
    known = _TYPES.get((line.kind, word)) or event.kind
    if known is not None:
        _code(element, "EventTypeCode", known)
    _code(element, "EventTypeCode", (word, f"{line.kind.value}: {word}"), OURS)


def _participants(root: ET.Element, line: AuditLine, sender: Sender) -> None:
    kind, _, name = line.actor.partition(":")
    other = str(line.detail.get("to") or "")
    if line.kind is AuditKind.TRANSFERRED and kind != "node":
        _participant(root, name, SOURCE, requests=True, address=line.peer)
        _participant(root, sender.source_id, DESTINATION, requests=False, address=sender.host)
    elif other and kind == "node":
        _participant(root, sender.source_id, SOURCE, requests=True, address=sender.host)
        _participant(root, other, DESTINATION, requests=False, address=line.peer)
    elif kind == "node":
        _participant(root, sender.source_id, APPLICATION, requests=False, address=sender.host, part=name)
    else:
        role = SOURCE if line.kind in (AuditKind.QUERY, AuditKind.EXPORT) else None
        at = line.peer or (sender.host if line.kind is AuditKind.AUTHENTICATION else "")  # there it must be told
        _participant(root, name or kind, role, requests=True, address=at)
        ours = DESTINATION if role else APPLICATION
        _participant(root, sender.source_id, ours, requests=False, address=sender.host)


def _participant(
    root: ET.Element, user: str, role: Code | None, *, requests: bool, address: str, part: str = ""
) -> None:
    element = ET.SubElement(root, "ActiveParticipant", UserID=_text(user) or "unknown")
    if part:
        element.set("AlternativeUserID", _text(part))
    element.set("UserIsRequestor", "true" if requests else "false")
    if address:
        element.set("NetworkAccessPointID", _text(address))
        element.set(
            "NetworkAccessPointTypeCode",
            "2" if re.fullmatch(r"[0-9.]+|[0-9a-fA-F:.]*:[0-9a-fA-F:.]*", address) else "1",
        )
    if role is not None:
        _code(element, "RoleIDCode", role)


def _objects(root: ET.Element, line: AuditLine, sender: Sender) -> None:
    if line.study_key:
        study = _object(root, line.study_key, "2", "3", ("110180", "Study Instance UID"), DCM, "keyed hash of the UID")
        if classes := line.detail.get("sop_classes"):
            description = ET.SubElement(study, "ParticipantObjectDescription")
            for uid, count in sorted(classes.items()):
                ET.SubElement(description, "SOPClass", UID=_text(uid), NumberOfInstances=str(int(count)))
        patient = line.patient_key or "unknown"
        _object(root, patient, "1", "1", ("2", "Patient Number"), "RFC-3881", "keyed hash of who it is")
    if asked := queried(line):
        _query(root, asked)
    if line.kind in (AuditKind.SECURITY_ALERT, AuditKind.CONFIGURATION, AuditKind.MODEL):
        alert = _object(root, sender.source_id, "2", "13", ("110182", "Node ID"), DCM, sender.source_id)
        _detail(alert, "Alert Description", json.dumps(line.detail, sort_keys=True))
    if line.kind is AuditKind.LOG_USED:
        _object(root, "ledger:audit_records", "2", "13", ("12", "URI"), "RFC-3881", "Security Audit Log")
    seal = _object(root, str(line.sequence or 0), "2", "13", ("seal", "Seal of the audit trail"), OURS, "audit trail")
    _detail(seal, "digest", line.digest or "")
    _detail(seal, "record", str(line.record_id))
    _detail(seal, "detail", json.dumps(line.detail, sort_keys=True))


def _query(root: ET.Element, asked: Queried) -> None:
    """What is queried, and the query (A.5.3.10)."""
    element = _object(root, asked.identity, "2", "3", asked.code, asked.scheme)
    ET.SubElement(element, "ParticipantObjectQuery").text = b64encode(asked.query).decode()
    if asked.syntax:
        _detail(element, "TransferSyntax", asked.syntax)


def _object(
    root: ET.Element, identity: str, kind: str, role: str, code: Code, scheme: str, name: str = ""
) -> ET.Element:
    """name: "" where a query stands in its place."""
    element = ET.SubElement(
        root,
        "ParticipantObjectIdentification",
        ParticipantObjectID=_text(identity),
        ParticipantObjectTypeCode=kind,
        ParticipantObjectTypeCodeRole=role,
    )
    _code(element, "ParticipantObjectIDTypeCode", code, scheme)
    if name:
        ET.SubElement(element, "ParticipantObjectName").text = _text(name)
    return element


def _detail(element: ET.Element, kind: str, value: str) -> None:
    ET.SubElement(element, "ParticipantObjectDetail", type=kind, value=b64encode(value.encode()).decode())


def _code(parent: ET.Element, name: str, code: Code, scheme: str = DCM) -> None:
    value, meaning = (_text(part) for part in code)
    ET.SubElement(parent, name, {"csd-code": value, "codeSystemName": scheme, "originalText": meaning})


def _text(text: str) -> str:
    """Without characters that XML cannot hold."""
    return _NO_XML.sub("?", text)
