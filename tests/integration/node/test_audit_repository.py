"""An audit record repository hears every record, in order, none lost, and as the standard wants it said."""

import threading
from base64 import b64decode
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest
from lxml import etree
from pydicom import dcmread
from pydicom.uid import ExplicitVRLittleEndian

from config import Settings
from config.audit import AuditSettings
from config.settings import NodeSettings
from ledger.audit import AuditEvent, AuditKind, Outcome
from ledger.ledger import Ledger
from node.chores import tell_repository
from node.chores.tell_repository import Teller
from node.trail import syslog
from node.trail.message import Sender, xml
from node.trail.syslog import Unheard
from tests.support.audit_repository import repository, settings_for
from tests.support.certificates import Authority
from tests.support.ledgers import open_fresh
from tests.support.peers import free_port

SCHEMA = Path(__file__).parents[2] / "support" / "audit_message.rng"
SENDER = Sender("OPENTRIAGE", "a site", "node.example")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    ledger = open_fresh(tmp_path)
    yield ledger
    ledger.close()


def filled(ledger: Ledger, count: int) -> None:
    events = [AuditEvent(AuditKind.ACCESSED, "user:anna", "1.2.3", detail={"what": str(n)}) for n in range(count)]
    ledger.audit(*events)
    ledger.seal_audit()


def teller(tmp_path: Path, ledger: Ledger, **audit: object) -> Teller:
    settings = Settings(node=NodeSettings(state_dir=tmp_path), audit=AuditSettings.model_validate(audit))
    return Teller(settings, ledger, threading.Event(), connection_s=0.0)


def told(ledger: Ledger, port: int) -> int:
    """How many the ledger thinks the repository has heard."""
    return len(ledger.audit_log()) - ledger.audit_backlog(f"127.0.0.1:{port}")[0]


def test_everything_is_told_once_and_in_order(tmp_path: Path, ledger: Ledger, authority: Authority) -> None:
    filled(ledger, 30)
    with repository(authority) as there:
        one = teller(tmp_path, ledger, **settings_for(there.port, authority))
        assert (one.once(), one.once()) == (30, 0)
        assert there.sequences == list(range(1, 31))


def test_what_came_while_it_was_away_is_told_when_it_is_back(
    tmp_path: Path, ledger: Ledger, authority: Authority
) -> None:
    port = free_port()
    one = teller(tmp_path, ledger, **settings_for(port, authority))
    filled(ledger, 5)
    with pytest.raises(Unheard):
        one.once()
    filled(ledger, 5)
    assert ledger.audit_backlog(f"127.0.0.1:{port}")[0] == 10
    with repository(authority, port=port) as there:
        assert one.once() == 10
        assert there.sequences == list(range(1, 11))


def test_what_it_had_taken_and_not_read_when_it_died_is_told_again(
    tmp_path: Path, ledger: Ledger, authority: Authority
) -> None:
    filled(ledger, 20)
    with repository(authority, dies_after=7) as there:
        one = teller(tmp_path, ledger, **settings_for(there.port, authority))
        with pytest.raises(Unheard):
            one.once()
        assert told(ledger, there.port) == 0  # nobody knows what of it was read
        while one.once():
            pass
        heard = there.sequences
    assert sorted(set(heard)) == list(range(1, 21))
    assert heard[7:] == list(range(1, 21))  # in order, and all of it again


def test_a_repository_that_reads_slowly_hears_everything_in_the_end(
    tmp_path: Path, ledger: Ledger, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(syslog, "CLOSE_S", 0.25)
    filled(ledger, 12)
    with repository(authority, read_pause_s=0.05) as there:
        one = teller(tmp_path, ledger, **settings_for(there.port, authority))
        for _ in range(40):
            try:
                one.once()
            except Unheard:
                continue
            if told(ledger, there.port) == 12:
                break
        assert set(there.sequences) == set(range(1, 13))
        assert told(ledger, there.port) == 12


def test_a_stranger_in_its_place_hears_nothing(tmp_path: Path, ledger: Ledger, authority: Authority) -> None:
    filled(ledger, 1)
    with repository(Authority(tmp_path, "stranger")) as there:
        with pytest.raises(Unheard, match="did not agree on TLS"):
            teller(tmp_path, ledger, **settings_for(there.port, authority)).once()
        assert there.messages == []


def test_the_chore_ends_when_it_is_told_to_with_nobody_to_tell(tmp_path: Path, ledger: Ledger) -> None:
    stop = threading.Event()
    stop.set()
    tell_repository.run(Settings(node=NodeSettings(state_dir=tmp_path)), ledger, stop)


def test_a_message_is_a_syslog_message_with_counted_octets(
    tmp_path: Path, ledger: Ledger, authority: Authority
) -> None:
    filled(ledger, 1)
    with repository(authority) as there:
        teller(tmp_path, ledger, **settings_for(there.port, authority)).once()
        [message] = there.messages
    head, _, body = message.partition(b"\xef\xbb\xbf")
    assert head.startswith(b"<85>1 ")  # facility 10, notice
    assert head.endswith(b" OPENTRIAGE - DICOM+RFC3881 - ")
    assert etree.fromstring(body).tag == "AuditMessage"


EVERY_KIND = [
    AuditEvent(AuditKind.ACTIVITY, "node", detail={"did": "started"}),
    AuditEvent(AuditKind.TRANSFERRED, "ae:CT1", "1.2.3", "ab" * 32, "10.0.0.7",
               detail={"did": "received", "sop_classes": {"1.2.840.10008.5.1.4.1.1.2": 3}, "instances": [1, 2, 3]}),
    AuditEvent(AuditKind.TRANSFERRED, "node:deliver", "1.2.3", outcome=Outcome.SERIOUS_FAILURE,
               detail={"did": "refused", "to": "main-pacs", "status": 0xA700}),
    AuditEvent(AuditKind.SECURITY_ALERT, "ae:EVIL<&\x01\"", peer="fe80::1", outcome=Outcome.MINOR_FAILURE,
               detail={"what": "turned_away", "reason": "<&"}),
    AuditEvent(AuditKind.QUERY, "user:anna", peer="127.0.0.1", detail={"what": "list searched"}),
    *(AuditEvent(AuditKind.QUERY, "node:prove", "1.2.3", detail={"to": "pacs", "how": how})
      for how in ("C-FIND", "QIDO-RS", "storage commitment")),
    AuditEvent(AuditKind.AUTHENTICATION, "user:", outcome=Outcome.MAJOR_FAILURE, detail={"what": "sign_in"}),
    *(AuditEvent(kind, "user:anna", "1.2.3") for kind in AuditKind),
    *(AuditEvent(kind, "node:report", "1.2.3", detail={"did": "x", "to": "ris"}) for kind in AuditKind),
]  # fmt: skip


def test_every_kind_of_record_is_valid_by_the_schema_of_the_standard(ledger: Ledger) -> None:
    ledger.audit(*EVERY_KIND)
    ledger.seal_audit()
    schema = etree.RelaxNG(etree.parse(SCHEMA))
    lines = ledger.untold("r:1")
    assert len(lines) == len(EVERY_KIND)
    for line in lines:
        schema.assertValid(etree.fromstring(xml(line, SENDER)))


def told_as(ledger: Ledger, event: AuditEvent) -> etree._Element:
    """The message of one record."""
    ledger.audit(event)
    ledger.seal_audit()
    return etree.fromstring(xml(ledger.untold("r:1")[-1], SENDER))


def codes(element: etree._Element, name: str) -> list[str]:
    return [one.get("csd-code") for one in element.iter(name) if one.get("codeSystemName") == "DCM"]


def said(event: AuditEvent, event_id: str, action: str, kinds: str = "", *roles: str) -> object:
    name = f"{event.kind.value} {event.detail.get('did') or event.detail.get('what') or ''} by {event.actor}"
    return pytest.param(event, event_id, action, kinds.split(), list(roles), id=name)


K, ALERT, SOURCE, DESTINATION, APPLICATION = AuditKind, AuditKind.SECURITY_ALERT, "110153", "110152", "110150"
TO, PEER, DID = {"to": "pacs"}, "10.0.0.7", "did"
BY_THE_TABLES = [
    # PS3.15 A.5.3: the record, EventID, EventActionCode, EventTypeCodes, RoleIDCode of each participant in order
    said(AuditEvent(K.ACTIVITY, "node", detail={DID: "started"}), "110100", "E", "110120", APPLICATION),
    said(AuditEvent(K.ACTIVITY, "node", detail={DID: "stopped"}), "110100", "E", "110121", APPLICATION),
    said(AuditEvent(K.ACTIVITY, "node", detail={DID: "died"}), "110100", "E", "110121", APPLICATION),
    said(AuditEvent(K.ACTIVITY, "node", detail={DID: "stuck"}), "110100", "E", "110121", APPLICATION),
    said(AuditEvent(K.TRANSFERS, "node:deliver", "1.2", detail=TO), "110102", "E", "", SOURCE, DESTINATION),
    said(AuditEvent(K.TRANSFERRED, "ae:CT1", "1.2", peer=PEER), "110104", "C", "", SOURCE, DESTINATION),
    said(AuditEvent(K.TRANSFERRED, "node:deliver", "1.2", detail=TO), "110104", "C", "", SOURCE, DESTINATION),
    said(AuditEvent(K.ACCESSED, "user:anna", "1.2"), "110103", "R", "", "", APPLICATION),
    said(AuditEvent(K.ANALYSED, "node:analyse", "1.2"), "110103", "R", "", APPLICATION),
    said(AuditEvent(K.REPORTED, "node:report", "1.2"), "110103", "C", "", APPLICATION),
    said(AuditEvent(K.OPERATED, "user:anna", "1.2"), "110103", "U", "", "", APPLICATION),
    said(AuditEvent(K.QUERY, "node:prove", "1.2", detail=TO), "110112", "E", "", SOURCE, DESTINATION),
    said(AuditEvent(K.QUERY, "user:anna", detail={"what": "search"}), "110112", "E", "", SOURCE, DESTINATION),
    said(AuditEvent(K.EXPORT, "user:anna"), "110106", "R", "", SOURCE, DESTINATION),
    said(AuditEvent(K.STUDY_DELETED, "user:anna", "1.2"), "110105", "D", "", "", APPLICATION),
    said(AuditEvent(ALERT, "ae:X", detail={"what": "turned_away"}), "110113", "E", "110126", "", APPLICATION),
    said(AuditEvent(ALERT, "node:receive", detail={DID: "rejected"}), "110113", "E", "110126", APPLICATION),
    said(AuditEvent(ALERT, "user:anna", detail={"needed": "admin"}), "110113", "E", "110132", "", APPLICATION),
    said(AuditEvent(ALERT, "node:keep", detail={DID: "found_chain_broken"}), "110113", "E", "110135", APPLICATION),
    said(AuditEvent(K.CONFIGURATION, "node"), "110113", "E", "110131", APPLICATION),
    said(AuditEvent(K.MODEL, "node"), "110113", "E", "110131", APPLICATION),
    said(AuditEvent(K.AUTHENTICATION, "user:a", detail={"what": "sign_in"}), "110114", "E", "110122", "", APPLICATION),
    said(AuditEvent(K.AUTHENTICATION, "user:a", detail={"what": "sign_out"}), "110114", "E", "110123", "", APPLICATION),
    said(AuditEvent(K.AUTHENTICATION, "user:", outcome=Outcome.MINOR_FAILURE, detail={"token": "unknown"}),
         "110114", "E", "110122", "", APPLICATION),
    said(AuditEvent(K.LOG_USED, "user:anna"), "110101", "R", "", "", APPLICATION),
]  # fmt: skip


@pytest.mark.parametrize(("event", "event_id", "action", "kinds", "roles"), BY_THE_TABLES)
def test_each_record_is_told_with_the_codes_of_the_standards_tables(
    ledger: Ledger, event: AuditEvent, event_id: str, action: str, kinds: list[str], roles: list[str]
) -> None:
    message = told_as(ledger, event)
    identification = message.find("EventIdentification")
    assert codes(identification, "EventID") == [event_id]
    assert identification.get("EventActionCode") == action
    assert identification.get("EventOutcomeIndicator") == str(int(event.outcome))
    assert codes(identification, "EventTypeCode") == kinds
    found = ["".join(codes(one, "RoleIDCode")) for one in message.findall("ActiveParticipant")]
    assert found == roles


def test_every_kind_stands_in_the_table() -> None:
    assert {one.values[0].kind for one in BY_THE_TABLES} == set(AuditKind)  # type: ignore[attr-defined]


def test_who_signs_in_is_told_with_an_address_even_where_none_is_known(ledger: Ledger) -> None:
    [person, _] = told_as(ledger, AuditEvent(K.AUTHENTICATION, "user:anna")).findall("ActiveParticipant")
    assert (person.get("NetworkAccessPointID"), person.get("NetworkAccessPointTypeCode")) == ("node.example", "1")


FIND, COMMITMENT = "1.2.840.10008.5.1.4.1.2.2.1", "1.2.840.10008.1.20.1"


@pytest.mark.parametrize(
    ("actor", "how", "identity", "keys"),
    [
        ("node:prove", "C-FIND", FIND, {"QueryRetrieveLevel": "IMAGE", "StudyInstanceUID": "", "SeriesInstanceUID": "",
                                        "SOPInstanceUID": ""}),
        ("node:report", "C-FIND", FIND, {"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": "",
                                         "NumberOfStudyRelatedInstances": None}),
        ("node:prove", "storage commitment", COMMITMENT, {"TransactionUID": "", "ReferencedSOPSequence": []}),
        ("node:prove", "QIDO-RS", "studies/{study}/series/{series}/instances", None),
        ("user:anna", "", "triage list", None),
    ],
)  # fmt: skip
def test_a_query_names_what_is_queried_and_its_keys_without_their_values(
    ledger: Ledger, actor: str, how: str, identity: str, keys: dict[str, object] | None
) -> None:
    to = {"to": "pacs"} if how else {"what": "search"}
    message = told_as(ledger, AuditEvent(K.QUERY, actor, "1.2.840.99.5", detail={"how": how} | to))
    [asked] = [
        one
        for one in message.findall("ParticipantObjectIdentification")
        if one.find("ParticipantObjectQuery") is not None
    ]
    assert asked.get("ParticipantObjectID") == identity
    assert (asked.get("ParticipantObjectTypeCode"), asked.get("ParticipantObjectTypeCodeRole")) == ("2", "3")
    query = b64decode(asked.findtext("ParticipantObjectQuery"))
    assert query
    assert codes(asked, "ParticipantObjectIDTypeCode") == ([] if keys is None else ["110181"])
    syntax = {one.get("type"): b64decode(one.get("value")).decode() for one in asked.findall("ParticipantObjectDetail")}
    assert syntax == ({} if keys is None else {"TransferSyntax": str(ExplicitVRLittleEndian)})
    if keys is not None:
        read = dcmread(BytesIO(query), force=True)
        assert {one.keyword: one.value for one in read} == keys


def test_the_schema_of_the_standard_refuses_a_message_without_who_acted(ledger: Ledger) -> None:
    filled(ledger, 1)
    message = etree.fromstring(xml(ledger.untold("r:1")[0], SENDER))
    for participant in message.findall("ActiveParticipant"):
        message.remove(participant)
    assert not etree.RelaxNG(etree.parse(SCHEMA)).validate(message)


def test_no_message_names_a_study(ledger: Ledger) -> None:
    ledger.audit(*(AuditEvent(kind, "user:anna", "1.2.840.99.5.4.3") for kind in AuditKind))
    ledger.seal_audit()
    messages = [xml(line, SENDER) for line in ledger.untold("r:1")]
    assert not [message for message in messages if b"1.2.840.99.5.4.3" in message]
    assert all(line.study_key.encode() in message for line, message in zip(ledger.untold("r:1"), messages, strict=True))
