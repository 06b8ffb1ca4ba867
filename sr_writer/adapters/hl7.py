"""HL7 v2.5 ORU^R01 (unsolicited observation) over MLLP, for worklists that a RIS drives.

One message for each report: the priority as an observation with its abnormal flag (OBX-8) and, where it is raised, as
the order's priority (TQ1-9); each finding with presence and probability; the research-use sentence. Results are
preliminary (P), withdrawn ones are deleted (D). Nothing is ever flagged N, the flag that calls a result healthy.
"""

import hashlib
import re
import socket
import ssl
import time
from collections.abc import Iterator
from datetime import datetime

from highdicom.sr import CodedConcept

from config.adapters import Hl7Adapter
from config.settings import DeliverSettings
from ledger.records import Finding
from sr_writer import codes
from sr_writer.adapters.telling import NOT_RAISED, WITHDRAWN, Answer, Message, TryLater, accepted, refused
from sr_writer.errors import Unreachable
from sr_writer.secure import named_context
from sr_writer.words import DISCLAIMER, in_percent

START, END = b"\x0b", b"\x1c\x0d"
_ANSWER_MAX_BYTES = 65_536
_FLAGS = {"HIGH": "AA", "MEDIUM": "A"}  # table 0078; every other status has none
_TIMING = {"HIGH": "S^Stat^HL70485", "MEDIUM": "A^ASAP^HL70485"}  # nothing is ever made less urgent than it was
_WORDS = {
    "HIGH": "AI triage: priority HIGH",
    "MEDIUM": "AI triage: priority MEDIUM",
    NOT_RAISED: "AI triage: priority not raised; other disease was not looked for",
    "NOT_ASSESSED": "AI triage: the model could not assess this study",
    WITHDRAWN: "AI triage: result withdrawn",
}
_ESCAPES = {"\\": "\\E\\", "|": "\\F\\", "^": "\\S\\", "&": "\\T\\", "~": "\\R\\"}
_ERRORS = {  # table 0357
    "100": "segment sequence error",
    "101": "required field missing",
    "102": "data type error",
    "103": "table value not found",
    "200": "unsupported message type",
    "201": "unsupported event code",
    "202": "unsupported processing id",
    "203": "unsupported version",
    "204": "unknown key identifier",
    "205": "duplicate key identifier",
    "206": "record locked",
    "207": "internal error",
}


class Hl7Teller:
    """One connection for each message."""

    def __init__(self, settings: Hl7Adapter, times: DeliverSettings) -> None:
        self._settings = settings
        self._times = times

    def tell(self, message: Message) -> Answer:
        """Raises Unreachable, TryLater."""
        control_id = control_id_of(message)
        answer = self._exchange(encode(message, self._settings), control_id)
        return _judge(answer, self._settings.key)

    def _exchange(self, content: bytes, control_id: str) -> list[list[str]]:
        where = f"{self._settings.key} ({self._settings.host}:{self._settings.port})"
        try:
            connection = self._connect()
        except ssl.SSLCertVerificationError:
            raise Unreachable(f"the certificate of {where} is not trusted: set ca_file or renew it.") from None
        except OSError as error:
            raise Unreachable(f"{where} cannot be reached ({type(error).__name__}).") from None
        with connection:
            try:
                connection.settimeout(self._times.response_timeout_s)
                connection.sendall(START + content + END)
                return _answer_to(connection, control_id, time.monotonic() + self._times.response_timeout_s)
            except TimeoutError:
                raise TryLater(f"{where} did not answer in time.") from None
            except (OSError, EOFError) as error:
                raise TryLater(f"{where} broke off before it answered ({type(error).__name__}).") from None

    def _connect(self) -> socket.socket:
        one = self._settings
        plain = socket.create_connection((one.host, one.port), self._times.connect_timeout_s)
        if not one.tls:
            return plain
        try:
            return named_context(one.ca_file).wrap_socket(plain, server_hostname=one.host)
        except BaseException:
            plain.close()
            raise


def _answer_to(connection: socket.socket, control_id: str, deadline: float) -> list[list[str]]:
    """The segments of the acknowledgement of our message; those of other messages are passed over."""
    received = b""
    while True:
        while END not in received:
            if len(received) > _ANSWER_MAX_BYTES:
                raise EOFError("an answer without end")
            connection.settimeout(max(deadline - time.monotonic(), 0.001))
            if not (piece := connection.recv(4096)):
                raise EOFError("closed before it answered")
            received += piece
        block, _, received = received.partition(END)
        segments = _parse(block.rpartition(START)[2])
        if field_of(segments, "MSA", 2) == control_id:
            return segments


def _parse(block: bytes) -> list[list[str]]:
    text = block.decode("utf-8", errors="replace")
    return [line.split("|") for line in re.split(r"[\r\n]+", text) if line]


def field_of(segments: list[list[str]], name: str, number: int) -> str:
    """Of the first segment of that name; empty where there is none."""
    segment = next((one for one in segments if one[0] == name), [])
    return segment[number].strip() if number < len(segment) else ""


def _judge(segments: list[list[str]], name: str) -> Answer:
    """Of what the receiver says, only table values are kept: its words may name the patient."""
    code = field_of(segments, "MSA", 1)
    error = field_of(segments, "ERR", 3).partition("^")[0] or field_of(segments, "MSA", 6).partition("^")[0]
    why = f": {_ERRORS[error]} ({error})" if error in _ERRORS else ""
    if code in ("AA", "CA"):
        return accepted(f"{name} acknowledged it ({code}).")
    if code in ("AE", "CE"):
        raise TryLater(f"{name} could not process the message ({code}{why}); its log says more.")
    if code in ("AR", "CR"):
        return refused(
            f"{name} rejected the message ({code}{why}): look at its log for message type, version and names of the "
            "applications, then release the job."
        )
    raise TryLater(f"{name} answered with an acknowledgement code that HL7 does not have.")


# --- the message ---


def control_id_of(message: Message) -> str:
    """MSH-10, 20 characters."""
    return hashlib.sha256(message.uid.encode()).hexdigest()[:20].upper()


def escaped(text: str) -> str:
    """Text as it may stand in a field (HL7 v2.5 2.7); control characters become spaces."""
    text = "".join(character if character.isprintable() else " " for character in text)
    return "".join(_ESCAPES.get(character, character) for character in text)


def encode(message: Message, settings: Hl7Adapter) -> bytes:
    """The message in UTF-8, segments ended by CR."""
    segments = [
        _msh(message, settings),
        _pid(message),
        _obr(message),
        *([f"TQ1|1||||||||{_TIMING[message.status]}"] if message.status in _TIMING else []),
        *_observations(message),
    ]
    return "".join(f"{segment}\r" for segment in segments).encode()


def _msh(message: Message, one: Hl7Adapter) -> str:
    names = (one.sending_application, one.sending_facility, one.receiving_application, one.receiving_facility)
    fields = [*map(escaped, names), _moment(message), "", "ORU^R01^ORU_R01", control_id_of(message)]
    fields += [one.processing_id, "2.5", "", "", "", "", "", "UNICODE UTF-8"]
    return "MSH|^~\\&|" + "|".join(fields)


def _pid(message: Message) -> str:
    issuer = escaped(message.text("IssuerOfPatientID"))
    identifier = escaped(message.text("PatientID")) + (f"^^^{issuer}" if issuer else "")
    born, sex = message.text("PatientBirthDate"), message.text("PatientSex")
    return f"PID|1||{identifier}||{_name(message.text('PatientName'))}||{born}|{sex}"


def _name(person: str) -> str:
    """XPN of a DICOM PN: its groups are repetitions marked alphabetic, ideographic and phonetic."""
    groups = [(group, code) for group, code in zip(person.split("="), "AIP", strict=False) if group.strip("^ ")]
    return "~".join(_xpn(group, code) for group, code in groups)


def _xpn(group: str, code: str) -> str:
    family, given, middle, prefix, suffix = (*group.split("^"), "", "", "", "", "")[:5]
    return "^".join([*map(escaped, (family, given, middle, suffix, prefix)), "", "", code])


def _obr(message: Message) -> str:
    accession = escaped(message.text("AccessionNumber"))
    taken = message.text("StudyDate") + message.text("StudyTime").partition(".")[0]
    fields = [""] * 26
    fields[1], fields[3], fields[18] = "1", accession or control_id_of(message), accession
    fields[4] = _coded(codes.DIAGNOSTIC_REPORT)
    fields[7] = taken if message.text("StudyDate") else ""
    fields[22], fields[24] = _moment(message), "RAD"
    fields[25] = "C" if message.status == WITHDRAWN else "P"
    return "OBR" + "|".join(fields)


def _observations(message: Message) -> Iterator[str]:
    status, made = message.status, _moment(message)
    result = {WITHDRAWN: "D", "NOT_ASSESSED": "X"}.get(status, "P")
    value = "" if result in "DX" else f"{status}^{escaped(_WORDS[status])}^{codes.PRIVATE_SCHEME}"
    lines = [("CWE", "PRIORITY^AI triage priority^99OPENTRIAGE", "", value, "", _FLAGS.get(status, ""), result)]
    for number, finding in enumerate(message.findings, start=1):
        lines += _finding(finding, str(number), status)
    comment = ". ".join(filter(None, (_WORDS[status], message.slices, DISCLAIMER)))
    lines.append(("TX", "121106^Comment^DCM", "", escaped(comment), "", "", "P"))
    lines.append(("ST", "113014^DICOM Study^DCM", "", escaped(message.notice.study_instance_uid), "", "", "P"))
    for number, (kind, name, sub, said, units, flag, state) in enumerate(lines, start=1):
        yield f"OBX|{number}|{kind}|{name}|{sub}|{said}|{units}||{flag}|||{state}|||{made}"


_Line = tuple[str, str, str, str, str, str, str]  # type, identifier, sub-identifier, value, units, flag, status


def _finding(finding: Finding, sub: str, status: str) -> list[_Line]:
    named = _coded(codes.concept(finding.code))
    if status == WITHDRAWN:
        return [("CWE", named, sub, "", "", "", "D"), ("NM", _coded(codes.PROBABILITY), sub, "", "", "", "D")]
    flag = _FLAGS.get(status, "") if finding.present else ""
    probability = f"{in_percent(finding.probability):.2f}"
    return [
        ("CWE", named, sub, _coded(codes.presence(finding.present, finding.in_doubt)), "", flag, "P"),
        ("NM", _coded(codes.PROBABILITY), sub, probability, "%^percent^UCUM", "", "P"),
    ]


def _coded(concept: CodedConcept) -> str:
    return "^".join(escaped(part) for part in (concept.value, concept.meaning, concept.scheme_designator))


def _moment(message: Message) -> str:
    made: datetime = message.header.local(message.notice.made_at)
    return f"{made:%Y%m%d%H%M%S%z}"
